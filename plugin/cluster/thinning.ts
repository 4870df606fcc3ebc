import { defaultRetention, selectExpired } from '../../controller/model/retention.ts';
import type { Locks } from '../locks.ts';
import type { Storage } from '../storage/storage.ts';
import type { Clock, Peers } from './ports.ts';
import { historyOf, type Target, type Work } from './replication-work.ts';
import type { Replicated } from './replicator.ts';

export type ThinParts = {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly peers: Peers;
  readonly locks: Locks;
  /** A copy could not be asked to thin its snapshots. */
  readonly onFailed: (work: Work, target: Target, error: unknown) => void;
};

const pruneMs = 60_000;

/** Destroys the snapshots that the volume's retention does not keep, here and, where they have them still, on the nodes with copies. */
export function createThin({ storage, clock, peers, locks, onFailed }: ThinParts) {
  return async function thin(volume: Replicated, work: Work, signal: AbortSignal): Promise<void> {
    const { doc } = volume;
    const nowMs = clock.nowMs();
    await locks.with(doc.name, 'thinning of snapshots', signal, async () => {
      const snapshots = await storage.snapshots(doc.id);
      const expired = selectExpired({
        snapshots: snapshots.map(({ name, holds }) => ({ name, held: holds.length > 0 })),
        grid: doc.options.retain ?? defaultRetention,
        nowMs,
      });
      work.history = null;
      for (const name of expired) await storage.destroySnapshot(doc.id, name);
      work.history = null;
    });
    const kept = new Set((await historyOf(storage, work)).map(({ identity }) => identity));
    for (const target of work.targets.values()) {
      const { copy } = target;
      if (target.sending !== null || copy === null || copy.snapshots === null) continue;
      const surplus = copy.snapshots.slice(0, -1).filter(({ identity }) => !kept.has(identity));
      if (surplus.length === 0) continue;
      const names = surplus.map(({ name }) => name);
      await peers
        .call(
          target.node,
          'prune-copy',
          { id: doc.id, epoch: doc.epoch, snapshots: names },
          { timeoutMs: pruneMs, signal },
        )
        .catch((error: unknown) => onFailed(work, target, error));
      if (target.copy !== null)
        target.copy = { ...copy, snapshots: copy.snapshots.filter(({ name }) => !names.includes(name)) };
    }
  };
}
