import type { Logger } from 'pino';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { State } from '../state.ts';
import type { Directory } from './directory.ts';
import type { Clock, CopyRequest, Peers } from './ports.ts';
import type { Proofs } from './proofs.ts';
import { lateMsMax } from './unanswered.ts';
import { createWithheld } from './withheld.ts';

/**
 * How owners go on while the store is away: only a node that has a copy may ever take a volume, so when every one of them has
 * promised not to do so for a guard time from now, that proves the ownership as well as the store does. One that does not answer, and
 * the volume's users are frozen in time.
 */
export type Promises = {
  /** The other side: this node promises, unless it knows better. */
  give(volumes: readonly CopyRequest[]): readonly DatasetId[];
  /** Boot time until which this node has promised not to take the volume. */
  givenUntilMs(id: DatasetId): number;
  /** For how long it has promised so from now on; null: a predecessor of this process may have, too. */
  givenForMs(id: DatasetId): number | null;
  /** Gives no promise about the volume until then. */
  refuse(id: DatasetId, untilMs: number): void;
  /**
   * While this node tries to take a volume it promises nothing about it; nor for a while after it failed without the store's refusal,
   * which may still do what it was asked.
   */
  withhold<T>(id: DatasetId, work: () => Promise<T>): Promise<T>;
  run(signal: AbortSignal): Promise<void>;
};

export type PromiseParts = {
  readonly clock: Clock;
  readonly peers: Peers;
  readonly proofs: Proofs;
  readonly directory: Directory;
  readonly state: State;
  readonly timing: {
    readonly renewMs: number;
    readonly fenceAfterMs: number;
    readonly guardMs: number;
    readonly rpcMs: number;
  };
  /** Volumes of this node whose documents are known for certain, with all nodes that may hold a copy. */
  readonly owned: () => readonly (CopyRequest & { readonly holders: readonly NodeName[] })[];
  readonly log: Logger;
};

export function createPromises({ clock, peers, proofs, directory, state, timing, owned, log }: PromiseParts): Promises {
  const given = new Map<DatasetId, number>();
  const withheld = createWithheld(clock);
  const startedMs = clock.bootMs();
  let isAsking = false;

  /** A predecessor of this process has asked the store for it, and has seen no answer. Whoever has locked it since has made that void. */
  function mayBeTaken(id: DatasetId): boolean {
    const phase = state.byId(id)?.phase;
    const isAsked = phase?.kind === 'replica' && phase.taking === true;
    return isAsked && clock.bootMs() < startedMs + lateMsMax && (directory.volume(id)?.session ?? null) === null;
  }

  async function ask(signal: AbortSignal): Promise<void> {
    // Time for two rounds before the deadline.
    const oldMs = Math.min(2 * timing.renewMs, timing.fenceAfterMs / 2);
    const now = clock.bootMs();
    const due = owned().filter(({ id }) => now - proofs.provenAtMs(id) > oldMs);
    if (due.length === 0) {
      // What was promised a moment ago is proven too; over it is when the store proves it.
      if (owned().some(({ id }) => now - proofs.confirmedAtMs(id) > oldMs)) return;
      if (isAsking) log.info({ event: 'promises.over' }, 'the store proves ownership again');
      isAsking = false;
      return;
    }
    if (!isAsking)
      log.warn({ event: 'promises.needed', volumes: due.length }, 'the store is away: asking the nodes with copies');
    isAsking = true;
    const nodes = new Set(due.flatMap(({ holders }) => holders));
    const promised = new Map<NodeName, ReadonlySet<DatasetId>>();
    await Promise.all(
      [...nodes].map(async (node) => {
        const volumes = due.filter(({ holders }) => holders.includes(node)).map(({ id, epoch }) => ({ id, epoch }));
        const answer = await peers
          .call(node, 'promise', { volumes }, { timeoutMs: timing.rpcMs, signal })
          .catch(() => null);
        if (answer !== null) promised.set(node, new Set(answer.ids));
      }),
    );
    for (const { id, holders } of due) {
      if (holders.every((node) => promised.get(node)?.has(id) === true)) proofs.promised(id, now);
    }
  }

  return {
    give(volumes) {
      const untilMs = clock.bootMs() + timing.guardMs;
      const ids = volumes.flatMap(({ id, epoch }) => {
        const known = Math.max(state.byId(id)?.epoch ?? 0, directory.volume(id)?.doc.epoch ?? 0);
        return known > epoch || withheld.has(id) || mayBeTaken(id) ? [] : [id];
      });
      for (const id of ids) given.set(id, untilMs);
      return ids;
    },
    givenUntilMs: (id) => given.get(id) ?? Number.NEGATIVE_INFINITY,
    givenForMs(id) {
      const now = clock.bootMs();
      return now < startedMs + timing.guardMs ? null : Math.max(0, (given.get(id) ?? now) - now);
    },
    refuse: withheld.until,
    withhold: withheld.during,
    async run(signal) {
      while (!signal.aborted) {
        await ask(signal);
        await clock.sleep(timing.renewMs / 2, signal);
      }
    },
  };
}
