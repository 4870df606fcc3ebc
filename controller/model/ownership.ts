import type { Reached, VolumeDoc } from './cluster.ts';
import { unreachable } from './errors.ts';
import type { NodeName } from './names.ts';
import type { VolumeRecord } from './volume.ts';

/**
 * Who owns a volume, as pure functions: what the document becomes with each change of owner, and what a node has to do with its own
 * dataset when it compares its record with the document. The store decides races; these only say what is asked of it.
 */

/**
 * Of a new volume, or of one that the store knows nothing of any more: it was given up, or removed while its old owner was away. How far
 * its epochs went is not known then, and nodes that have seen a higher one would refuse all that comes with a lower one, for ever.
 */
export function createdDoc(record: VolumeRecord, owner: NodeName): VolumeDoc {
  const { id, name, createdAtMs, options } = record;
  const epoch = record.epoch === 0 ? 1 : record.epoch + epochsUnknown;
  return { id, name, createdAtMs, options, owner, epoch, replicas: [], revision: 1, trashed: null };
}

/** More often than this no volume changes its owner while one of its old owners is away. */
const epochsUnknown = 1_000_000;

/**
 * The old owner has everything, so it takes the new one's place among the replicas. `reached`: the newest replication snapshot
 * that the new owner begins with; null: not known.
 */
export function ownedBy(doc: VolumeDoc, owner: NodeName, reached: Reached | null): VolumeDoc {
  const replicas = [...doc.replicas.filter((node) => node !== owner && node !== doc.owner), doc.owner];
  const epoch = doc.epoch + 1;
  const base = reached === null ? [] : [{ ...reached, began: epoch }];
  const bases = [...(doc.bases ?? []), ...base].slice(-basesMax);
  return { ...doc, owner, epoch, replicas, revision: doc.revision + 1, bases };
}

/** A copy that was away for more changes of owner than that, and has no snapshot in common with the volume, is kept as a stash. */
const basesMax = 32;

/** What a document says of the trash, by the record. */
export function trashedOf({ phase }: VolumeRecord): VolumeDoc['trashed'] {
  return phase.kind === 'trashed' ? { removedAtMs: phase.removedAtMs, expiresAtMs: phase.expiresAtMs } : null;
}

/** What the store shows of a volume at one moment. */
export type Seen = {
  readonly doc: VolumeDoc;
  /** The name of the node whose living session has it locked is not in the store; whether it is ours is. */
  readonly lock: 'ours' | 'free' | 'other';
};

/** What this node does about a volume of its own because of its pool (plugin/cluster/retreat.ts); null: nothing special. */
type Withdrawal = 'given' | 'returning' | null;

/**
 * What this node has to do about one dataset. `seen` null: a fresh look at the store shows no such volume. Everything here may be
 * repeated after a crash in the middle of it.
 */
export type Duty =
  /** Nothing to do. */
  | { readonly kind: 'none' }
  /** Ours by the document: lock it (again) with the session that we have now. */
  | { readonly kind: 'lock' }
  /** Ours, and locked, but its pool has failed: stop its users, and unlock it for whoever has a copy. */
  | { readonly kind: 'give-up' }
  /** It was handed or given to us and is locked: the replica here becomes the volume. */
  | { readonly kind: 'promote' }
  /** It has another owner, and all that we had written was handed over: what is here becomes a replica. */
  | { readonly kind: 'follow'; readonly owner: NodeName; readonly epoch: number }
  /** It got another owner behind our back: stop its users, keep what only we have as a stash, become a replica. */
  | { readonly kind: 'yield'; readonly owner: NodeName; readonly epoch: number }
  /** The handing over did not take place: the volume is ours as before. */
  | { readonly kind: 'keep' }
  /** A replica that nobody asks for any more: goes if the owner agrees. `owner` null: the store knows no such volume; see orphanDutyOf. */
  | { readonly kind: 'discard'; readonly owner: NodeName | null }
  /** A volume of ours that the store does not know: publish it. */
  | { readonly kind: 'publish' }
  /** Trashed or not: the document does not say what the record says, which counts. */
  | { readonly kind: 'republish' }
  /** The document says that it is ours, but there is no dataset here. */
  | { readonly kind: 'missing' };

