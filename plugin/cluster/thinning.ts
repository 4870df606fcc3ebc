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

/**
 * Destroys the snapshots that the volume's retention does not keep, here and, where they have them still, on the nodes with copies: those
 * are asked in tasks of their own, so that one that does not answer holds back nothing. Resolves when it is done here.
 */
export function createThin({ storage, clock, peers, locks, onFailed }: ThinParts) {
  async function thinOwn({ doc }: Replicated, work: Work, signal: AbortSignal): Promise<void> {
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
  }

  /** Never rejects. */
  async function thinCopy({ doc }: Replicated, work: Work, target: Target, kept: ReadonlySet<string>): Promise<void> {
    const { copy, sending, isThinned, stop } = target;
    if (sending !== null || isThinned || copy === null || copy.snapshots === null) return;
    const surplus = copy.snapshots.slice(0, -1).filter(({ identity }) => !kept.has(identity));
    if (surplus.length === 0) return;
    const names = surplus.map(({ name }) => name);
    target.isThinned = true;
    const ask = { id: doc.id, epoch: doc.epoch, snapshots: names };
    await peers
      .call(target.node, 'prune-copy', ask, { timeoutMs: pruneMs, signal: stop.signal })
      .catch((error: unknown) => onFailed(work, target, error));
    target.isThinned = false;
    // Something may have been sent meanwhile.
    const { copy: now } = target;
    if (now !== null && now.snapshots !== null)
      target.copy = { ...now, snapshots: now.snapshots.filter(({ name }) => !names.includes(name)) };
  }

  return async function thin(volume: Replicated, work: Work, signal: AbortSignal): Promise<void> {
    await thinOwn(volume, work, signal);
    const kept = new Set((await historyOf(storage, work)).map(({ identity }) => identity));
    for (const target of work.targets.values()) void thinCopy(volume, work, target, kept);
  };
}
