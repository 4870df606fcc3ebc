import type { NodeDoc, SpaceDoc } from './cluster.ts';
import { hashText, mix } from './hash.ts';
import { hasLabels, labelOf } from './labels.ts';
import type { VolumeOptions } from './options.ts';

export type PlacementNode = NodeDoc & {
  readonly alive: boolean;
  /** null where it is alive, or where nobody has seen it die. */
  readonly deadSinceMs: number | null;
  /** null: not known yet; nothing is placed there then. */
  readonly space: SpaceDoc | null;
};

export type PlacementLimits = {
  /** A dead node may come back for so long before its copies are made elsewhere. */
  readonly graceMs: number;
  /** While a greater share of the nodes looks dead it is rather the network, and nothing is added. */
  readonly deadShareMax: number;
  /** Free space that a copy needs, as a multiple of the volume. */
  readonly roomFactor: number;
  /** How full a pool may be with the new copy: full pools are slow. */
  readonly fullShareMax: number;
  /** Copies where the volume asks for no number. */
  readonly localDefault: number;
  readonly remoteDefault: number;
};

/** From the practice of others: ten minutes as Longhorn, 34 % as LINSTOR. */
export const placementLimits: PlacementLimits = {
  graceMs: 600_000,
  deadShareMax: 0.34,
  roomFactor: 1.3,
  fullShareMax: 0.8,
  localDefault: 1,
  remoteDefault: 0,
};

/** A node with what placement asks again and again worked out. */
export type IndexedNode = {
  readonly doc: PlacementNode;
  readonly dc: number;
  /** A node without a `rack` label is a rack of its own. */
  readonly rack: number;
  readonly seed: number;
  /** 1 / weight. Weight is the size of the pool, less the fuller it is. */
  readonly costFactor: number;
  /** The largest volume that a copy of may be placed here, in bytes; negative: none. */
  readonly roomBytes: number;
};

/** What a volume itself asks of the nodes that hold its copies. */
export type Conditions = Pick<VolumeOptions, 'nodes' | 'locality'>;

/** Nodes that may get new copies, of one data center, in the order of their names. */
export type NodeGroup = {
  readonly dc: number;
  readonly nodes: readonly IndexedNode[];
  /** As in `nodes`; side by side, because 100,000 volumes are scored against each. */
  readonly seeds: Int32Array;
  readonly costFactors: Float64Array;
};

export type NodeIndex = {
  readonly limits: PlacementLimits;
  readonly byName: ReadonlyMap<string, IndexedNode>;
  /** All nodes, by the number of their data center, in the order of their names. */
  readonly byDc: ReadonlyMap<number, readonly IndexedNode[]>;
  /** The nodes that may get copies of a volume with this format and these conditions. Remembers its answers. */
  groups(format: NodeDoc['format'], conditions: Conditions): readonly NodeGroup[];
  /** Share of the nodes that look dead. */
  readonly deadShare: number;
};

/** To be made anew when a node, its space or its life changes; good for any number of volumes until then. */
export function prepareNodes(nodes: readonly PlacementNode[], limits: PlacementLimits = placementLimits): NodeIndex {
  const numbers = new Map<string, number>();
  const numberOf = (text: string) => {
    const number = numbers.get(text) ?? numbers.size;
    numbers.set(text, number);
    return number;
  };
  const sorted = nodes.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const indexed = sorted.map((doc): IndexedNode => {
    const dc = labelOf(doc.labels, 'dc');
    const rack = labelOf(doc.labels, 'rack');
    return {
      doc,
      dc: numberOf(`dc/${dc}`),
      rack: numberOf(rack === null ? `node/${doc.name}` : `rack/${dc}/${rack}`),
      seed: hashText(doc.name) | 0,
      costFactor: costFactorOf(doc.space),
      roomBytes: roomOf(doc.space, limits),
    };
  });
  const open = indexed.filter(({ doc }) => doc.alive && !doc.cordoned && !doc.draining && doc.space !== null);
  return {
    limits,
    byName: new Map(indexed.map((node) => [node.doc.name, node])),
    byDc: Map.groupBy(indexed, ({ dc }) => dc),
    groups: rememberGroups(open),
    deadShare: nodes.length === 0 ? 0 : nodes.filter(({ alive }) => !alive).length / nodes.length,
  };
}

/** So many different conditions are remembered. */
const rememberedMax = 1000;

