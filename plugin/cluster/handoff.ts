import type { Logger } from 'pino';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import { type DatasetId, type NodeName, quote } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { SessionId } from '../../controller/store/store.ts';
import type { Locks } from '../locks.ts';
import type { State } from '../state.ts';
import type { Storage } from '../storage/storage.ts';
import type { Directory } from './directory.ts';
import type { Clock, HandoffAnswer } from './ports.ts';
import type { Proofs } from './proofs.ts';
import type { Replicator } from './replicator.ts';
import { notOwner, type Transitions } from './transitions.ts';

/**
 * The owner's side of a handoff: another node wants an idle volume, because a container there mounts it. What is large is sent before
 * anything is locked, so that the volume can be used here until the end; the last step is one transaction.
 *
 *     sending -> (locked, idle, unmounted) -> record says handing-over -> last difference -> store passes it on -> record says replica
 */
export type Handoffs = {
  /** Starts, or goes on with, handing a volume to the peer; answers when it is done or shortly before `deadlineMs` are over. */
  hand(
    peer: NodeName,
    ask: { readonly id: DatasetId; readonly session: SessionId; readonly deadlineMs: number },
    signal: AbortSignal,
  ): Promise<HandoffAnswer>;
};

export type HandoffParts = {
  readonly storage: Storage;
  readonly state: State;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly proofs: Proofs;
  readonly directory: Directory;
  readonly transitions: Transitions;
  readonly replicator: Replicator;
  /** Throws `volume-in-use` naming the users. */
  readonly refuseInUse: (record: VolumeRecord) => Promise<void>;
  readonly onChange: (id: DatasetId) => void;
  /** Ends when the node stops. */
  readonly signal: AbortSignal;
  readonly log: Logger;
};

type Job = { readonly to: NodeName; session: SessionId; readonly done: Promise<VolumeDoc>; isOver: boolean };

const answerMarginMs = 1_000;
/** Far below the time for which a node keeps a copy that it was just asked about, though the document does not list it. */
const handOverMs = 10_000;
/** A job that nobody asks for any more is forgotten with its result. */
const resultKeptMs = 30_000;

export function createHandoffs(parts: HandoffParts): Handoffs {
  const { storage, state, locks, clock, proofs, directory, transitions, replicator, refuseInUse, onChange, log } =
    parts;
  const jobs = new Map<DatasetId, Job>();

  function recordOf(id: DatasetId): VolumeRecord {
    const record = state.byId(id);
    if (record !== undefined && (record.phase.kind === 'ready' || record.phase.kind === 'handing-over')) return record;
    const doc = directory.volume(id)?.doc;
    if (doc !== undefined) throw notOwner(doc);
    throw new FlockError('volume-not-found', `there is no volume ${id} here`);
  }

  function start(id: DatasetId, to: NodeName, session: SessionId): Job {
    const job: { -readonly [Key in keyof Job]: Job[Key] } = { to, session, isOver: false, done: Promise.reject() };
    job.done.catch(() => undefined);
    job.done = perform(id, job).finally(() => {
      job.isOver = true;
      void clock.sleep(resultKeptMs, parts.signal).then(() => {
        if (jobs.get(id) === job) jobs.delete(id);
      });
    });
    job.done.catch((error: unknown) =>
      log.info(
        { event: 'handoff.failed', dataset: id, to, reason: messageOf(error) },
        'the volume was not handed over',
      ),
    );
    jobs.set(id, job);
    return job;
  }

  async function perform(id: DatasetId, job: Job): Promise<VolumeDoc> {
    const { signal } = parts;
    const startedMs = clock.bootMs();
    const record = recordOf(id);
    await refuseInUse(record);
    const volume = directory.volume(id) ?? (await directory.look(id));
    if (volume === null)
      throw new FlockError(
        'volume-not-found',
        `the cluster does not know the volume ${quote(record.name)} yet; try again`,
      );
    const replicated = { doc: volume.doc, isMounted: true };
    await replicator.sync(replicated, job.to, false, signal);
    return await locks.with(record.name, `handing over to ${job.to}`, signal, async () => {
      const current = recordOf(id);
      await refuseInUse(current);
      await storage.unmount(id);
      state.setUses(id, []);
      const leaving: VolumeRecord = { ...current, phase: { kind: 'handing-over', to: job.to } };
      state.commit({ put: [leaving] });
      try {
        await replicator.sync(replicated, job.to, true, signal);
        const doc = await transitions.handOver(id, job.to, job.session, clock.bootMs() + handOverMs);
        proofs.dropped(id);
        await replicator.drop(id);
        state.commit({
          put: [{ ...leaving, epoch: doc.epoch, phase: { kind: 'replica', owner: job.to, stashing: null } }],
        });
        log.info(
          {
            event: 'handoff.done',
            volume: record.name,
            dataset: id,
            to: job.to,
            epoch: doc.epoch,
            ms: clock.bootMs() - startedMs,
          },
          'volume handed over',
        );
        onChange(id);
        return doc;
      } catch (error) {
        // Where it is not known what the store has done, the record stays as it is until a look at the store tells.
        if (!hasCode(error, 'store-unavailable')) state.commit({ put: [{ ...current, phase: { kind: 'ready' } }] });
        onChange(id);
        throw error;
      }
    });
  }

  return {
    async hand(peer, { id, session, deadlineMs }, signal) {
      const present = jobs.get(id);
      const running = present !== undefined && !present.isOver ? present : null;
      if (running !== null && running.to !== peer) {
        throw new FlockError('handoff-running', `the volume is being handed to node ${running.to}; try again`);
      }
      const job = running ?? start(id, peer, session);
      job.session = session;
      const waited = new AbortController();
      const late = clock
        .sleep(Math.max(0, deadlineMs - answerMarginMs), AbortSignal.any([signal, waited.signal]))
        .then(() => null);
      try {
        const doc = await Promise.race([job.done, late]);
        if (doc !== null) return { kind: 'done', doc };
      } finally {
        waited.abort();
      }
      const copy = replicator.status(id).find(({ node }) => node === peer);
      return { kind: 'running', sentBytes: copy?.sentBytes ?? 0, totalBytes: copy?.totalBytes ?? null };
    },
  };
}
