import { keys, type VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type DatasetId, type NodeName, quote, type VolumeName } from '../../controller/model/names.ts';
import { createdDoc, ownedBy } from '../../controller/model/ownership.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Operation, Outcome, SessionId, Store } from '../../controller/store/store.ts';
import type { Directory, SeenVolume } from './directory.ts';
import type { Lease } from './lease.ts';
import type { Clock } from './ports.ts';
import type { Proofs } from './proofs.ts';

/**
 * The changes of a volume's document, each one transaction that the store does or refuses as a whole. Every one of them checks the
 * index that it starts from: an answer may be lost and the transaction be done seconds later, so before a node goes on as if one had
 * not happened, it must have changed the document itself (`reaffirm`), after which the late one fits nowhere.
 */
export type Transitions = {
  /** Publishes a new volume with its name, locked. `volume-exists`: another volume has the name. May be repeated. */
  claim(record: VolumeRecord): Promise<VolumeDoc>;
  /** Locks a volume that the document gives to this node. false: not possible now. */
  lock(volume: SeenVolume): Promise<boolean>;
  /** Makes sure that the volume is ours and that no transaction begun before can still change that. false: it is not, or not now. */
  reaffirm(volume: SeenVolume): Promise<boolean>;
  /** Changes a document of ours. Throws `not-owner` if it is not (any more). */
  update(id: DatasetId, change: (doc: VolumeDoc) => VolumeDoc): Promise<VolumeDoc>;
  /** Passes the volume, with the lock, to another node's session. Throws `not-owner` if that was refused, `volume-busy` after that boot time. */
  handOver(id: DatasetId, to: NodeName, session: SessionId, untilMs: number): Promise<VolumeDoc>;
  /** Takes a volume that nobody has locked. Whether that is allowed is the caller's business. Throws `not-owner` if it was refused. */
  take(volume: SeenVolume): Promise<VolumeDoc>;
  /**
   * Removes name and document of a volume of ours; does nothing if there is none. `store-unavailable` also while a change that was not
   * answered may still make one.
   */
  withdraw(record: Pick<VolumeRecord, 'id' | 'epoch'>): Promise<void>;
  /**
   * The document of a volume of ours as it is for certain, which the directory may not show yet; null where an answer of the store
   * about it is missing, so that it may say something else than was seen last.
   */
  certain(id: DatasetId): VolumeDoc | null;
  /** Frees or takes the name as the volume goes to the trash or comes back, maybe under another name. */
  setTrashed(id: DatasetId, trashed: VolumeDoc['trashed'], name: VolumeName): Promise<VolumeDoc>;
};

export type TransitionParts = {
  readonly store: Store;
  readonly clock: Clock;
  readonly lease: Lease;
  readonly proofs: Proofs;
  readonly directory: Directory;
  readonly node: NodeName;
};

const attemptsMax = 5;
/** So long after it was sent a transaction without an answer may still be done: far above the few seconds that were seen of Consul. */
const lateMsMax = 30_000;

