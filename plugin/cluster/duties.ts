import type { Logger } from 'pino';
import { messageOf, unreachable } from '../../controller/model/errors.ts';
import { type DatasetId, type NodeName, quote } from '../../controller/model/names.ts';
import { type Duty, dutyOf, trashedOf } from '../../controller/model/ownership.ts';
import { historyFrom } from '../../controller/model/replication.ts';
import { readyAnew, type VolumeRecord } from '../../controller/model/volume.ts';
import type { Locks } from '../locks.ts';
import type { State } from '../state.ts';
import type { Storage } from '../storage/storage.ts';
import type { Copies } from './copies.ts';
import { mayBeLimited } from './copy-upkeep.ts';
import type { Directory, SeenVolume } from './directory.ts';
import { eachOf } from './each-of.ts';
import type { Lease } from './lease.ts';
import { createOrphans } from './orphans.ts';
import type { Clock, Peers, Tell, Users } from './ports.ts';
import type { Proofs } from './proofs.ts';
import type { Replicator } from './replicator.ts';
import type { Retreat } from './retreat.ts';
import { isCutOff, isReplica } from './stashing.ts';
import type { Transitions } from './transitions.ts';

/**
 * Brings this node's datasets in line with what the store says of them, again and again: the pure `dutyOf` says what is to be done,
 * this does it. What was seen may be old, so whatever is more than a note is decided once more on a fresh look.
 */
export type Duties = {
  /** Look at this volume, or at all, soon. */
  wake(id?: DatasetId): void;
  /** Does what is to be done about one volume now. Called under the lock of its name; throws what keeps it from being done. */
  settle(id: DatasetId, signal: AbortSignal): Promise<void>;
  /**
   * Makes the replica here the volume, unless it follows a newer owner by now. Answers its record. Called under the lock of its name. With
   * the session of the volume goes its proof; null: whoever has locked it has noted that.
   */
  promote(record: VolumeRecord, volume: SeenVolume): Promise<VolumeRecord>;
  run(signal: AbortSignal): Promise<void>;
};

export type DutyParts = {
  readonly node: NodeName;
  readonly storage: Storage;
  readonly state: State;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly users: Users;
  readonly peers: Peers;
  readonly lease: Lease;
  readonly proofs: Proofs;
  readonly directory: Directory;
  readonly transitions: Transitions;
  readonly copies: Copies;
  readonly replicator: Replicator;
  readonly retreat: Pick<Retreat, 'stateOf' | 'regained' | 'fault'>;
  /** Resolves when the watchdog knows until when the volume may be written. */
  readonly tellWatchdog: (id: DatasetId) => Promise<void>;
  /** A volume has come here, which may have no limit yet. */
  readonly onPromoted: () => void;
  readonly tell: Tell;
  readonly log: Logger;
};

const pauseMsMin = 100;
const periodMs = 5_000;
const workMs = 60_000;
const restMs = 30_000;

