import type { Logger } from 'pino';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError, hasCode } from '../../controller/model/errors.ts';
import { type DatasetId, type NodeName, quote } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Operation, SessionId } from '../../controller/store/store.ts';
import type { Locks } from '../locks.ts';
import type { State } from '../state.ts';
import type { Storage } from '../storage/storage.ts';
import { currentDoc } from './current-doc.ts';
import type { Directory } from './directory.ts';
import type { Duties } from './duties.ts';
import type { ExtraCopies } from './extra-copies.ts';
import { notOwner } from './own-volumes.ts';
import type { Clock } from './ports.ts';
import type { Proofs } from './proofs.ts';
import type { Replicated, Replicator } from './replicator.ts';
import type { Transitions } from './transitions.ts';

/**
 * How idle volumes go from this node to another one, all of them or none. What is large is sent before anything is locked, so that a
 * volume can be used here until the end; the last step is one transaction.
 *
 *     sending -> (locked, idle, unmounted) -> records say handing-over -> last differences -> store passes them on -> records say replica
 *
 * Whatever fails before the transaction puts all records back. Where it is not known what the store has done they stay as they are
 * until a look at the store tells, each on its own: the first of them that this node keeps makes the transaction fit nowhere.
 */
export type Group = {
  readonly ids: readonly DatasetId[];
  readonly to: NodeName;
  /** Of `to`, asked for when all is sent. */
  readonly session: () => Promise<SessionId> | SessionId;
  /** Changes of other documents that are made with it. */
  readonly also: readonly Operation[];
  /** Users that are just ending are waited for so long. */
  readonly idleMs: number;
};

/** Answers the documents in the order of `ids`. Throws the signal's reason if that ends it before the transaction. */
export type Hand = (group: Group, signal: AbortSignal) => Promise<readonly VolumeDoc[]>;

export type HandParts = {
  readonly storage: Storage;
  readonly state: State;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly proofs: Proofs;
  readonly directory: Directory;
  readonly transitions: Transitions;
  readonly replicator: Replicator;
  readonly extras: ExtraCopies;
  readonly duties: Pick<Duties, 'settle' | 'wake'>;
  /** Throws `volume-in-use` naming the users. */
  readonly refuseInUse: (record: VolumeRecord) => Promise<void>;
  readonly log: Logger;
};

/** Far below the time for which a node keeps a copy that it was just asked about, though the document does not list it. */
const handOverMs = 10_000;
const idleLookMs = 50;
/** A copy that is behind by no more than this is brought up to date when the volume is locked: it takes a moment only. */
const nearMs = 5_000;

