import type { Logger } from 'pino';
import { messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { PoolStatus, Storage } from '../storage/storage.ts';
import type { Clock, Tell } from './ports.ts';
import { within } from './within.ts';

/**
 * A host can live on without its disk. Its plugin would renew its session for ever, and nobody might take its volumes. So a node whose
 * pool can't be written to stops proving that its volumes are its own: from there on everything happens as if the host had died. Its
 * users stand at the deadline, the session ends, the guard passes, another node takes each volume that may be taken.
 *
 * Only what the pool itself says counts. A command that fails, or does not answer, may be a busy disk, and taking that for a dead one
 * would stop services for nothing.
 */
export type Retreat = {
  /** Whether this node has stopped proving. It goes on when its pool is back. */
  hasRetreated(): boolean;
  run(signal: AbortSignal): Promise<void>;
};

export type RetreatParts = {
  readonly node: NodeName;
  readonly storage: Pick<Storage, 'pool'>;
  readonly clock: Clock;
  /** Whether a living node has a copy of a volume of this one. Else the users of what is left, who may still read, would stop for nothing. */
  readonly wouldHelp: () => boolean;
  readonly tell: Tell;
  readonly log: Logger;
};

/** `lost`: the pool has been failing for long enough to be sure. */
export type PoolHealth =
  | { readonly kind: 'well' }
  | { readonly kind: 'failing'; readonly sinceMs: number }
  | { readonly kind: 'lost'; readonly hasRetreated: boolean };

/** Of the boot clock; a daemon that is started again, or a pool that is imported anew, is back within seconds. */
export const poolLostAfterMs = 5_000;
const lookMs = 2_000;
const answerMsMax = 10_000;

/** Why nothing can be written; null: it can, or that can't be told. Pure. */
export function faultOf(status: PoolStatus): string | null {
  if (status.state === 'read-only') return `the pool ${status.name} is read-only`;
  return status.state === 'failed' || status.state === 'missing' ? status.reason : null;
}

/** What to think of the pool after a look at it; `status` null: there was no answer. Pure. */
export function judgePool(
  before: PoolHealth,
  look: { readonly status: PoolStatus | null; readonly nowMs: number; readonly wouldHelp: boolean },
): PoolHealth {
  const { status, nowMs, wouldHelp } = look;
  if (status?.state === 'online') return { kind: 'well' };
  if (before.kind === 'lost') return { kind: 'lost', hasRetreated: before.hasRetreated || wouldHelp };
  if (status === null || faultOf(status) === null) return before;
  if (before.kind === 'well') return { kind: 'failing', sinceMs: nowMs };
  return nowMs - before.sinceMs < poolLostAfterMs ? before : { kind: 'lost', hasRetreated: wouldHelp };
}

export function createRetreat({ node, storage, clock, wouldHelp, tell, log }: RetreatParts): Retreat {
  let health: PoolHealth = { kind: 'well' };
  let fault = '';

  const hasRetreated = () => health.kind === 'lost' && health.hasRetreated;

  async function look(signal: AbortSignal): Promise<void> {
    const status = await within(clock, answerMsMax, signal, storage.pool());
    const before = health;
    health = judgePool(before, { status, nowMs: clock.bootMs(), wouldHelp: wouldHelp() });
    fault = (status === null ? null : faultOf(status)) ?? fault;
    if (health.kind === 'lost' && (before.kind !== 'lost' || before.hasRetreated !== health.hasRetreated)) {
      const text = `${fault}: ${
        health.hasRetreated
          ? 'this node gives up its volumes, as a dead one would; those that have copies get another owner as far as their failover option allows'
          : 'no other living node has a copy of its volumes, so it keeps them'
      }`;
      log.error({ event: 'pool.lost', hasRetreated: health.hasRetreated }, text);
      tell('pool-lost', node, text);
    }
    if (health.kind === 'well' && before.kind === 'lost') {
      log.info({ event: 'pool.back' }, 'the pool can be written to again');
      tell('pool-back', node, 'its pool can be written to again');
    }
  }

  return {
    hasRetreated,
    async run(signal) {
      while (!signal.aborted) {
        await look(signal).catch((error: unknown) =>
          log.error({ event: 'pool.look-failed', reason: messageOf(error) }, 'will be tried again'),
        );
        await clock.sleep(lookMs, signal);
      }
    },
  };
}
