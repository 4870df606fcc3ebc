import { decodeVolume, type VolumeDoc } from '../../../controller/model/cluster.ts';
import { decodeMove, type MoveDoc } from '../../../controller/model/move.ts';
import { decodeWorkload, type WorkloadDoc } from '../../../controller/model/workload.ts';
import type { MemoryStore } from '../../../controller/store/memory.ts';
import type { Random } from '../random.ts';
import type { Scheduler } from '../scheduler.ts';
import type { Host } from './host.ts';

/** Everything of one run. */
export type World = {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly store: MemoryStore;
  readonly hosts: readonly Host[];
  host(name: string): Host;
  /** Until when the proxies hold each service (virtual milliseconds). */
  readonly pauses: Map<string, number>;
  /** Names of containers that people or faults have touched: whether they run at the end is not the controllers' doing alone. */
  readonly touched: Set<string>;
  /** Whether calls to Docker, plugin and proxy fail now and then. */
  isFlaky(): boolean;
  /** What is never to happen has happened. */
  violate(rule: string, text: string): void;
  trace(text: () => string): void;
};

/** Of what the store has now, whoever can see it. */
export const movesOf = (store: MemoryStore): readonly MoveDoc[] => decoded(store, 'moves/', decodeMove);
export const workloadsOf = (store: MemoryStore): readonly WorkloadDoc[] => decoded(store, 'workloads/', decodeWorkload);
export const volumesOf = (store: MemoryStore): readonly VolumeDoc[] => decoded(store, 'volumes/', decodeVolume);

function decoded<T>(store: MemoryStore, prefix: string, decode: (text: string) => T): readonly T[] {
  return store
    .entries()
    .filter(({ key }) => key.startsWith(prefix))
    .map(({ value }) => decode(value));
}
