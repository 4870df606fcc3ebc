import type { Logger } from 'pino';
import { messageOf } from '../../controller/model/errors.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { PoolStatus, Storage } from '../storage/storage.ts';
import type { Clock, Tell } from './ports.ts';
import type { Takers } from './takers.ts';
import { within } from './within.ts';

/**
 * A host can live on without its disk. Its session says that it lives, so nobody might take its volumes, and they would be down for as
 * long as the disk is. So a node whose pool can't be written to says so in its own document, and gives up those volumes that another
 * node could take: it proves them no more, stops their users and unlocks them. What is not on that pool, and what nobody else has, goes
 * on as before.
 *
 * Only what the pool itself says counts. A command that fails, or does not answer, may be a busy disk, and taking that for a dead one
 * would stop services for nothing.
 */
export type Retreat = {
  /** Why nothing can be written to the pool, sure or not yet: nothing of others' is to come here. null: as far as this node knows it can. */
  fault(): string | null;
  /** What this node does about a volume of its own; null: nothing special. Neither `given` nor `returning` is proven. */
  stateOf(id: DatasetId): Withdrawal | null;
  /** It is locked again, by a transaction of after the return. */
  regained(id: DatasetId): void;
  run(signal: AbortSignal): Promise<void>;
};

/** `given`: to be unlocked, and left so. `returning`: to be locked anew before anything else, for somebody may just be taking it. */
export type Withdrawal = 'given' | 'returning';

export type RetreatParts = {
  readonly node: NodeName;
  readonly storage: Pick<Storage, 'pool'>;
  readonly clock: Clock;
  /** The volumes that are this node's own by its records; until its users were ended also one that somebody has taken. */
  readonly owned: () => readonly DatasetId[];
  /** What nobody can take is kept: its users, who may still read, would stop for nothing. */
  readonly takers: Takers;
  /** False while too little of the cluster is known to tell. */
  readonly isComplete: () => boolean;
  /** What this node's own document says. */
  readonly isMarked: () => boolean;
  /** Has it say so. Fails while the store does not answer. */
  readonly mark: (isLost: boolean) => Promise<void>;
  readonly onChange: () => void;
  readonly tell: Tell;
  readonly log: Logger;
};

/** Boot times. `lastMs`: of the last look that found it so; `goodSinceMs`: since when looks have found it well again; null: they have not. */
export type PoolHealth =
  | { readonly kind: 'well' }
  | {
      readonly kind: 'failing';
      readonly sinceMs: number;
      readonly lastMs: number;
      readonly goodSinceMs: number | null;
    }
  | { readonly kind: 'lost'; readonly goodSinceMs: number | null };

/** A daemon that is started again, or a pool that is imported anew, is back within seconds. */
export const poolLostAfterMs = 5_000;
/** Faults that lie farther apart are two. */
export const faultMsMax = 15_000;
/** One that fails and works by turns would never be given up, or get its volumes back each time just before others have them. */
export const poolBackAfterMs = { failing: 5_000, lost: 15_000 } as const;
const unknownFault = 'the pool can’t be written to';
const lookMs = 2_000;
const firstLookMs = 200;
const answerMsMax = 10_000;

/** Why nothing can be written; null: it can, or that can't be told. Pure. */
export function faultOf(status: PoolStatus): string | null {
  if (status.state === 'read-only') return `the pool ${status.name} is read-only`;
  return status.state === 'failed' || status.state === 'missing' ? status.reason : null;
}