export function createHand(parts: HandParts): Hand {
  const { storage, state, locks, clock, proofs, directory, transitions, replicator, extras, duties, log } = parts;

  function recordOf(id: DatasetId): VolumeRecord {
    const record = state.byId(id);
    if (record !== undefined && (record.phase.kind === 'ready' || record.phase.kind === 'handing-over')) return record;
    const doc = directory.volume(id)?.doc;
    if (doc !== undefined) throw notOwner(doc);
    throw new FlockError('volume-not-found', `there is no volume ${id} here`);
  }

  async function replicatedOf(record: VolumeRecord): Promise<Replicated> {
    const doc = await currentDoc(directory, record);
    return { doc, copies: doc.replicas, isMounted: true };
  }

  /** Docker says that a container has ended before it gives the volume back. */
  async function waitUntilIdle(record: VolumeRecord, idleMs: number, signal: AbortSignal): Promise<void> {
    const untilMs = clock.bootMs() + idleMs;
    for (;;) {
      try {
        return await parts.refuseInUse(record);
      } catch (error) {
        if (!hasCode(error, 'volume-in-use') || clock.bootMs() >= untilMs || signal.aborted) throw error;
      }
      await clock.sleep(idleLookMs, signal);
    }
  }

  /** What is not the small rest that is sent at the end. */
  async function sendMost(volume: Replicated, to: NodeName, signal: AbortSignal): Promise<void> {
    const copy = replicator.status(volume.doc.id).find(({ node }) => node === to);
    if (copy === undefined || copy.lagMs === null || copy.lagMs > nearMs)
      await replicator.sync(volume, to, false, signal);
  }

  async function lockAll<T>(
    names: readonly string[],
    to: NodeName,
    signal: AbortSignal,
    work: () => Promise<T>,
  ): Promise<T> {
    const [first, ...rest] = names;
    if (first === undefined) return await work();
    return await locks.with(first, `handing over to ${to}`, signal, () => lockAll(rest, to, signal, work));
  }

  /**
   * As it is now, under its lock. After a handing over whose outcome is not known, it is ours again only when no late transaction can
   * pass it on any more.
   */
  async function settled(id: DatasetId, signal: AbortSignal): Promise<VolumeRecord> {
    if (recordOf(id).phase.kind === 'handing-over') await duties.settle(id, signal);
    const record = recordOf(id);
    if (record.phase.kind === 'ready') return record;
    throw new FlockError(
      'volume-busy',
      `it is not known yet whether volume ${quote(record.name)} was handed to another node; try again`,
    );
  }

  /** Never throws at once: the others of a group would be left with nobody who hears of their end. */
  async function settledAlone(id: DatasetId, signal: AbortSignal): Promise<VolumeRecord> {
    const record = recordOf(id);
    if (record.phase.kind === 'ready') return record;
    return await locks.with(record.name, 'finding out who has it', signal, () => settled(id, signal));
  }

  /** Under all locks. */
  async function pass({ ids, to, session, also }: Group, signal: AbortSignal): Promise<readonly VolumeDoc[]> {
    const records = await Promise.all(ids.map((id) => settled(id, signal)));
    const volumes = await Promise.all(records.map(replicatedOf));
    await Promise.all(records.map(parts.refuseInUse));
    await allOf(records, signal, ({ id }) => storage.unmount(id));
    for (const id of ids) state.setUses(id, []);
    // Before the record: whoever finds "handing over" after a crash, and another owner, takes everything for being in snapshots.
    await allOf(volumes, signal, (volume) => replicator.save(volume));
    state.commit({ put: records.map((record) => ({ ...record, phase: { kind: 'handing-over', to } })) });
    let docs: readonly VolumeDoc[];
    try {
      await allOf(volumes, signal, (volume, ended) => replicator.sync(volume, to, true, ended));
      signal.throwIfAborted();
      const untilMs = clock.bootMs() + handOverMs;
      const reached = ids.map((id) => replicator.reached(id));
      docs = await transitions.handOver({ ids, reached, to, session: await session(), also, untilMs });
    } catch (error) {
      if (!hasCode(error, 'store-unavailable')) state.commit({ put: records });
      duties.wake();
      throw error;
    }
    await becomeCopies(records, docs, to);
    return docs;
  }

  async function becomeCopies(
    records: readonly VolumeRecord[],
    docs: readonly VolumeDoc[],
    to: NodeName,
  ): Promise<void> {
    for (const { id } of records) proofs.dropped(id);
    await Promise.all(records.map(({ id }) => replicator.drop(id)));
    const put = records.map((record, index): VolumeRecord => {
      const epoch = docs[index]?.epoch ?? record.epoch;
      return { ...record, epoch, phase: { kind: 'replica', owner: to, stashing: null } };
    });
    state.commit({ put });
    duties.wake();
  }

  return async (group, signal) => {
    const { ids, to } = group;
    const startedMs = clock.bootMs();
    const records = await Promise.all(ids.map((id) => settledAlone(id, signal)));
    const letGo = ids.map((id) => extras.want(id, to));
    try {
      await Promise.all(records.map((record) => waitUntilIdle(record, group.idleMs, signal)));
      const volumes = await Promise.all(records.map(replicatedOf));
      await allOf(volumes, signal, (volume, ended) => sendMost(volume, to, ended));
      const names = records.map(({ name }) => name).sort();
      const docs = await lockAll(names, to, signal, () => pass(group, signal));
      const ms = clock.bootMs() - startedMs;
      for (const { id, name, epoch } of docs)
        log.info({ event: 'handoff.done', volume: name, dataset: id, to, epoch, ms }, 'volume handed over');
      return docs;
    } finally {
      for (const release of letGo) release();
    }
  };
}

/** All at once. The first that fails ends the others, and it is thrown when none runs any more. */
async function allOf<T>(
  items: readonly T[],
  signal: AbortSignal,
  work: (item: T, ended: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const ended = AbortSignal.any([signal, stop.signal]);
  let failure: { readonly error: unknown } | null = null;
  await Promise.all(
    items.map(async (item) => {
      try {
        await work(item, ended);
      } catch (error) {
        failure ??= { error };
        stop.abort(error);
      }
    }),
  );
  if (failure !== null) throw (failure as { readonly error: unknown }).error;
}
