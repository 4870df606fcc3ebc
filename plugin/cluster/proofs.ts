import type { DatasetId } from '../../controller/model/names.ts';
import type { SessionId } from '../../controller/store/store.ts';
import type { Lease } from './lease.ts';

/**
 * Since when nobody else can have become the owner of each volume, on the boot clock. Two things prove that: the store has confirmed
 * the session that the volume is locked with, or, while the store is away, every node that has a copy has promised to wait.
 */
export type Proofs = {
  /** A transaction, sent at `atMs`, has locked the volume with this session. */
  locked(id: DatasetId, session: SessionId, atMs: number): void;
  /** All nodes with a copy have promised, when asked at `atMs`. */
  promised(id: DatasetId, atMs: number): void;
  /** The volume is no longer ours. */
  dropped(id: DatasetId): void;
  isLockedWith(id: DatasetId, session: SessionId): boolean;
  /** -Infinity: there is no proof. */
  provenAtMs(id: DatasetId): number;
  /** As provenAtMs, by the store alone. */
  confirmedAtMs(id: DatasetId): number;
};

/** `isWithdrawn`: what this node has given up is not proven, whatever it is locked with. */
export function createProofs(lease: Lease, isWithdrawn: (id: DatasetId) => boolean): Proofs {
  const locks = new Map<DatasetId, { readonly session: SessionId; readonly atMs: number }>();
  const promises = new Map<DatasetId, number>();
  const never = Number.NEGATIVE_INFINITY;
  return {
    locked(id, session, atMs) {
      // The proof that an earlier session gave is not worse for being followed by a new one.
      locks.set(id, { session, atMs: Math.max(atMs, provenByLock(id)) });
    },
    promised: (id, atMs) => void promises.set(id, Math.max(atMs, promises.get(id) ?? never)),
    dropped(id) {
      locks.delete(id);
      promises.delete(id);
    },
    isLockedWith: (id, session) => locks.get(id)?.session === session,
    confirmedAtMs: (id) => (isWithdrawn(id) ? never : provenByLock(id)),
    provenAtMs: (id) => (isWithdrawn(id) ? never : Math.max(provenByLock(id), promises.get(id) ?? never)),
  };

  function provenByLock(id: DatasetId): number {
    const lock = locks.get(id);
    return lock === undefined ? never : Math.max(lock.atMs, lease.provenAtMs(lock.session));
  }
}
