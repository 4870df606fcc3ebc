import type { Logger } from 'pino';
import { FlockError, messageOf } from '../../controller/model/errors.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import { planTransfer } from '../../controller/model/replication.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Storage } from '../storage/storage.ts';
import { currentDoc } from './current-doc.ts';
import type { Directory } from './directory.ts';
import type { ExtraCopies } from './extra-copies.ts';
import type { Clock, Peers } from './ports.ts';
import type { CopyStatus } from './replication-work.ts';
import type { Replicator } from './replicator.ts';
import { within } from './within.ts';

/**
 * Copies that a controller asks for before it moves a volume, while that is used. A job is what is left between two questions: the
 * node is replicated to as if the document listed it, so a round later has little to send.
 */
export type CopyJobs = {
  /** Starts, or goes on with, a round; answers when it is done or half a second later. Throws what a round has failed with. */
  round(record: VolumeRecord, to: NodeName, signal: AbortSignal): Promise<CopyRound>;
  estimate(
    record: VolumeRecord,
    to: NodeName,
    signal: AbortSignal,
  ): Promise<{ readonly hasCopy: boolean; readonly bytes: number | null }>;
};

export type CopyRound = {
  readonly state: 'running' | 'done';
  readonly sentBytes: number;
  readonly totalBytes: number | null;
  readonly roundMs: number | null;
};

export type CopyJobParts = {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly peers: Peers;
  readonly directory: Directory;
  readonly replicator: Replicator;
  readonly extras: ExtraCopies;
  /** By the store. */
  readonly isMoving: (id: DatasetId) => Promise<boolean>;
  /** About how large the volume's content is, null: not known. */
  readonly usedBytes: (id: DatasetId) => number | null;
  /** Ends when the node stops. */
  readonly signal: AbortSignal;
  readonly log: Logger;
};

type Job = {
  askedAtMs: number;
  /** The one that runs, or whose end nobody has been told of. */
  round: {
    readonly done: Promise<number>;
    readonly stop: AbortController;
    /** What had been sent before. */
    readonly beforeBytes: number;
    isOver: boolean;
  } | null;
};

const answerMs = 500;
/** A round ends when nobody has asked for so long. */
const askedMs = 30_000;
/** What is there is kept longer, and as long as the volume is in a move: before it is handed over, requests end and containers stop. */
const keptMs = 60_000;
/** Below the time for which a node keeps a copy that it was not asked about, though the document does not list it. */
const touchMs = 10_000;
const callMs = 10_000;
const jobsMax = 32;

export function createCopyJobs(parts: CopyJobParts): CopyJobs {
  const { storage, clock, peers, directory, replicator, extras, isMoving, usedBytes, log } = parts;
  const { signal: stopped } = parts;
  const jobs = new Map<string, Job>();

  function jobOf(record: VolumeRecord, to: NodeName): Job {
    const key = `${record.id} ${record.epoch} ${to}`;
    const known = jobs.get(key);
    if (known !== undefined) return known;
    if (jobs.size >= jobsMax)
      throw new FlockError(
        'too-many-requests',
        `${jobsMax} volumes are being copied for moves that run or have just ended; try again in some minutes`,
      );
    const made: Job = { askedAtMs: clock.bootMs(), round: null };
    jobs.set(key, made);
    void keep(record, to, made).finally(() => jobs.delete(key));
    return made;
  }

  /** Sees to it that the node keeps what it has, until nobody wants it any more. Never rejects. */
  async function keep({ id, epoch }: VolumeRecord, to: NodeName, job: Job): Promise<void> {
    const release = extras.want(id, to);
    const touch = () =>
      peers
        .call(to, 'copy-state', { id, epoch }, { timeoutMs: callMs, signal: stopped })
        .catch((error: unknown) =>
          log.debug({ event: 'copy.not-kept', dataset: id, node: to, reason: messageOf(error) }, 'tried again'),
        );
    while (!stopped.aborted && directory.volume(id)?.doc.epoch === epoch) {
      const idleMs = clock.bootMs() - job.askedAtMs;
      if (idleMs > keptMs && !(await isMoving(id).catch(() => true))) break;
      if (idleMs > askedMs) endRound(job, new FlockError('caller-gone', 'nobody asks for this copy any more'));
      // What is being sent is kept anyway.
      if (job.round === null || job.round.isOver) await touch();
      await clock.sleep(touchMs, stopped);
    }
    release();
    endRound(job, new FlockError('not-owner', `volume ${id} has another owner, or nobody asks for this copy any more`));
  }

  function copyOf({ id }: Pick<VolumeRecord, 'id'>, to: NodeName): CopyStatus | undefined {
    return replicator.status(id).find(({ node }) => node === to);
  }

  function endRound(job: Job, reason: FlockError): void {
    job.round?.stop.abort(reason);
    job.round = null;
  }

  function begin(record: VolumeRecord, to: NodeName): NonNullable<Job['round']> {
    const stop = new AbortController();
    const beforeBytes = copyOf(record, to)?.everSentBytes ?? 0;
    const round = { stop, done: bring(record, to, stop.signal), beforeBytes, isOver: false };
    round.done
      .catch(() => undefined)
      .finally(() => {
        round.isOver = true;
      });
    return round;
  }

  async function bring(record: VolumeRecord, to: NodeName, signal: AbortSignal): Promise<number> {
    const startedMs = clock.bootMs();
    const doc = await currentDoc(directory, record);
    await replicator.sync({ doc, copies: doc.replicas, isMounted: true }, to, false, signal);
    return clock.bootMs() - startedMs;
  }

  return {
    async round(record, to, signal) {
      const job = jobOf(record, to);
      job.askedAtMs = clock.bootMs();
      const round = job.round ?? begin(record, to);
      job.round = round;
      const roundMs = await within(clock, answerMs, signal, round.done).catch((error: unknown) => {
        forget(job, round);
        throw error;
      });
      if (roundMs !== null) forget(job, round);
      const { everSentBytes = 0, totalBytes = null } = copyOf(record, to) ?? {};
      const sentBytes = Math.max(0, everSentBytes - round.beforeBytes);
      return { state: roundMs === null ? 'running' : 'done', sentBytes, totalBytes, roundMs };
    },

    async estimate({ id, epoch }, to, signal) {
      const replica = await peers.call(to, 'list-snapshots', { id }, { timeoutMs: callMs, signal });
      const owner = await storage.snapshots(id);
      const plan = planTransfer({
        owner,
        replica: replica.snapshots,
        ownerEpoch: epoch,
        replicaEpoch: Math.min(epoch, replica.epoch),
      });
      // A copy that has nothing in common with the volume is as good as none.
      const hasCopy =
        plan.kind === 'in-sync' || plan.kind === 'incremental' || (plan.kind === 'diverged' && plan.common !== null);
      if (plan.kind === 'incremental')
        return { hasCopy, bytes: await storage.estimate({ id, to: plan.to.name, from: plan.from.name }) };
      if (hasCopy) return { hasCopy, bytes: plan.kind === 'in-sync' ? 0 : null };
      const newest = owner.at(-1);
      const bytes = newest === undefined ? null : await storage.estimate({ id, to: newest.name, from: null });
      const whole = bytes ?? usedBytes(id);
      // What is on its way already has its room there.
      const { totalBytes = null, sentBytes = 0 } = copyOf({ id }, to) ?? {};
      return { hasCopy, bytes: whole === null || totalBytes === null ? whole : Math.max(0, whole - sentBytes) };
    },
  };
}

function forget(job: Job, round: Job['round']): void {
  if (job.round === round) job.round = null;
}
