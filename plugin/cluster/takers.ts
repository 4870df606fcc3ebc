import { isBraked, policyOf } from '../../controller/model/failover.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { Directory } from './directory.ts';
import type { CopyStatus } from './replication-work.ts';

/** Who could take a volume of this node, were it given up: as far as this node can tell, by what the others decide by. */
export type Takers = {
  /** Whether the volume is this node's by the store, and others may take it at all. */
  mayBeTaken(id: DatasetId): boolean;
  /** Whether one of them lives, and could now. */
  canBeTaken(id: DatasetId): boolean;
};

export type TakerParts = {
  readonly node: NodeName;
  readonly directory: () => Pick<Directory, 'nodes' | 'volume'>;
  /** What is known of the copies; nothing of those of a volume that was given up. */
  readonly copies: (id: DatasetId) => readonly CopyStatus[];
};

export function createTakers({ node, directory, copies }: TakerParts): Takers {
  return {
    mayBeTaken(id) {
      const doc = directory().volume(id)?.doc;
      return doc?.owner === node && doc.replicas.length > 0 && policyOf(doc.options) !== 'none';
    },
    canBeTaken(id) {
      const nodes = [...directory().nodes()];
      if (isBraked(nodes.filter(({ alive }) => alive === null).length, nodes.length)) return false;
      const listed = directory().volume(id)?.doc.replicas ?? [];
      // The first stream to it has not ended yet.
      const arriving = copies(id).flatMap((copy) => (copy.lagMs === null ? [copy.node] : []));
      return nodes.some(
        ({ doc: { name, poolLost }, alive }) =>
          listed.includes(name) && alive !== null && poolLost !== true && !arriving.includes(name),
      );
    },
  };
}