/** What to think of the pool after a look at it; `status` null: there was no answer. Pure. */
export function judgePool(before: PoolHealth, status: PoolStatus | null, nowMs: number): PoolHealth {
  if (status?.state === 'online') {
    if (before.kind === 'well') return before;
    const goodSinceMs = before.goodSinceMs ?? nowMs;
    return nowMs - goodSinceMs < poolBackAfterMs[before.kind] ? { ...before, goodSinceMs } : { kind: 'well' };
  }
  if (status === null || faultOf(status) === null) return before;
  const goodSinceMs = null;
  if (before.kind === 'lost') return { kind: 'lost', goodSinceMs };
  if (before.kind === 'well' || nowMs - before.lastMs > faultMsMax)
    return { kind: 'failing', sinceMs: nowMs, lastMs: nowMs, goodSinceMs };
  return nowMs - before.sinceMs < poolLostAfterMs
    ? { ...before, lastMs: nowMs, goodSinceMs }
    : { kind: 'lost', goodSinceMs };
}

export function createRetreat(parts: RetreatParts): Retreat {
  const { node, storage, clock, owned, isComplete, isMarked, mark, onChange, tell, log } = parts;
  const { mayBeTaken, canBeTaken } = parts.takers;
  let health: PoolHealth = { kind: 'well' };
  let fault: string | null = null;
  let hasLooked = false;
  let isBackTold = false;
  const withdrawn = new Map<DatasetId, Withdrawal>();

  async function look(signal: AbortSignal): Promise<void> {
    const status = await within(clock, answerMsMax, signal, storage.pool());
    if (!isComplete()) return;
    const isFirst = !hasLooked;
    // What an earlier process was sure of needs no second proof; a pool that works at a start was mended.
    const wasLost = isFirst && isMarked() && status?.state !== 'online';
    const before: PoolHealth = wasLost ? { kind: 'lost', goodSinceMs: null } : health;
    health = judgePool(before, status, clock.bootMs());
    // What that one has unlocked may look locked still, or be unlocked only now.
    if (isFirst && isMarked()) for (const id of owned()) if (mayBeTaken(id)) withdrawn.set(id, 'returning');
    hasLooked = true;
    fault = health.kind === 'well' ? null : ((status === null ? null : faultOf(status)) ?? fault);
    if (health.kind === 'lost' && before.kind !== 'lost') {
      const text = `${fault ?? unknownFault}: volumes of this node that have copies go to the nodes with those, as far as their failover option allows`;
      log.error({ event: 'pool.lost' }, text);
      tell('pool-lost', node, text);
    }
    withdraw(health.kind === 'lost');
    if (health.kind === 'lost' && !isMarked()) {
      await mark(true);
      isBackTold = false;
    }
    if (health.kind === 'well' && isMarked()) {
      await mark(false);
      if (!isBackTold) tell('pool-back', node, 'its pool can be written to again');
      isBackTold = true;
    }
  }

  /** Others take only what a node gives up that says so: not before that. */
  function withdraw(isLost: boolean): void {
    const mine = new Set(owned());
    let hasChanged = false;
    const set = (id: DatasetId, state: Withdrawal) => {
      if (withdrawn.get(id) === state) return;
      withdrawn.set(id, state);
      hasChanged = true;
      log.warn({ event: `pool.${state}`, dataset: id }, 'a volume is withdrawn');
    };
    for (const id of withdrawn.keys()) if (!mine.has(id)) withdrawn.delete(id);
    for (const id of mine) {
      if (isLost && isMarked() && mayBeTaken(id) && canBeTaken(id)) set(id, 'given');
      else if (withdrawn.has(id)) set(id, 'returning');
    }
    if (hasChanged) onChange();
  }

  return {
    fault: () => fault ?? (!hasLooked && isMarked() ? unknownFault : null),
    // Nothing is locked and thawed for the moment between a start and the first look.
    stateOf: (id) => withdrawn.get(id) ?? (!hasLooked && isMarked() && mayBeTaken(id) ? 'given' : null),
    regained(id) {
      if (withdrawn.get(id) === 'returning') withdrawn.delete(id);
    },
    async run(signal) {
      while (!signal.aborted) {
        await look(signal).catch((error: unknown) =>
          log.warn({ event: 'pool.look-failed', reason: messageOf(error) }, 'will be tried again'),
        );
        await clock.sleep(hasLooked ? lookMs : firstLookMs, signal);
      }
    },
  };
}
