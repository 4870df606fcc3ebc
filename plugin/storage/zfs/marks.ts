import type { DatasetId } from '../../../controller/model/names.ts';
import { datasetPath, setArguments } from './arguments.ts';
import { poolOf } from './config.ts';
import { reasonOf } from './errors.ts';
import { exactNumber, type Property, type PropertyTable } from './parse.ts';
import type { Support } from './probe.ts';
import type { Runner } from './runner.ts';

export type Marks = {
  of(ids: readonly DatasetId[]): Promise<ReadonlyMap<DatasetId, string>>;
  /** The mark of what a snapshot that was just made holds. */
  taken(id: DatasetId): string;
  /** The live content was replaced, or a snapshot was destroyed. */
  forget(id: DatasetId): void;
};

/** More would make a long command line; all below the prefix are asked for then. */
const pathsMax = 100;
const lookedProperty = 'flock:looked';
const commitMs = 300_000;

/**
 * zfs has no number that grows with every change of a dataset; several changes in place leave all its sizes as they were. But the
 * first change after a snapshot shows: the blocks that it replaces, the dataset's root block among them, are from then on held by the
 * snapshot alone, and the new ones are added (on zfs-fuse a changed mode bit makes 80 KiB of both). So a dataset is the same as its
 * newest snapshot if its sizes are still those that were seen before that snapshot was made; where they are not, every mark is new. Sizes
 * from before are safe: what snapshots hold only grows until one is destroyed, with which marks are forgotten.
 */
export function createMarks(runner: Runner): Marks {
  const { config } = runner;
  const seen = new Map<DatasetId, string>();
  const settled = new Map<DatasetId, { readonly sizes: string; readonly mark: string }>();
  let last = 0;

  function fresh(): string {
    last += 1;
    return `z${last}`;
  }

  async function tableOf(names: readonly string[], ids: readonly DatasetId[]): Promise<PropertyTable> {
    if (ids.length > pathsMax) return runner.get(names, [config.prefix], 'children');
    const paths = ids.map((id) => datasetPath(config, id));
    try {
      return await runner.get(names, paths);
    } catch (error) {
      // One missing dataset makes the whole command fail.
      if (reasonOf(error) !== 'missing') throw error;
      return ids.length === 1 ? new Map() : runner.get(names, [config.prefix], 'children');
    }
  }

  function markOf(id: DatasetId, sizes: string, isWritten: boolean): string {
    const known = settled.get(id);
    if (known?.sizes === sizes && !isWritten) return known.mark;
    seen.set(id, sizes);
    return fresh();
  }

  return {
    async of(ids) {
      if (ids.length === 0) return new Map();
      const support = await runner.support();
      await commit(runner, support);
      const names = sizeProperties(support);
      const table = await tableOf(names, ids);
      return new Map(
        ids.flatMap((id) => {
          const path = datasetPath(config, id);
          const found = table.get(path);
          if (found === undefined) return [];
          return [[id, markOf(id, sizesOf(path, found), (found.get('written')?.value ?? '0') !== '0')] as const];
        }),
      );
    },

    taken(id) {
      const mark = fresh();
      const sizes = seen.get(id);
      if (sizes === undefined) settled.delete(id);
      else settled.set(id, { sizes, mark });
      return mark;
    },

    forget(id) {
      seen.delete(id);
      settled.delete(id);
    },
  };
}

const sizeNames = ['used', 'referenced', 'usedbysnapshots'];

/** `written` alone would do but for snapshots that somebody else makes. */
export function sizeProperties({ written }: Support): readonly string[] {
  return written ? [...sizeNames, 'written'] : sizeNames;
}

function sizesOf(path: string, found: ReadonlyMap<string, Property>): string {
  return sizeNames.map((name) => exactNumber(path, found, name)).join(':');
}

/** Writes out everything: the sizes are those of the disk. */
async function commit(runner: Runner, support: Support): Promise<void> {
  const { config } = runner;
  if (support.poolSync) await runner.zpool(['sync', poolOf(config)], commitMs);
  else await runner.zfs(setArguments(config.prefix, lookedProperty, new Date().toISOString()));
}
