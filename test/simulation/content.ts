import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import { liveOf, type Tree } from '../../plugin/storage/memory-disk.ts';
import type { Container } from './containers.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/**
 * What containers write: numbered records, one after the other. A volume's content is one file whose buffer stands for the last
 * record; each record knows the one before it, so that content is shared by all snapshots and a write costs the same always.
 */
export type Record = {
  readonly number: number;
  readonly volume: DatasetId;
  readonly node: NodeName;
  readonly container: string;
  /** Under which the writer's node believed to own the volume. */
  readonly epoch: number;
  readonly atMs: number;
  readonly before: Record | null;
  readonly depth: number;
};

const path = 'records';
const records = new WeakMap<Buffer, Record>();

export function headOf(tree: Tree): Record | null {
  const data = tree.files.get(path);
  return data === undefined ? null : (records.get(data) ?? null);
}

export function append(world: World, { host, volume, id }: Container): void {
  const live = liveOf(host.disk, volume);
  const before = headOf(live.tree);
  const record: Record = {
    number: world.checks.written().length,
    volume,
    node: host.name,
    container: id,
    epoch: host.file.records.get(volume)?.epoch ?? 0,
    atMs: world.scheduler.nowMs(),
    before,
    depth: (before?.depth ?? 0) + 1,
  };
  const data = Buffer.alloc(0);
  records.set(data, record);
  live.tree = { ...live.tree, files: new Map([[path, data]]) };
  world.checks.wrote(record);
}

/** Whether a content that ends with `head` has the record. */
export function includes(head: Record | null, wanted: Record): boolean {
  let at = head;
  while (at !== null && at.depth > wanted.depth) at = at.before;
  return at === wanted;
}

/** The last record that all of them have. */
export function commonOf(heads: readonly (Record | null)[]): Record | null {
  let common = heads[0] ?? null;
  for (let head of heads.slice(1)) {
    while (common !== head) {
      if (common === null || head === null) return null;
      if (common.depth >= head.depth) common = common.before;
      else head = head.before;
    }
  }
  return common;
}

/** Every record that is in the live content or a snapshot of any dataset of the host in this phase (undefined: that is not about to go). */
export function collect(host: Host, phase: VolumeRecord['phase']['kind'] | undefined, found: Set<Record>): void {
  for (const [id, live] of host.disk.datasets) {
    const kind = host.file.records.get(id)?.phase.kind;
    if (phase === undefined ? kind === 'destroying' : kind !== phase) continue;
    for (const tree of [live.tree, ...live.snapshots.map((saved) => saved.tree)]) {
      for (let at = headOf(tree); at !== null && !found.has(at); at = at.before) found.add(at);
    }
  }
}
