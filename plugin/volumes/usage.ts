import { setTimeout as sleep } from 'node:timers/promises';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Storage } from '../storage/storage.ts';
import type { Clock } from './context.ts';

export type VolumeUsage = {
  readonly usedBytes: number;
  readonly totalBytes: number;
  readonly quotaBytes: number | null;
  /** null: not counted yet. */
  readonly snapshots: number | null;
};

/**
 * Sizes of all datasets, remembered: Docker asks for volumes many times a second and must have its answers within milliseconds, a
 * listing of the pool takes longer.
 *
 * INVARIANTS
 * - At most one look at the pool runs or waits to run, whoever asks and how often.
 * - A look runs one command after the other, so that it takes nothing from the calls that users wait for.
 */
export type Usage = {
  /** What was seen last; null before the first listing. */
  of(id: DatasetId): VolumeUsage | null;
  /** Sees to a look at the pool in a moment, if the last one is old or did not show this dataset. Never throws. */
  refreshSoon(id: DatasetId): void;
  /** Looks now. Throws what the storage throws. */
  refresh(): Promise<void>;
  /** Starts no more looks: one would open a pool again that was closed. */
  stop(): void;
};

const youngMs = 5_000;
/** After a burst of creations one look serves them all. */
const delayMs = 500;
/** Snapshots are counted for the volumes that were asked for, at most so many a look. */
const countsMax = 16;

export function createUsage(storage: Storage, clock: Pick<Clock, 'nowMs'>): Usage {
  let seen: ReadonlyMap<DatasetId, Omit<VolumeUsage, 'snapshots'>> = new Map();
  const snapshots = new Map<DatasetId, number>();
  const asked = new Set<DatasetId>();
  let seenAtMs = Number.NEGATIVE_INFINITY;
  let listing: Promise<void> | null = null;
  let looking = false;
  let stopped = false;

  async function list(): Promise<void> {
    const datasets = await storage.list();
    seen = new Map(
      datasets.map(({ id, usedBytes, totalBytes, quotaBytes }) => [id, { usedBytes, totalBytes, quotaBytes }]),
    );
    for (const id of snapshots.keys()) if (!seen.has(id)) snapshots.delete(id);
    seenAtMs = clock.nowMs();
  }

  function refresh(): Promise<void> {
    listing ??= list().finally(() => {
      listing = null;
    });
    return listing;
  }

  async function look(): Promise<void> {
    await sleep(delayMs, undefined, { ref: false });
    if (stopped) return;
    await refresh();
    const ids = [...asked].slice(-countsMax);
    asked.clear();
    for (const id of ids) if (seen.has(id)) snapshots.set(id, (await storage.snapshots(id)).length);
  }

  return {
    of(id) {
      const usage = seen.get(id);
      return usage === undefined ? null : { ...usage, snapshots: snapshots.get(id) ?? null };
    },
    refreshSoon(id) {
      if (seen.has(id) && snapshots.has(id) && clock.nowMs() - seenAtMs < youngMs) return;
      asked.add(id);
      // A pool that can't be listed now leaves the last figures in place; the operation that needs it will say why.
      if (looking || stopped) return;
      looking = true;
      look()
        .catch(() => undefined)
        .finally(() => {
          looking = false;
        });
    },
    refresh,
    stop() {
      stopped = true;
    },
  };
}
