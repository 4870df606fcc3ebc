import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type DatasetId, type NodeName, quote } from '../../controller/model/names.ts';
import type { Operation, SessionId } from '../../controller/store/store.ts';
import type { Directory, SeenVolume } from './directory.ts';
import type { Lease } from './lease.ts';
import type { Changes } from './unanswered.ts';

/** A volume of this node, as a fresh look at the store shows it: locked with this node's session. */
export type OwnVolume = SeenVolume & { readonly session: SessionId };

export type OwnVolumes = {
  /** Throws `store-unavailable` while there is none. */
  sessionNow(): SessionId;
  /** Throws `not-owner`, or `store-unavailable` if it is not locked by us now. */
  own(id: DatasetId): Promise<OwnVolume>;
  /** Repeats a change of our own document until no other change of ours comes between. */
  changeOwn(
    id: DatasetId,
    operations: (volume: OwnVolume) => { readonly doc: VolumeDoc; readonly operations: readonly Operation[] },
  ): Promise<VolumeDoc>;
};

const attemptsMax = 5;

export function createOwnVolumes(parts: {
  readonly lease: Lease;
  readonly directory: Directory;
  readonly changes: Changes;
  readonly node: NodeName;
}): OwnVolumes {
  const { lease, directory, changes, node } = parts;

  function sessionNow(): SessionId {
    const session = lease.session();
    if (session !== null) return session;
    throw new FlockError(
      'store-unavailable',
      'this node has no session in the store yet, so it can own no volume; flock tries again by itself',
    );
  }

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
      const outcome = await changes.transact([doc], wanted);
      if (outcome.kind === 'done') return doc;
      if (attempt === attemptsMax)
        throw new FlockError('not-owner', `the store refused to change volume ${quote(doc.name)}: ${outcome.reason}`);
    }
  }

  return { sessionNow, own, changeOwn };
}

export function notOwner(doc: VolumeDoc): FlockError {
  return new FlockError('not-owner', `volume ${quote(doc.name)} belongs to node ${doc.owner}, not to this one`, {
    owner: doc.owner,
  });
}
