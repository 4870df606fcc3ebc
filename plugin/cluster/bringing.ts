import type { Logger } from 'pino';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { isInternalSnapshot } from '../../controller/model/names.ts';
import { type Identified, lastReached, planTransfer } from '../../controller/model/replication.ts';
import type { Snapshot, Storage } from '../storage/storage.ts';
import type { Clock, CopyState, Peers } from './ports.ts';
import { has, historyOf, noteComplete, type Target, type Work } from './replication-work.ts';
import type { Replicated } from './replicator.ts';

/**
 * Brings one copy to what the volume has, step by step, each step planned anew from what both have. `until`: the identity of a
 * snapshot that is enough; null: the newest there is.
 */
export type Bring = (
  volume: Replicated,
  work: Work,
  target: Target,
  options: { readonly until: string | null; readonly signal: AbortSignal },
) => Promise<void>;

export type BringParts = {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly peers: Peers;
  readonly log: Logger;
};

const callMs = 10_000;
const rewindMs = 60_000;
/** Of a regular round, after which others have their turn; who waits for a certain snapshot goes on, within its own time. */
const roundStepsMax = 64;
const stepsMax = 10_000;

export function createBring({ storage, clock, peers, log }: BringParts): Bring {
  /** Steps through the snapshots that people made, so that a copy has them too, up to the newest. */
  const bring: Bring = async (volume, work, target, { until, signal }) => {
    const { doc } = volume;
    const ask = { id: doc.id, epoch: doc.epoch };
    const call = { timeoutMs: callMs, signal };
    // Of this time, not of one before: perhaps there is nothing to send.
    target.sentBytes = 0;
    target.totalBytes = null;
    for (let step = 0; step < (until === null ? roundStepsMax : stepsMax); step += 1) {
      signal.throwIfAborted();
      const startedMs = clock.bootMs();
      target.copy ??= await peers.call(target.node, 'copy-state', ask, call);
      if (step > 0 && until !== null && has(target, until)) return arrived(doc, target);
      const owner = await historyOf(storage, work);
      const plan = planTransfer({
        owner: upToNext(owner, target.copy),
        replica: target.copy.snapshots,
        ownerEpoch: doc.epoch,
        replicaEpoch: target.copy.epoch,
        bases: doc.bases,
      });
      switch (plan.kind) {
        case 'in-sync': {
          const newest = owner.at(-1);
          if (newest === undefined || newest.identity !== target.copy.snapshots?.at(-1)?.identity) continue;
          await work.holds.settle(newest.name, target.node);
          return arrived(doc, target);
        }
        case 'refused':
          throw new FlockError('epoch-stale', plan.reason);
        case 'diverged': {
          if (!plan.isCovered)
            log.warn(
              { event: 'replication.diverged', dataset: doc.id, node: target.node, common: plan.common },
              'the copy has other writes, which it keeps as a stash',
            );
          const head = target.copy.snapshots?.at(-1)?.identity ?? null;
          // Until the answer is here nothing is known of it, and it counts for nothing: it may be gone already.
          target.copy = null;
          target.copy = await peers.call(
            target.node,
            'rewind-copy',
            { ...ask, common: plan.common, isCovered: plan.isCovered, head },
            { ...call, timeoutMs: rewindMs },
          );
          break;
        }
        case 'full':
        case 'incremental': {
          const from = plan.kind === 'full' ? null : plan.from;
          const to = begunBefore(owner, target.copy, from) ?? plan.to;
          await send(volume, work, target, from, to, signal);
          const atMs = work.takenAtMs.get(to.identity);
          if (atMs !== undefined) noteComplete(target, { identity: to.identity, atMs });
          // Of before this process began. What people made earlier may be of any age, and says nothing of how far the copy is.
          else if (to.identity === owner.at(-1)?.identity) target.currentAtMs = startedMs;
          work.cycleMs = clock.bootMs() - startedMs;
        }
      }
    }
    if (until !== null)
      throw new FlockError(
        'volume-busy',
        `the copy on ${target.node} is not complete after ${stepsMax} steps; try again`,
      );
  };

  function arrived(doc: VolumeDoc, target: Target): void {
    target.failures = 0;
    if (target.problem !== null)
      log.info(
        { event: 'replication.copy-recovered', dataset: doc.id, node: target.node },
        'the copy is up to date again',
      );
    target.problem = null;
  }

  async function send(
    volume: Replicated,
    work: Work,
    target: Target,
    from: Identified | null,
    to: Identified,
    signal: AbortSignal,
  ): Promise<void> {
    target.sentBytes = 0;
    // What an increment takes could only be told by making it.
    target.totalBytes = from === null ? await storage.estimate({ id: volume.doc.id, to: to.name, from: null }) : null;
    await work.holds.take(to.name, target.node);
    const transfer = { doc: volume.doc, to: to.name, toIdentity: to.identity, from: from?.name ?? null };
    const onProgress = (bytes: number) => {
      target.everSentBytes += bytes - target.sentBytes;
      target.sentBytes = bytes;
    };
    await peers.transfer(target.node, transfer, onProgress, signal);
    const { epoch, snapshots } = target.copy ?? { epoch: volume.doc.epoch, snapshots: null };
    target.copy = {
      epoch: Math.max(epoch, volume.doc.epoch),
      snapshots: [...(snapshots ?? []), { name: to.name, identity: to.identity }],
    };
    await work.holds.settle(to.name, target.node);
  }

  return bring;
}

/**
 * The owner's snapshots up to the oldest one made by people that the copy does not have, or all. What replication made last before that one
 * comes first, for only that tells how far the copy has got (copy-order.ts). Not to one that has none yet: it would count as one that was
 * complete once, and could become the volume by itself long before it is.
 */
export function upToNext(owner: readonly Identified[], copy: Pick<CopyState, 'snapshots'>): readonly Identified[] {
  const present = new Set(copy.snapshots?.map(({ identity }) => identity));
  const common = owner.findLastIndex(({ identity }) => present.has(identity));
  const next = owner.findIndex(({ name }, index) => index > common && !isInternalSnapshot(name));
  if (next === -1) return owner;
  const hasPlace = lastReached(copy.snapshots ?? []) !== null;
  return owner.slice(0, hasPlace && next > common + 1 ? next : next + 1);
}

/** The end of a stream that broke off and has a beginning on the other side: going on with it is less than beginning a newer one. */
function begunBefore(owner: readonly Snapshot[], { partial }: CopyState, from: Identified | null): Identified | null {
  if (partial == null || partial.from !== (from?.name ?? null)) return null;
  const at = owner.findIndex(({ identity }) => identity === partial.toIdentity);
  return at > owner.findIndex(({ identity }) => identity === from?.identity) ? (owner[at] ?? null) : null;
}
