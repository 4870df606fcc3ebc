import type { Logger } from 'pino';
import type { Reached, VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError, messageOf } from '../../controller/model/errors.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import {
  intervalMsDefault,
  lastReached,
  nextInterval,
  snapshotName,
  snapshotTimeMs,
} from '../../controller/model/replication.ts';
import type { Locks } from '../locks.ts';
import type { Storage } from '../storage/storage.ts';
import type { Clock, Peers } from './ports.ts';
import {
  type Complete,
  type CopyStatus,
  completeOf,
  createWork,
  dropTargets,
  has,
  historyOf,
  nextCheckMs,
  noteComplete,
  noteTaken,
  statusOf,
  targetOf,
  touch,
  type Work,
} from './replication-work.ts';
import { createSending } from './sending.ts';
import { createThin } from './thinning.ts';
import { orAborted } from './within.ts';

/**
 * Brings the volumes that this node owns to the nodes that hold copies of them, all the time. One look at the pool tells which have
 * changed; those get one new snapshot, and every copy that is not being sent to gets the difference from what it has to that.
 *
 * INVARIANTS
 * - A copy is sent one thing at a time; what is newer waits as content, never as a queue of snapshots.
 * - A slow or dead copy holds back no other: each has its own task, its own pause after a failure, and its own place in the queue.
 * - The snapshot that a copy has in common with the volume is held until the copy has a newer one.
 */
export type Replicator = {
  /** The content may have changed while it was not mounted, or the copies are others now. */
  touch(id: DatasetId): void;
  /** Has all that the volume is now in a snapshot. For a caller that has the lock of its name. */
  save(volume: Replicated): Promise<void>;
  /**
   * Brings one node's copy to what the volume is now, whether the document lists it or not; what is written meanwhile is not in it.
   * `isSaved`: the caller has the lock of its name and has just saved it, so no snapshot is made here.
   */
  sync(volume: Replicated, node: NodeName, isSaved: boolean, signal: AbortSignal): Promise<void>;
  status(id: DatasetId): readonly CopyStatus[];
  /** The last snapshot of which it is known that the node's copy got it and up to when it was everything; null: of none. The copy may have lost it since. */
  complete(id: DatasetId, node: NodeName, isMounted: boolean): Complete | null;
  /** By the newest snapshot that it has made; null: none since this node began to replicate the volume. */
  reached(id: DatasetId): Reached | null;
  /** Forgets what it knows and stops what it sends. */
  drop(id: DatasetId): Promise<void>;
  run(signal: AbortSignal): Promise<void>;
};

/** `copies`: the nodes that the document lists, and those that are wanted for a while. */
export type Replicated = {
  readonly doc: VolumeDoc;
  readonly copies: readonly NodeName[];
  readonly isMounted: boolean;
};

export type ReplicatorParts = {
  readonly storage: Storage;
  readonly clock: Clock;
  readonly peers: Peers;
  readonly locks: Locks;
  /** What is to be replicated now: ready volumes of this node with their documents. */
  readonly volumes: () => readonly Replicated[];
  /** As the volume's record has it. */
  readonly namesAfterMs: (id: DatasetId) => number | undefined;
  /** A copy knows of a newer owner: look at the store. */
  readonly onStale: (id: DatasetId) => void;
  readonly log: Logger;
};

const tickMsMin = 50;
const tickMsMax = 1_000;
/** With more volumes than this ticks are further apart. */
const manyVolumes = 20;
const tickMsMany = 250;
/** The mark of a volume's content (null: not looked at), and a boot time before that was looked at: what is written while the pool looks is later. */
type Look = { readonly mark: string | null; readonly atMs: number };

const pruneMs = 60_000;
/** A volume that is moved often would never be thinned if each of its owners waited longer first. */
const firstPruneMs = 3_000;

