import { formatLabels, labelOf } from './labels.ts';
import { type Conditions, type IndexedNode, meetsConditions, type NodeIndex } from './node-index.ts';
import { formatSize } from './quantity.ts';

/** So many nodes are named at most. */
const namedMax = 8;

export type MissingCopies = {
  readonly volume: {
    readonly options: Conditions;
    readonly usedBytes: number;
  };
  readonly nodes: NodeIndex;
  readonly owner: IndexedNode;
  readonly tier: { readonly name: 'local' | 'remote'; readonly wanted: number };
  readonly missing: number;
  /** The owner and whoever has a copy. */
  readonly taken: readonly IndexedNode[];
};

/** Why there is no place for a copy, node by node. */
export function explainMissing({ volume, nodes, owner, tier, missing, taken }: MissingCopies): string {
  const isLocal = tier.name === 'local';
  const start = `${missing} of ${tier.wanted} ${tier.name} copies ${missing === 1 ? 'has' : 'have'} no place`;
  const reasons: string[] = [];
  let count = 0;
  for (const [dc, members] of nodes.byDc) {
    if ((dc === owner.dc) !== isLocal) continue;
    count += members.length - taken.filter((node) => node.dc === dc).length;
    for (const node of members) {
      if (reasons.length >= namedMax) break;
      if (!taken.includes(node)) reasons.push(`${node.doc.name} ${exclusionOf(node, owner, volume, nodes)}`);
    }
  }
  const others = count - reasons.length;
  const dc = labelOf(owner.doc.labels, 'dc');
  if (reasons.length === 0) return `${start}: no more nodes ${isLocal ? 'in' : 'outside'} data center ${dc}`;
  return `${start}: ${reasons.join(', ')}${others > 0 ? `, and ${others} more` : ''}`;
}

/** The first rule that keeps a new copy away from the node. */
function exclusionOf(
  { doc, roomBytes }: IndexedNode,
  owner: IndexedNode,
  { options, usedBytes }: MissingCopies['volume'],
  { limits }: NodeIndex,
): string {
  if (doc.poolLost === true) return 'has lost its pool';
  if (!doc.alive) return 'is dead';
  if (doc.draining) return 'is being drained';
  if (doc.cordoned) return 'is cordoned';
  if (doc.format !== owner.doc.format) return `keeps volumes on ${doc.format}, the owner on ${owner.doc.format}`;
  if (!meetsConditions(doc, { nodes: options.nodes, locality: null })) return 'is not one of the nodes chosen';
  if (!meetsConditions(doc, options)) return `does not have ${formatLabels(options.locality ?? {})}`;
  if (doc.space === null) return 'has not told its free space';
  const neededBytes = limits.roomFactor * usedBytes;
  if (doc.space.freeBytes < neededBytes)
    return `has ${formatSize(doc.space.freeBytes)} free of the ${formatSize(Math.ceil(neededBytes))} needed`;
  if (roomBytes < usedBytes) return `would be more than ${Math.round(100 * limits.fullShareMax)} % full`;
  return 'was not chosen';
}