export function createDuties(parts: DutyParts): Duties {
  const {
    node,
    storage,
    state,
    locks,
    clock,
    users,
    peers,
    lease,
    proofs,
    directory,
    transitions,
    copies,
    replicator,
    retreat,
    tellWatchdog,
    onPromoted,
    log,
  } = parts;
  const noted = new Map<DatasetId, string>();
  /** What a failed pool keeps from being done, with the boot time when it is tried again. */
  const resting = new Map<DatasetId, number>();
  const orphans = createOrphans(parts);
  let wakeUp: () => void = () => undefined;
  let isDue = true;

  function dutyNow(volume: SeenVolume | null, record: VolumeRecord | null): Duty {
    const withdrawal = record === null ? null : retreat.stateOf(record.id);
    return dutyOf(node, volume === null ? null : directory.seen(volume, lease.session()), record, withdrawal);
  }

  async function look(signal: AbortSignal): Promise<void> {
    const session = lease.session();
    const records = new Map(state.all().map((record) => [record.id, record]));
    const ids = new Set(records.keys());
    for (const { doc } of directory.volumes()) if (doc.owner === node) ids.add(doc.id);
    const due: DatasetId[] = [];
    for (const id of ids) {
      const volume = directory.volume(id);
      const record = records.get(id) ?? null;
      if (
        volume !== null &&
        session !== null &&
        volume.session === session &&
        volume.doc.owner === node &&
        !proofs.isLockedWith(id, session) &&
        // What was seen may be from before it was unlocked.
        retreat.stateOf(id) === null
      )
        proofs.locked(id, session, Number.NEGATIVE_INFINITY);
      const { kind } = dutyNow(volume, record);
      if (kind !== 'none' || isCutOff(record)) due.push(id);
      if (kind !== 'discard') orphans.forget(id);
    }
    // After a session was lost a thousand volumes want to be locked again.
    await eachOf(due, workersMax, (id) => perform(id, signal));
  }

  async function perform(id: DatasetId, signal: AbortSignal): Promise<void> {
    if (retreat.fault() !== null && (resting.get(id) ?? 0) > clock.bootMs()) return;
    resting.delete(id);
    const limit = AbortSignal.any([signal, limited(signal)]);
    try {
      const key = state.byId(id)?.name ?? id;
      const isGivenUp = dutyNow(directory.volume(id), state.byId(id) ?? null).kind === 'give-up';
      // A command that waits for the disk may hold the lock; to give the volume up, and only that, changes nothing but the store.
      if (isGivenUp) await settle(id, limit, ({ kind }) => kind === 'give-up');
      else await locks.with(key, 'reconciliation', limit, () => settle(id, limit));
      noted.delete(id);
    } catch (error) {
      // Users that wait for the disk can't be ended, and all that is left to do here needs the pool.
      if (retreat.fault() !== null) resting.set(id, clock.bootMs() + restMs);
      const reason = messageOf(error);
      if (noted.get(id) === reason) return;
      noted.set(id, reason);
      log.warn({ event: 'duty.postponed', dataset: id, reason }, 'will be tried again');
    }
  }

  async function settle(id: DatasetId, signal: AbortSignal, may = (_duty: Duty) => true): Promise<void> {
    await copies.finish(id, signal);
    const volume = await directory.look(id);
    const record = state.byId(id) ?? null;
    const duty = dutyNow(volume, record);
    if (may(duty)) await execute(duty, volume, record, signal);
  }

  function limited(signal: AbortSignal): AbortSignal {
    const limit = new AbortController();
    void clock.sleep(workMs, signal).then(() => limit.abort(new Error(`not done within ${workMs / 1000} s`)));
    return limit.signal;
  }

  async function execute(
    duty: Duty,
    volume: SeenVolume | null,
    record: VolumeRecord | null,
    signal: AbortSignal,
  ): Promise<void> {
    if (duty.kind === 'none') return;
    if (duty.kind === 'missing') {
      throw new Error(
        `the cluster says that this node owns ${quote(volume?.doc.name ?? '')}, but its dataset is not here`,
      );
    }
    if (record === null) return;
    switch (duty.kind) {
      case 'lock':
        if (volume === null || !(await transitions.lock(volume))) return;
        retreat.regained(record.id);
        log.info({ event: 'duty.locked', volume: record.name, dataset: record.id }, 'volume locked');
        return;
      case 'give-up':
        if (volume === null) return;
        // The fence stops its users; should this process end right here, the watchdog does, which knows of it now.
        await tellWatchdog(record.id);
        proofs.dropped(record.id);
        if (await transitions.unlock(volume))
          log.warn({ event: 'duty.given-up', volume: record.name, dataset: record.id }, 'volume unlocked');
        return;
      case 'promote':
        if (volume !== null) await promote(record, volume);
        return;
      case 'keep':
        if (volume === null || !(await transitions.reaffirm(volume))) return;
        commit({ ...record, phase: readyAnew(record.options) }, 'kept');
        return;
      case 'follow':
        await release(record.id);
        commit(
          { ...record, epoch: duty.epoch, phase: { kind: 'replica', owner: duty.owner, stashing: null } },
          'followed',
        );
        return;
      case 'yield':
        log.warn(
          { event: 'duty.superseded', volume: record.name, owner: duty.owner, epoch: duty.epoch },
          'the volume has a new owner: its users are stopped',
        );
        await users.stop([record.id]);
        await release(record.id);
        await copies.demote(record, duty.owner, { hasUnsent: true }, signal);
        return;
      case 'discard': {
        if (duty.owner === null) return await orphans.discard(record, signal);
        const ask = { timeoutMs: 5_000, signal };
        const known = await peers.call(duty.owner, 'list-snapshots', { id: record.id }, ask);
        // An owner that shows nothing is none to go by.
        if (known.snapshots === null) return;
        // The owner may have handed it to this node while it was asked.
        const latest = await directory.look(record.id);
        if (dutyNow(latest, state.byId(record.id) ?? null).kind !== 'discard') return;
        // What it has shown and what the document says must be of the same time.
        if (latest?.doc.owner !== duty.owner || latest.doc.epoch !== known.epoch) return;
        const history = historyFrom(latest.doc.epoch, latest.doc.bases ?? []);
        await copies.discard(record, { snapshots: known.snapshots ?? [], history }, signal);
        return;
      }
      case 'publish': {
        // One that was taken out of the cluster has to join again before it brings anything.
        if (record.phase.kind === 'rolling-back' || directory.node(node) === null) return;
        // What was being handed over can't be passed on any more: a late transaction compares the document that is gone.
        const doc = await transitions.claim(record);
        commit({ ...record, epoch: doc.epoch, phase: readyAnew(record.options) }, 'published');
        return;
      }
      case 'republish': {
        const doc = await transitions.setTrashed(record.id, trashedOf(record), record.name);
        // Of one that had come back from the trash with a new epoch, but for a crash.
        const latest = state.byId(record.id);
        if (latest?.phase.kind === 'trashed' && doc.epoch > latest.epoch)
          state.commit({ put: [{ ...latest, epoch: doc.epoch }] });
        return;
      }
      default:
        unreachable(duty);
    }
  }

  async function promote(record: VolumeRecord, { doc, session: locker }: SeenVolume): Promise<VolumeRecord> {
    if (lease.session() === null) return record;
    if (!(await storage.exists(record.id))) throw new Error(`the copy of ${quote(record.name)} is not in the pool`);
    let promoted: VolumeRecord = { ...record, name: doc.name, options: doc.options, epoch: doc.epoch };
    await copies.settle(record.id, () => {
      const copy = state.byId(record.id) ?? record;
      const isLimitKnown = doc.options.sizeBytes === null && !(isReplica(copy) && mayBeLimited(copy));
      promoted = { ...promoted, phase: isLimitKnown ? { kind: 'ready' } : { kind: 'ready', unlimited: true } };
      // A stream of a newer owner may have been admitted while this waited for its turn.
      if (copy.epoch <= doc.epoch) commit(promoted, 'promoted');
    });
    const latest = state.byId(record.id) ?? promoted;
    if (latest.epoch > doc.epoch) return latest;
    // Not with the session of now: it may be a newer one, with which nothing is locked.
    if (locker !== null) proofs.locked(record.id, locker, Number.NEGATIVE_INFINITY);
    replicator.touch(record.id);
    onPromoted();
    return promoted;
  }

  function commit(record: VolumeRecord, what: string): void {
    state.commit({ put: [record] });
    log.info(
      { event: `duty.${what}`, volume: record.name, dataset: record.id, epoch: record.epoch, phase: record.phase.kind },
      'volume changed hands',
    );
  }

  async function release(id: DatasetId): Promise<void> {
    proofs.dropped(id);
    await replicator.drop(id);
  }

  return {
    wake() {
      isDue = true;
      wakeUp();
    },
    settle,
    promote,
    async run(signal) {
      while (!signal.aborted) {
        isDue = false;
        if (directory.complete() && lease.session() !== null) await look(signal);
        // `isDue` may have been set while it looked.
        if (!isDue) {
          const woken = new AbortController();
          wakeUp = () => woken.abort();
          await clock.sleep(periodMs, AbortSignal.any([signal, woken.signal]));
        }
        await clock.sleep(pauseMsMin, signal);
      }
    },
  };
}

const workersMax = 4;