export function createReplicator(parts: ReplicatorParts): Replicator {
  const { storage, clock, peers, locks, volumes, namesAfterMs, log } = parts;
  const works = new Map<DatasetId, Work>();
  let wake: () => void = () => undefined;
  const sending = createSending({ ...parts, onEnd: () => wake() });
  const thin = createThin({ storage, clock, peers, locks, onFailed: sending.failed });

  function workOf(id: DatasetId): Work {
    const now = clock.bootMs();
    const known = works.get(id) ?? createWork(storage, id, { pruneAtMs: now + firstPruneMs, pruneByMs: now + pruneMs });
    works.set(id, known);
    return known;
  }

  async function tick(signal: AbortSignal): Promise<void> {
    const now = clock.bootMs();
    // What a volume without copies still holds for those that it had is let go first.
    const current = volumes().filter(({ doc, copies }) => copies.length > 0 || works.has(doc.id));
    dropOthers(new Set(current.map(({ doc }) => doc.id)));
    const due = current.filter((volume) => isDue(volume, workOf(volume.doc.id), now));
    const marks = await marksOf(due);
    for (const volume of due) attend(volume, { mark: marks.get(volume.doc.id) ?? null, atMs: now }, signal);
  }

  /** One volume that has to wait, for its lock or for another node, keeps no other waiting. */
  function attend(volume: Replicated, seen: Look, signal: AbortSignal): void {
    const work = workOf(volume.doc.id);
    work.isAttended = true;
    void advance(volume, work, seen, signal).finally(() => {
      work.isAttended = false;
      wake();
    });
  }

  /** A volume at rest has nothing to do until it is mounted, touched, or to have other copies. */
  function isDue({ copies, isMounted }: Replicated, work: Work, now: number): boolean {
    if (work.isAttended) return false;
    if (work.checkAtMs <= now) return true;
    return work.restsWith !== null && (isMounted || work.touched || work.restsWith.join() !== copies.join());
  }

  function dropOthers(kept: ReadonlySet<DatasetId>): void {
    for (const [id, work] of works) if (!kept.has(id) && work.syncs === 0) void drop(id);
  }

  /** What is not mounted changes only by what flock does to it, and that is told by `touch`. */
  async function marksOf(due: readonly Replicated[]): Promise<ReadonlyMap<DatasetId, string>> {
    const ids = due.filter(({ doc, isMounted }) => isMounted || workOf(doc.id).touched).map(({ doc }) => doc.id);
    return ids.length === 0 ? new Map() : await storage.contentMarks(ids);
  }

  async function advance(volume: Replicated, work: Work, { mark, atMs }: Look, signal: AbortSignal): Promise<void> {
    const { doc, copies } = volume;
    dropTargets(work, copies);
    const targets = copies.map((node) => targetOf(work, node));
    const startedMs = clock.bootMs();
    try {
      const changed = work.newest === null || (mark !== null && mark !== work.mark);
      const idle = targets.filter((target) => target.sending === null && target.retryAtMs <= startedMs);
      if (changed && idle.length > 0) {
        await takeSnapshotAlone(volume, work, signal);
        work.unchanged = 0;
      } else if (!changed) work.unchanged += 1;
      for (const target of idle) if (!has(target, work.newest?.identity)) sending.start(volume, work, target);
      const { newest } = work;
      if (newest !== null && !changed)
        for (const target of targets)
          if (has(target, newest.identity)) noteComplete(target, { identity: newest.identity, atMs });
      // Until each copy has its own hold, what is left over may be all that keeps what it has in common with the volume.
      const areHeld = targets.every(({ currentAtMs }) => currentAtMs !== null);
      if ((areHeld ? work.pruneAtMs : work.pruneByMs) <= startedMs) {
        work.pruneAtMs = startedMs + pruneMs;
        work.pruneByMs = work.pruneAtMs;
        if (work.syncs === 0 && areHeld) await work.holds.releaseAllBut(copies, work.stop.signal);
        await thin(volume, work, signal);
        if (copies.length === 0 && work.syncs === 0) return void drop(doc.id);
      }
    } catch (error) {
      if (work.stop.signal.aborted) return;
      log.warn({ event: 'replication.failed', dataset: doc.id, reason: messageOf(error) }, 'will be tried again');
    }
    const waiting = targets.some((target) => !has(target, work.newest?.identity));
    const intervalMs = doc.options.intervalMs ?? intervalMsDefault;
    // Nothing can change what is not mounted but `touch` tells of it.
    const isAtRest = !volume.isMounted && !work.touched && !waiting && work.newest !== null;
    work.restsWith = isAtRest ? copies : null;
    if (isAtRest) {
      work.checkAtMs = Math.min(work.pruneAtMs, startedMs + pruneMs);
      return;
    }
    work.checkAtMs =
      startedMs +
      nextInterval({
        intervalMs,
        lastCycleMs: work.cycleMs,
        unchangedChecks: waiting ? 0 : work.unchanged,
        maxLossMs: doc.options.maxLossMs,
      });
  }

  async function takeSnapshot({ doc }: Replicated, work: Work): Promise<void> {
    const history = await historyOf(storage, work);
    const atMs = clock.bootMs();
    // Before, so that what comes meanwhile is not missed.
    work.touched = false;
    const name = snapshotName(doc.epoch, snapshotTimeMs(clock.nowMs(), history, namesAfterMs(doc.id)));
    const { mark, ...made } = await storage.snapshot(doc.id, name).catch((error: unknown) => {
      // Nobody looks at what is not mounted otherwise, so the last writes before an unmount would get to no copy.
      work.touched = true;
      throw error;
    });
    noteTaken(work, { identity: made.identity, name, atMs });
    work.mark = mark;
    if (work.history !== null) work.history = [...work.history, made];
  }

  async function isUnsaved(work: Work): Promise<boolean> {
    const [mark] = (await storage.contentMarks([work.id])).values();
    return work.newest === null || mark !== work.mark;
  }

  const takeSnapshotAlone = (volume: Replicated, work: Work, signal: AbortSignal) =>
    locks.with(volume.doc.name, 'replication', signal, async () => {
      // The volume may have been handed to another node while this waited for the lock; then it is a copy.
      work.stop.signal.throwIfAborted();
      await takeSnapshot(volume, work);
    });

  async function drop(id: DatasetId): Promise<void> {
    const work = works.get(id);
    if (work === undefined) return;
    works.delete(id);
    const reason = new FlockError('not-owner', `replication of ${id} has been stopped`);
    work.stop.abort(reason);
    for (const { stop } of work.targets.values()) stop.abort(reason);
    await Promise.all([...work.targets.values()].map(({ sending }) => sending));
  }

  return {
    touch(id) {
      const work = works.get(id);
      if (work !== undefined) touch(work, clock.bootMs() + tickMsMin);
    },
    async save(volume) {
      const work = workOf(volume.doc.id);
      if (await isUnsaved(work)) await takeSnapshot(volume, work);
    },
    async sync(volume, node, isSaved, signal) {
      const work = workOf(volume.doc.id);
      work.syncs += 1;
      try {
        const target = targetOf(work, node);
        if (!isSaved && (await isUnsaved(work))) await takeSnapshotAlone(volume, work, signal);
        // The regular round may begin to send as soon as what is being sent has ended.
        while (target.sending !== null) await orAborted(target.sending, signal);
        // A copy that the document does not list may have been given up since it was last seen.
        target.copy = null;
        const until = work.newest?.identity ?? null;
        await sending.send(volume, work, target, { until, signal: AbortSignal.any([signal, target.stop.signal]) });
      } finally {
        work.syncs -= 1;
      }
    },
    status(id) {
      const work = works.get(id);
      return work === undefined
        ? []
        : [...work.targets.values()].map((target) => statusOf(work, target, clock.bootMs()));
    },
    complete(id, node, isMounted) {
      const work = works.get(id);
      const target = work?.targets.get(node);
      return work === undefined || target === undefined ? null : completeOf(work, target, isMounted, clock.bootMs());
    },
    reached(id) {
      const newest = works.get(id)?.newest;
      return newest == null ? null : lastReached([newest]);
    },
    drop,
    async run(signal) {
      while (!signal.aborted) {
        try {
          await tick(signal);
        } catch (error) {
          log.warn({ event: 'replication.tick-failed', reason: messageOf(error) }, 'will be tried again');
        }
        const woken = new AbortController();
        wake = () => woken.abort();
        await clock.sleep(pauseMs(), AbortSignal.any([signal, woken.signal]));
      }
      for (const id of [...works.keys()]) await drop(id);
    },
  };

  /** Volumes that are due about the same time are looked at together: a look at one costs nearly as much as at a thousand. */
  function pauseMs(): number {
    const now = clock.bootMs();
    const next = nextCheckMs(works.values(), now + tickMsMax);
    return Math.max(works.size > manyVolumes ? tickMsMany : tickMsMin, next - now);
  }
}
