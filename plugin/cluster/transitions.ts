import { pruneTombstones, tombstone } from '../../controller/cluster/tombstones.ts';
import { keys, type Reached, type VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type DatasetId, type NodeName, quote, type VolumeName } from '../../controller/model/names.ts';
import { createdDoc, ownedBy } from '../../controller/model/ownership.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Operation, SessionId, Store } from '../../controller/store/store.ts';
import type { Directory, SeenVolume } from './directory.ts';
import type { Lease } from './lease.ts';
import { createOwnVolumes } from './own-volumes.ts';
import { createHandOver, type Handover } from './passing-on.ts';
import type { Clock } from './ports.ts';
import type { Proofs } from './proofs.ts';
import { createChanges } from './unanswered.ts';

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
  /** Gives up the lock of a volume of ours, which stays ours until somebody takes it. false: not now. */
  unlock(volume: SeenVolume): Promise<boolean>;
  /** Makes sure that the volume is ours and that no transaction begun before can still change that. false: it is not, or not now. */
  reaffirm(volume: SeenVolume): Promise<boolean>;
  /** Changes a document of ours. Throws `not-owner` if it is not (any more). */
  update(id: DatasetId, change: (doc: VolumeDoc) => VolumeDoc): Promise<VolumeDoc>;
  /**
   * Passes volumes, with their locks, to another node's session, and makes the other changes: all of it or nothing. Where the store
   * refuses it: `not-owner`, `node-unreachable` if the session has ended, `document-changed` for one of the other changes.
   */
  handOver(handover: Handover): Promise<readonly VolumeDoc[]>;
  /**
   * Takes a volume that nobody has locked, with a copy that has `reached` so far (null: not known). Whether that is allowed is the
   * caller's business. Throws `not-owner` if it was refused.
   */
  take(volume: SeenVolume, reached: Reached | null, cause: 'automatic' | 'operator'): Promise<VolumeDoc>;
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
const pruneMs = 3_600_000;

export function createTransitions({ store, clock, lease, proofs, directory, node }: TransitionParts): Transitions {
  const changes = createChanges(store, clock);
  let pruneAtMs = Number.NEGATIVE_INFINITY;
  const { sessionNow, own, changeOwn } = createOwnVolumes({ lease, directory, changes, node });

  async function transactLocking(
    doc: VolumeDoc,
    session: SessionId,
    operations: readonly Operation[],
  ): Promise<boolean> {
    const atMs = clock.bootMs();
    const outcome = await changes.transact([doc], operations);
    if (outcome.kind === 'done') proofs.locked(doc.id, session, atMs);
    return outcome.kind === 'done';
  }

  /** A failure is no matter: the next removal does it. */
  async function prune(): Promise<void> {
    if (clock.bootMs() < pruneAtMs) return;
    pruneAtMs = clock.bootMs() + pruneMs;
    await pruneTombstones(store, clock.nowMs()).catch(() => undefined);
  }

  const encode = (doc: VolumeDoc) => JSON.stringify(doc);
  const revised = (doc: VolumeDoc): VolumeDoc => ({ ...doc, revision: doc.revision + 1 });

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
    async unlock({ doc, index }) {
      const value = encode(revised(doc));
      const outcome = await changes.transact(
        [doc],
        [
          { kind: 'check-index', key: keys.volume(doc.id), index },
          { kind: 'unlock', key: keys.volume(doc.id), value, session: sessionNow() },
        ],
      );
      return outcome.kind === 'done';
    },
    certain: (id) => changes.certain(id, directory.volume(id)),
    async claim(record) {
      const session = sessionNow();
      const doc = createdDoc(record, node);
      const claimed = await transactLocking(doc, session, [
        { kind: 'compare-and-set', key: keys.name(record.name), value: record.id, index: null },
        { kind: 'compare-and-set', key: keys.volume(record.id), value: encode(doc), index: null },
        { kind: 'lock', key: keys.volume(record.id), value: encode(doc), session },
        // Of one that was given up, and comes back.
        { kind: 'delete', key: keys.removed(record.id) },
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

    handOver: createHandOver({ clock, changes, own }),

    async take(volume, reached, cause) {
      const session = sessionNow();
      const owned = ownedBy(volume.doc, node, reached);
      const doc = cause === 'automatic' ? { ...owned, failedOverAtMs: Math.round(clock.nowMs()) } : owned;
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
        if (volume === null && changes.mayComeLate(id))
          throw new FlockError('store-unavailable', `the store may still do what was asked of it about volume ${id}`);
        if (volume === null || volume.doc.owner !== node) return;
        // It became ours after this dataset, then a copy, was given up: it may be the best that there is.
        if (epoch > 0 && volume.doc.epoch > epoch)
          throw new FlockError('volume-busy', `volume ${quote(volume.doc.name)} was given to this node meanwhile`);
        const holder = await store.get(keys.name(volume.doc.name), { fresh: true });
        const outcome = await store.transact([
          { kind: 'compare-and-delete', key: keys.volume(id), index: volume.index },
          tombstone(volume.doc, clock.nowMs()),
          ...(holder?.value === id
            ? [{ kind: 'compare-and-delete', key: holder.key, index: holder.index } as const]
            : []),
        ]);
        if (outcome.kind === 'done') return void prune();
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
