import type { DatasetId, NodeName } from '../../controller/model/names.ts';

/**
 * Nodes that are to get copies for a while though the documents do not list them, because they are about to become owners. Until
 * somebody lets go of them they are replicated to like all others; but they prove nothing, and never take a volume over.
 */
export type ExtraCopies = {
  of(id: DatasetId): readonly NodeName[];
  /** Wanted until the answer is called. */
  want(id: DatasetId, node: NodeName): () => void;
};

export function createExtraCopies(): ExtraCopies {
  const wanted = new Set<{ readonly id: DatasetId; readonly node: NodeName }>();
  return {
    of: (id) => [...new Set([...wanted].flatMap((one) => (one.id === id ? [one.node] : [])))],
    want(id, node) {
      const one = { id, node };
      wanted.add(one);
      return () => void wanted.delete(one);
    },
  };
}
