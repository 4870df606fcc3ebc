import type { Logger } from 'pino';
import { type AliveDoc, keys } from '../../controller/model/cluster.ts';
import { messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { SessionId, Store } from '../../controller/store/store.ts';
import type { Clock } from './ports.ts';

/**
 * This node's session in the store, renewed all the time. What matters is not whether it lives, which nobody here can know, but when
 * it was last known to: the boot time just BEFORE the request was sent that the store confirmed. No other node may take a volume until
 * a guard time after the session's end, which can't have been before that (docs/design.md, "The inequality").
 *
 * INVARIANTS
 * - A session is remembered on disk before anything is locked with it, so that a restarted plugin goes on with the same one; locks of
 *   a forgotten session would keep the node out of its own volumes until it expires.
 * - `provenAtMs` of a session never decreases, and is -Infinity until the store has confirmed it to this process.
 */
export type Lease = {
  /** The session to lock with; null while there is none. */
  session(): SessionId | null;
  /** Last proof of this session, also of one that has ended since. */
  provenAtMs(session: SessionId): number;
  /** Renews until the signal fires. Never throws. */
  run(signal: AbortSignal): Promise<void>;
};

export type LeaseTiming = {
  readonly renewMs: number;
  readonly sessionTtlMs: number;
  readonly lockDelayMs: number;
};

export type LeaseParts = {
  readonly store: Store;
  readonly clock: Clock;
  readonly timing: LeaseTiming;
  readonly node: NodeName;
  readonly alive: AliveDoc;
  /** Where the session survives a restart of the plugin. */
  readonly memory: { load(): SessionId | null; save(session: SessionId): void };
  /** Told when there is a new session, or none. */
  readonly onChange: () => void;
  readonly log: Logger;
};

/** Sessions whose last proof is remembered: the present one and those whose volumes may not be locked anew yet. */
const rememberedMax = 8;

export function createLease({ store, clock, timing, node, alive, memory, onChange, log }: LeaseParts): Lease {
  const proofs = new Map<SessionId, number>();
  let session: SessionId | null = null;
  let announced = false;
  let fault: string | null = null;

  function prove(id: SessionId, atMs: number): void {
    proofs.set(id, Math.max(atMs, proofs.get(id) ?? Number.NEGATIVE_INFINITY));
    for (const old of proofs.keys()) {
      if (proofs.size <= rememberedMax) break;
      if (old !== session) proofs.delete(old);
    }
  }

  async function obtain(): Promise<void> {
    const remembered = session ?? memory.load();
    const atMs = clock.bootMs();
    if (remembered !== null && (await store.renewSession(remembered))) {
      session = remembered;
      prove(remembered, atMs);
    } else {
      if (session !== null) lost();
      const made = await store.createSession({
        name: `flock-${node}`,
        ttlMs: timing.sessionTtlMs,
        lockDelayMs: timing.lockDelayMs,
      });
      memory.save(made);
      session = made;
      prove(made, atMs);
      announced = false;
      log.info({ event: 'lease.begun', session: made }, 'new session in the store');
      onChange();
    }
    if (!announced) await announce(session);
  }

  function lost(): void {
    log.warn({ event: 'lease.ended', session }, 'the store has ended the session');
    session = null;
    announced = false;
    onChange();
  }

  /** The others see by this lock that the node lives. An earlier session of ours may hold it until it ends. */
  async function announce(current: SessionId): Promise<void> {
    const outcome = await store.transact([
      { kind: 'lock', key: keys.alive(node), value: JSON.stringify(alive), session: current },
    ]);
    announced = outcome.kind === 'done';
    if (announced) onChange();
  }

  return {
    session: () => session,
    provenAtMs: (id) => proofs.get(id) ?? Number.NEGATIVE_INFINITY,
    async run(signal) {
      while (!signal.aborted) {
        const startedMs = clock.bootMs();
        try {
          await obtain();
          if (fault !== null) log.info({ event: 'lease.store-back' }, 'the store answers again');
          fault = null;
        } catch (error) {
          if (fault === null)
            log.warn({ event: 'lease.store-away', reason: messageOf(error) }, 'the store does not answer');
          fault = messageOf(error);
        }
        await clock.sleep(Math.max(timing.renewMs / 4, timing.renewMs - (clock.bootMs() - startedMs)), signal);
      }
    },
  };
}