export function createTransitions({ store, clock, lease, proofs, directory, node }: TransitionParts): Transitions {
  function sessionNow(): SessionId {
    const session = lease.session();
    if (session !== null) return session;
    throw new FlockError(
      'store-unavailable',
      'this node has no session in the store yet, so it can own no volume; flock tries again by itself',
    );
  }

  async function transactLocking(
    doc: VolumeDoc,
    session: SessionId,
    operations: readonly Operation[],
  ): Promise<boolean> {
    const atMs = clock.bootMs();
    const outcome = await transact(doc.id, doc, operations);
    if (outcome.kind === 'done') proofs.locked(doc.id, session, atMs);
    return outcome.kind === 'done';
  }

  const encode = (doc: VolumeDoc) => JSON.stringify(doc);
  const revised = (doc: VolumeDoc): VolumeDoc => ({ ...doc, revision: doc.revision + 1 });

  /** Changes whose answer has not come, and may never: the revisions that they make. */
  const unanswered = new Map<DatasetId, readonly VolumeDoc[]>();
  /** What this node has written last. */
  const written = new Map<DatasetId, VolumeDoc>();

  /** Boot times until which an unanswered change may come. What a predecessor of this process has sent is not known. */
  const lateUntilMs = new Map<DatasetId, number>();
  const allLateUntilMs = clock.bootMs() + lateMsMax;

  async function transact(id: DatasetId, doc: VolumeDoc, operations: readonly Operation[]): Promise<Outcome> {
    unanswered.set(id, [...(unanswered.get(id) ?? []), doc]);
    const outcome = await store.transact(operations).catch((error: unknown) => {
      lateUntilMs.set(id, clock.bootMs() + lateMsMax);
      throw error;
    });
    if (outcome.kind === 'done') written.set(id, doc);
    settle(id, (other) => other === doc);
    return outcome;
  }

  function settle(id: DatasetId, isSettled: (doc: VolumeDoc) => boolean): void {
    const left = (unanswered.get(id) ?? []).filter((doc) => !isSettled(doc));
    if (left.length === 0) unanswered.delete(id);
    else unanswered.set(id, left);
  }

  /** Fresh, ours, and locked by us. */
  async function own(id: DatasetId): Promise<SeenVolume & { readonly session: SessionId }> {
    const volume = await directory.look(id);
    const session = sessionNow();
    if (volume === null) throw new FlockError('not-owner', `the cluster does not know the volume ${id}`);
    if (volume.doc.owner !== node) throw notOwner(volume.doc);
    if (volume.session !== session)
      throw new FlockError(
        'store-unavailable',
        `volume ${quote(volume.doc.name)} is not locked by this node yet; flock tries again by itself`,
      );
    return { ...volume, session };
  }

  /** Repeats a change of our own document until no other change of ours comes between. */
  async function changeOwn(
    id: DatasetId,
    operations: (volume: SeenVolume & { readonly session: SessionId }) => {
      readonly doc: VolumeDoc;
      readonly operations: readonly Operation[];
    },
  ): Promise<VolumeDoc> {
    for (let attempt = 1; ; attempt += 1) {
      const volume = await own(id);
      const { doc, operations: wanted } = operations(volume);
      const outcome = await transact(id, doc, wanted);
      if (outcome.kind === 'done') return doc;
      if (attempt === attemptsMax)
        throw new FlockError('not-owner', `the store refused to change volume ${quote(doc.name)}: ${outcome.reason}`);
    }
  }

  const lock: Transitions['lock'] = async (volume) => {
    const { id } = volume.doc;
    const session = sessionNow();
    const doc = revised(volume.doc);
    return await transactLocking(doc, session, [
      { kind: 'check-index', key: keys.volume(id), index: volume.index },
      { kind: 'lock', key: keys.volume(id), value: encode(doc), session },
    ]);
  };

  return {
    lock,
    certain(id) {
      const seen = directory.volume(id);
      const own = written.get(id) ?? null;
      // Each change is made to what it was decided on, or not at all, so it is over when there is that revision or a newer one. That
      // the store refused a later change says nothing.
      const revision = Math.max(seen?.doc.revision ?? 0, own?.revision ?? 0);
      settle(id, (doc) => doc.revision <= revision);
      if (unanswered.has(id)) return null;
      if (own !== null && own.revision >= (seen?.doc.revision ?? 0)) return own;
      // What a predecessor of this process remembered, or may have changed with its last breath, is not certain.
      const isFresh = seen !== null && seen.index !== '' && (own !== null || clock.bootMs() >= allLateUntilMs);
      return isFresh ? seen.doc : null;
    },
    async claim(record) {
      const session = sessionNow();
      const doc = createdDoc(record, node);
      const claimed = await transactLocking(doc, session, [
        { kind: 'compare-and-set', key: keys.name(record.name), value: record.id, index: null },
        { kind: 'compare-and-set', key: keys.volume(record.id), value: encode(doc), index: null },
        { kind: 'lock', key: keys.volume(record.id), value: encode(doc), session },
      ]);
      if (claimed) return doc;
      const holder = await store.get(keys.name(record.name), { fresh: true });
      const present = await directory.look(record.id);
      if (holder?.value === record.id && present !== null && present.doc.owner === node) {
        if (present.session === session || (await lock(present))) return present.doc;
        throw new FlockError('store-unavailable', `volume ${quote(record.name)} can't be locked yet; try again`);
      }
      throw new FlockError('volume-exists', `another node has just made a volume ${quote(record.name)}`, {
        id: holder?.value,
      });
    },

    async reaffirm(volume) {
      return volume.doc.owner === node && (await lock(volume));
    },

    update: (id, change) =>
      changeOwn(id, (volume) => {
        const doc = revised(change(volume.doc));
        return {
          doc,
          operations: [
            { kind: 'check-session', key: keys.volume(id), session: volume.session },
            { kind: 'compare-and-set', key: keys.volume(id), value: encode(doc), index: volume.index },
          ],
        };
      }),

    async handOver(id, to, session, untilMs) {
      const volume = await own(id);
      if (clock.bootMs() > untilMs)
        throw new FlockError(
          'volume-busy',
          `volume ${quote(volume.doc.name)} could not be handed to ${to} in time; try again`,
        );
      const doc = ownedBy(volume.doc, to);
      const outcome = await transact(id, doc, [
        { kind: 'check-index', key: keys.volume(id), index: volume.index },
        { kind: 'unlock', key: keys.volume(id), value: encode(doc), session: volume.session },
        { kind: 'lock', key: keys.volume(id), value: encode(doc), session },
      ]);
      if (outcome.kind === 'done') return doc;
      throw new FlockError(
        'not-owner',
        `the store refused to hand volume ${quote(doc.name)} to ${to}: ${outcome.reason}`,
      );
    },

    async take(volume) {
      const session = sessionNow();
      const doc = ownedBy(volume.doc, node);
      const taken = await transactLocking(doc, session, [
        { kind: 'check-index', key: keys.volume(doc.id), index: volume.index },
        { kind: 'lock', key: keys.volume(doc.id), value: encode(doc), session },
      ]);
      if (taken) return doc;
      throw new FlockError(
        'not-owner',
        `volume ${quote(doc.name)} has just been changed by another node; look again with "flockctl status"`,
      );
    },

    async withdraw({ id, epoch }) {
      for (let attempt = 1; ; attempt += 1) {
        const volume = await directory.look(id);
        if (volume === null && clock.bootMs() < Math.max(allLateUntilMs, lateUntilMs.get(id) ?? 0))
          throw new FlockError('store-unavailable', `the store may still do what was asked of it about volume ${id}`);
        if (volume === null || volume.doc.owner !== node) return;
        // It became ours after this dataset, then a copy, was given up: it may be the best that there is.
        if (epoch > 0 && volume.doc.epoch > epoch)
          throw new FlockError('volume-busy', `volume ${quote(volume.doc.name)} was given to this node meanwhile`);
        const holder = await store.get(keys.name(volume.doc.name), { fresh: true });
        const outcome = await store.transact([
          { kind: 'compare-and-delete', key: keys.volume(id), index: volume.index },
          ...(holder?.value === id
            ? [{ kind: 'compare-and-delete', key: holder.key, index: holder.index } as const]
            : []),
        ]);
        if (outcome.kind === 'done') return;
        if (attempt === attemptsMax)
          throw new FlockError('not-owner', `the store refused to remove volume ${id}: ${outcome.reason}`);
      }
    },

    async setTrashed(id, trashed, name) {
      const old = (await own(id)).doc.name;
      const holder = await store.get(keys.name(old), { fresh: true });
      if (trashed === null) {
        const taken = await store.get(keys.name(name), { fresh: true });
        if (taken !== null && taken.value !== id)
          throw new FlockError('volume-exists', `there is a volume ${quote(name)} already: restore under another name`);
      }
      return await changeOwn(id, (volume) => {
        const doc = revised({ ...volume.doc, trashed, name });
        const names: readonly Operation[] =
          trashed === null
            ? [{ kind: 'compare-and-set', key: keys.name(name), value: id, index: null }]
            : holder?.value === id
              ? [{ kind: 'compare-and-delete', key: holder.key, index: holder.index }]
              : [];
        return {
          doc,
          operations: [
            { kind: 'check-session', key: keys.volume(id), session: volume.session },
            { kind: 'compare-and-set', key: keys.volume(id), value: encode(doc), index: volume.index },
            // A repetition after a lost answer finds the name as it should be.
            ...(trashed === null && volume.doc.trashed === null ? [] : names),
          ],
        };
      });
    },
  };
}

export function notOwner(doc: VolumeDoc): FlockError {
  return new FlockError('not-owner', `volume ${quote(doc.name)} belongs to node ${doc.owner}, not to this one`, {
    owner: doc.owner,
  });
}
