import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { decodeVolume } from '../../controller/model/cluster.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { Timing } from '../../controller/model/timing.ts';
import type { MemoryStore } from '../../controller/store/memory.ts';
import type { Checks } from './checks.ts';
import type { Failovers } from './failovers.ts';
import type { Host } from './host.ts';
import type { Groups } from './moves.ts';
import type { Network } from './network.ts';
import type { Random } from './random.ts';
import type { Scheduler } from './scheduler.ts';

/** Everything of one run. */
export type World = {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly timing: Timing;
  readonly store: MemoryStore;
  readonly network: Network;
  readonly checks: Checks;
  readonly failovers: Failovers;
  readonly groups: Groups;
  readonly hosts: readonly Host[];
  host(name: NodeName): Host;
  /** What the store says now, whoever can see it. */
  docs(): ReadonlyMap<DatasetId, SeenDoc>;
  trace(text: () => string): void;
  /** Parts that are left out to see whether the checks find that. */
  readonly without: { readonly watchdog: boolean };
};

export type SeenDoc = { readonly doc: VolumeDoc; readonly session: string | null };

const decoded = new Map<string, VolumeDoc>();
const decodedMax = 5_000;

/** Of one store; decodes no text twice. */
export function docsOf(store: MemoryStore): ReadonlyMap<DatasetId, SeenDoc> {
  const docs = new Map<DatasetId, SeenDoc>();
  for (const { key, value, session } of store.entries()) {
    if (!key.startsWith('volumes/')) continue;
    if (decoded.size > decodedMax) decoded.clear();
    const doc = decoded.get(value) ?? decodeVolume(value);
    decoded.set(value, doc);
    docs.set(doc.id, { doc, session });
  }
  return docs;
}
