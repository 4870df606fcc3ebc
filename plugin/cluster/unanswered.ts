import type { VolumeDoc } from '../../controller/model/cluster.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Operation, Outcome, Store } from '../../controller/store/store.ts';
import type { SeenVolume } from './directory.ts';
import type { Clock } from './ports.ts';

/**
 * Changes of documents with what is known of their outcome. An answer may be lost and the change be made seconds later, so until one
 * of its revisions or a newer one was seen, a document is not certain.
 */
export type Changes = {
  /** A transaction that makes these documents, each once, or none of them. */
  transact(docs: readonly VolumeDoc[], operations: readonly Operation[]): Promise<Outcome>;
  /** The document as it is for certain, given what was seen last; null where an answer about it is missing. */
  certain(id: DatasetId, seen: SeenVolume | null): VolumeDoc | null;
  /** Whether a change that was not answered, by this process or one before it, may still be made. */
  mayComeLate(id: DatasetId): boolean;
};

/** So long after it was sent a transaction without an answer may still be done: far above the few seconds that were seen of Consul. */
export const lateMsMax = 30_000;

export function createChanges(store: Store, clock: Clock): Changes {
  /** Changes whose answer has not come, and may never: the revisions that they make. */
  const unanswered = new Map<DatasetId, readonly VolumeDoc[]>();
  /** What this node has written last. */
  const written = new Map<DatasetId, VolumeDoc>();
  /** Boot times until which an unanswered change may come. What a predecessor of this process has sent is not known. */
  const lateUntilMs = new Map<DatasetId, number>();
  const allLateUntilMs = clock.bootMs() + lateMsMax;

  function settle(id: DatasetId, isSettled: (doc: VolumeDoc) => boolean): void {
    const left = (unanswered.get(id) ?? []).filter((doc) => !isSettled(doc));
    if (left.length === 0) unanswered.delete(id);
    else unanswered.set(id, left);
  }

  return {
    async transact(docs, operations) {
      for (const doc of docs) unanswered.set(doc.id, [...(unanswered.get(doc.id) ?? []), doc]);
      const outcome = await store.transact(operations).catch((error: unknown) => {
        for (const { id } of docs) lateUntilMs.set(id, clock.bootMs() + lateMsMax);
        throw error;
      });
      for (const doc of docs) {
        if (outcome.kind === 'done') written.set(doc.id, doc);
        settle(doc.id, (other) => other === doc);
      }
      return outcome;
    },
    certain(id, seen) {
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
    mayComeLate: (id) => clock.bootMs() < Math.max(allLateUntilMs, lateUntilMs.get(id) ?? 0),
  };
}
