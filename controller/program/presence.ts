import type { Logger } from 'pino';
import { type AliveDoc, keys } from '../model/cluster.ts';
import { messageOf } from '../model/errors.ts';
import type { NodeName } from '../model/names.ts';
import type { SessionId, Store } from '../store/store.ts';
import type { Clock } from './home.ts';

/**
 * Says in the store that this node's controller is at work: `controllers/NODE` is locked by a session of its own for as long as it is. That
 * its host lives says the plugin (`alive/NODE`); without a controller nobody makes, starts or moves containers there all the same.
 */
export type Presence = {
  /** Until the signal fires; then the others are told, if the store answers. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type PresenceParts = {
  readonly store: Store;
  readonly node: NodeName;
  readonly clock: Pick<Clock, 'sleep'>;
  readonly alive: AliveDoc;
  readonly log: Logger;
};

/** No guard hangs on it, so it need not be quicker than Consul's default `session_ttl_min`. Consul ends a session after one to two of them. */
const sessionTtlMs = 10_000;
const renewMs = 3_000;
/** Of the controller's own end, for the last word. */
const farewellMs = 1_000;
const never = new AbortController().signal;

export function createPresence({ store, node, clock, alive, log }: PresenceParts): Presence {
  const key = keys.controller(node);
  let session: SessionId | null = null;
  let isTold = false;

  async function tell(): Promise<void> {
    if (session === null || !(await store.renewSession(session))) {
      isTold = false;
      session = await store.createSession({ name: `flock-controller-${node}`, ttlMs: sessionTtlMs, lockDelayMs: 0 });
    }
    if (isTold) return;
    const outcome = await store.transact([{ kind: 'lock', key, value: JSON.stringify(alive), session }]);
    isTold = outcome.kind === 'done';
    // Of a controller of this node that could not say farewell.
    if (!isTold) await endPredecessor(session);
  }

  async function endPredecessor(own: SessionId): Promise<void> {
    const entry = await store.get(key, { fresh: true });
    if (entry?.session == null || entry.session === own) return;
    await store.destroySession(entry.session);
    isTold =
      (await store.transact([{ kind: 'lock', key, value: JSON.stringify(alive), session: own }])).kind === 'done';
  }

  return {
    async run(signal) {
      let fault: string | null = null;
      while (!signal.aborted) {
        try {
          await tell();
          if (fault !== null) log.info({ event: 'presence.told' }, 'the others see this controller again');
          fault = null;
        } catch (error) {
          if (fault === null) log.warn({ event: 'presence.untold', reason: messageOf(error) }, 'tried again');
          fault = messageOf(error);
        }
        await clock.sleep(renewMs, signal);
      }
      if (session === null) return;
      await Promise.race([store.destroySession(session).catch(() => undefined), clock.sleep(farewellMs, never)]);
    },
  };
}
