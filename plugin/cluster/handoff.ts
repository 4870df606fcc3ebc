import type { Logger } from 'pino';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { SessionId } from '../../controller/store/store.ts';
import type { Group, Hand } from './handing.ts';
import type { Clock, HandoffAnswer } from './ports.ts';
import type { Replicator } from './replicator.ts';
import { within } from './within.ts';

/**
 * Who may have volumes handed over: another node that wants an idle one, because a container there mounts it, and this node's controller,
 * which hands over all that a move takes with it.
 */
export type Handoffs = {
  /** Starts, or goes on with, handing a volume to the peer; answers when it is done or shortly before `deadlineMs` are over. */
  hand(
    peer: NodeName,
    ask: { readonly id: DatasetId; readonly session: SessionId; readonly deadlineMs: number },
    signal: AbortSignal,
  ): Promise<HandoffAnswer>;
  /**
   * Hands all of them over, with the other changes, or none; answers the documents in the order of `ids`. `deadline-exceeded`: nothing
   * has happened within the time. It is not ended by a caller that goes away: who has lost the answer looks at the store.
   */
  handAll(request: {
    readonly ids: Group['ids'];
    readonly to: NodeName;
    readonly session: Group['session'];
    readonly also: Group['also'];
    readonly deadlineMs: number;
  }): Promise<readonly VolumeDoc[]>;
};

export type HandoffParts = {
  readonly clock: Clock;
  readonly hand: Hand;
  readonly replicator: Replicator;
  /** Throws `volume-in-use` where the volume is kept for a container here, whoever asks for it. */
  readonly refuseKept: (id: DatasetId) => Promise<void>;
  /** Ends when the node stops. */
  readonly signal: AbortSignal;
  readonly log: Logger;
};

type Job = {
  readonly to: NodeName;
  /** A peer may ask again for how far it is, with another session. */
  readonly isOfPeer: boolean;
  session: Group['session'];
  readonly done: Promise<readonly VolumeDoc[]>;
  isOver: boolean;
};

const answerMarginMs = 1_000;
/** A job that nobody asks for any more is forgotten with its result. */
const resultKeptMs = 30_000;
/** Containers that a move has just stopped are given back by Docker a moment later. */
const idleMs = 3_000;
/** What says more than that the time was over, or that something may have happened. All others are what the deadline has ended. */
const telling = ['store-unavailable', 'not-owner', 'document-changed', 'volume-in-use', 'volume-not-found'] as const;

export function createHandoffs({ clock, hand, replicator, refuseKept, signal: stopped, log }: HandoffParts): Handoffs {
  const jobs = new Map<DatasetId, Job>();

  function runningJob(id: DatasetId): Job | null {
    const job = jobs.get(id);
    return job !== undefined && !job.isOver ? job : null;
  }

  function start(group: Group, isOfPeer: boolean, signal: AbortSignal): Job {
    const { ids, to, session } = group;
    const job: { -readonly [Key in keyof Job]: Job[Key] } = {
      to,
      isOfPeer,
      session,
      isOver: false,
      done: Promise.reject(),
    };
    job.done.catch(() => undefined);
    job.done = hand({ ...group, session: () => job.session() }, signal).finally(() => {
      job.isOver = true;
      void clock.sleep(resultKeptMs, stopped).then(() => {
        for (const id of ids) if (jobs.get(id) === job) jobs.delete(id);
      });
    });
    job.done.catch((error: unknown) =>
      log.info(
        { event: 'handoff.failed', datasets: ids, to, reason: messageOf(error) },
        'nothing was handed over, or it is not known',
      ),
    );
    for (const id of ids) jobs.set(id, job);
    return job;
  }

  return {
    async hand(peer, { id, session, deadlineMs }, signal) {
      const startedMs = clock.bootMs();
      if (runningJob(id) === null) await refuseKept(id);
      // Somebody may have begun while the store was asked.
      const running = runningJob(id);
      if (running !== null && (running.to !== peer || !running.isOfPeer)) throw beingHanded(running.to);
      const job = running ?? start({ ids: [id], to: peer, session: () => session, also: [], idleMs: 0 }, true, stopped);
      job.session = () => session;
      const leftMs = startedMs + deadlineMs - answerMarginMs - clock.bootMs();
      const [doc] = (await within(clock, leftMs, signal, job.done)) ?? [];
      if (doc !== undefined) return { kind: 'done', doc };
      const copy = replicator.status(id).find(({ node }) => node === peer);
      return { kind: 'running', sentBytes: copy?.sentBytes ?? 0, totalBytes: copy?.totalBytes ?? null };
    },

    async handAll({ ids, to, session, also, deadlineMs }) {
      for (const id of ids) {
        const running = runningJob(id);
        if (running !== null) throw beingHanded(running.to);
      }
      const limit = new AbortController();
      const over = new AbortController();
      const late = new FlockError(
        'deadline-exceeded',
        `the volumes could not be handed to node ${to} within ${deadlineMs / 1000} s; nothing was changed`,
      );
      void clock.sleep(deadlineMs, AbortSignal.any([stopped, over.signal])).then(() => limit.abort(late));
      const signal = AbortSignal.any([stopped, limit.signal]);
      try {
        return await start({ ids, to, session, also, idleMs }, false, signal).done;
      } catch (error) {
        throw limit.signal.aborted && !hasCode(error, ...telling) ? late : error;
      } finally {
        over.abort();
      }
    },
  };
}

function beingHanded(to: NodeName): FlockError {
  return new FlockError('handoff-running', `the volume is being handed to node ${to}; try again`, { to });
}