function rememberGroups(open: readonly IndexedNode[]): NodeIndex['groups'] {
  const known = new Map<string, readonly NodeGroup[]>();
  return (format, conditions) => {
    const { nodes, locality } = conditions;
    const key = nodes === null && locality === null ? format : JSON.stringify([format, nodes, locality]);
    const before = known.get(key);
    if (before !== undefined) return before;
    const suitable = open.filter(({ doc }) => doc.format === format && meetsConditions(doc, conditions));
    const groups = [...Map.groupBy(suitable, ({ dc }) => dc)].map(
      ([dc, members]): NodeGroup => ({
        dc,
        nodes: members,
        seeds: Int32Array.from(members, ({ seed }) => seed),
        costFactors: Float64Array.from(members, ({ costFactor }) => costFactor),
      }),
    );
    if (known.size >= rememberedMax) known.clear();
    known.set(key, groups);
    return groups;
  };
}

/** Free space counts in eighths, so that the daily up and down of a pool does not change where a volume would go. */
const freeSteps = 8;

function costFactorOf(space: SpaceDoc | null): number {
  if (space === null || space.sizeBytes <= 0) return Number.POSITIVE_INFINITY;
  const free = Math.ceil((freeSteps * space.freeBytes) / space.sizeBytes) / freeSteps;
  return 1 / (space.sizeBytes * Math.max(free, 1 / freeSteps));
}

function roomOf(space: SpaceDoc | null, limits: PlacementLimits): number {
  if (space === null) return -1;
  const untilFullBytes = space.freeBytes - (1 - limits.fullShareMax) * space.sizeBytes;
  return Math.min(space.freeBytes / limits.roomFactor, untilFullBytes);
}

/** The same the other way round: what has to be free in a pool of this size for a volume of so many bytes. */
export function freeBytesFor(bytes: number, sizeBytes: number, limits: PlacementLimits): number {
  return Math.max(limits.roomFactor * bytes, bytes + (1 - limits.fullShareMax) * sizeBytes);
}

/**
 * What a node costs a volume; the cheapest one gets it. This is weighted rendezvous hashing (Thaler and Ravishankar 1998, weights
 * after Schindelhauer and Schomaker 2005): -ln(h) / weight with h even in (0, 1) and the same on every node that computes it. A
 * node that comes or goes changes nothing but what it wins or had won.
 */
export function costOf(volumeSeed: number, node: IndexedNode): number {
  return -Math.log(evenOf(volumeSeed, node.seed)) * node.costFactor;
}

function evenOf(volumeSeed: number, nodeSeed: number): number {
  return (mix(volumeSeed ^ nodeSeed) + 0.5) / 2 ** 32;
}

export type PickRequest = {
  readonly volumeSeed: number;
  readonly usedBytes: number;
  /** The owner and whoever has a copy already. */
  readonly taken: readonly IndexedNode[];
  /** Groups to choose from, preferred ones apart. */
  readonly groups: readonly NodeGroup[];
};

/** The cheapest suitable node in a rack that no taken node is in, or else the cheapest one; null: none is suitable. */
export function pickNode(request: PickRequest): IndexedNode | null {
  const { volumeSeed, taken } = request;
  let best: IndexedNode | null = null;
  let bestCost = Number.POSITIVE_INFINITY;
  let bestInUsedRack = true;
  for (const { nodes, seeds, costFactors } of request.groups) {
    for (let index = 0; index < seeds.length; index += 1) {
      const even = evenOf(volumeSeed, seeds[index] as number);
      const factor = costFactors[index] as number;
      // 1 - h is never above -ln(h): this tells almost all nodes without a logarithm that they are not the cheapest.
      if (!bestInUsedRack && (1 - even) * factor >= bestCost) continue;
      const node = nodes[index] as IndexedNode;
      if (node.roomBytes < request.usedBytes || isTaken(taken, node)) continue;
      const inUsedRack = isRackTaken(taken, node.rack);
      const cost = -Math.log(even) * factor;
      const better = inUsedRack === bestInUsedRack ? cost < bestCost : bestInUsedRack;
      if (!better) continue;
      best = node;
      bestCost = cost;
      bestInUsedRack = inUsedRack;
    }
  }
  return best;
}

function isTaken(taken: readonly IndexedNode[], node: IndexedNode): boolean {
  for (const other of taken) if (other === node) return true;
  return false;
}

function isRackTaken(taken: readonly IndexedNode[], rack: number): boolean {
  for (const other of taken) if (other.rack === rack) return true;
  return false;
}

/** Whether a volume's own conditions allow a copy on the node. */
export function meetsConditions(node: NodeDoc, { nodes, locality }: Conditions): boolean {
  if (nodes !== null && !nodes.includes(node.name)) return false;
  return locality === null || hasLabels(node.labels, locality);
}