export function dutyOf(
  me: NodeName,
  seen: Seen | null,
  record: VolumeRecord | null,
  withdrawal: Withdrawal = null,
): Duty {
  if (record === null) {
    return seen !== null && seen.doc.owner === me && seen.doc.trashed === null ? { kind: 'missing' } : { kind: 'none' };
  }
  const { phase } = record;
  switch (phase.kind) {
    case 'stashed':
    case 'destroying':
    case 'creating':
      return { kind: 'none' };
    case 'trashed':
      if (seen === null) return { kind: 'none' };
      // Taken over before the cluster could be told of the removal.
      if (seen.doc.owner !== me && seen.doc.epoch > record.epoch)
        return { kind: 'yield', owner: seen.doc.owner, epoch: seen.doc.epoch };
      if (seen.doc.owner !== me || seen.lock === 'other') return { kind: 'none' };
      if (seen.lock === 'free') return { kind: 'lock' };
      return seen.doc.trashed === null || seen.doc.epoch > record.epoch ? { kind: 'republish' } : { kind: 'none' };
    case 'replica':
      return dutyOfReplica(me, seen, record);
    case 'ready':
    case 'rolling-back':
    case 'handing-over':
      return dutyOfOwner(me, seen, record, withdrawal);
    default:
      return unreachable(phase);
  }
}

function dutyOfReplica(me: NodeName, seen: Seen | null, record: VolumeRecord): Duty {
  if (seen === null) return { kind: 'discard', owner: null };
  const { doc, lock } = seen;
  if (doc.owner === me) {
    // An epoch behind the record's is an old sight of the store.
    if (doc.epoch < record.epoch) return { kind: 'none' };
    if (lock === 'ours') return { kind: 'promote' };
    return lock === 'free' ? { kind: 'lock' } : { kind: 'none' };
  }
  if (doc.epoch < record.epoch) return { kind: 'none' };
  return doc.replicas.includes(me) ? { kind: 'none' } : { kind: 'discard', owner: doc.owner };
}

/**
 * What becomes of a copy of a volume that the store knows nothing of. Only if it was removed nobody wants it any more; else the store was
 * lost, or brought back as it was before the volume was made, and the copy may be the last there is. `forMs`: how long that has been so.
 */
export function orphanDutyOf(seen: {
  /** Whether the store lists this node: one that does not is not the store of this cluster, or not yet again. */
  readonly isMember: boolean;
  /** In the epoch of the copy, or later. */
  readonly isRemoved: boolean;
  readonly forMs: number;
}): 'keep' | 'destroy' | 'stash' {
  if (!seen.isMember) return 'keep';
  if (seen.isRemoved) return 'destroy';
  return seen.forMs < orphansKeptMs ? 'keep' : 'stash';
}

/** Time to bring the right state of the store back, with which the copy goes on as it is. */
export const orphansKeptMs = 86_400_000;

function dutyOfOwner(me: NodeName, seen: Seen | null, record: VolumeRecord, withdrawal: Withdrawal): Duty {
  const isHandingOver = record.phase.kind === 'handing-over';
  if (seen === null) return { kind: 'publish' };
  const { doc, lock } = seen;
  if (doc.owner === me && doc.epoch === record.epoch) {
    if (withdrawal === 'given') return { kind: lock === 'ours' ? 'give-up' : 'none' };
    if (lock === 'free' || (withdrawal === 'returning' && lock === 'ours')) return { kind: 'lock' };
    if (lock === 'other') return { kind: 'none' };
    if (isHandingOver) return { kind: 'keep' };
    return doc.trashed === null ? { kind: 'none' } : { kind: 'republish' };
  }
  if (doc.epoch <= record.epoch) return { kind: 'none' };
  if (doc.owner === me) return { kind: 'promote' };
  return { kind: isHandingOver ? 'follow' : 'yield', owner: doc.owner, epoch: doc.epoch };
}

/** Whether `record` may be written here now, and if not why, for people. The lease is another question (`plugin/cluster/lease.ts`). */
export function isOwnedHere(record: VolumeRecord): boolean {
  return record.phase.kind === 'ready' || record.phase.kind === 'rolling-back';
}
