import { clashesOf } from './clashes.ts';
import type { VolumeDoc } from './cluster.ts';
import { isBraked } from './failover.ts';
import { hashText } from './hash.ts';
import type { DatasetId, NodeName } from './names.ts';
import type { WorkloadDoc } from './workload.ts';

/** Which node makes the containers of a dead node. Pure; compare-and-set on the workload's document decides races. */
export type FollowFacts = {
  readonly me: NodeName;
  readonly nodes: ReadonlyMap<
    NodeName,
    { readonly cordoned: boolean; readonly draining: boolean; readonly poolLost?: boolean | undefined }
  >;
  readonly alive: ReadonlySet<NodeName>;
  /** Nodes whose controller is not at work: nobody there could make a container. */
  readonly silentSinceMs: ReadonlyMap<NodeName, number>;
  /** By the node that they are on. */
  readonly workloadsOn: ReadonlyMap<NodeName, readonly WorkloadDoc[]>;
  /** Boot clock. */
  readonly deadSinceMs: ReadonlyMap<NodeName, number>;
  readonly nowMs: number;
  readonly volumes: ReadonlyMap<DatasetId, Pick<VolumeDoc, 'owner' | 'trashed'>>;
  /** How long a node has to be dead before containers without volumes are made elsewhere. */
  readonly guardMs: number;
};

export type Follow =
  /** It is where it is to be, or another node's business. */
  | { readonly kind: 'none' }
  | { readonly kind: 'claim'; readonly why: string }
  /** It would be this node's business, if not for this. */
  | { readonly kind: 'refused'; readonly why: string }
  | { readonly kind: 'wait'; readonly ms: number };

export function followOf(doc: WorkloadDoc, facts: FollowFacts): Follow {
  const { me, alive, volumes } = facts;
  if (doc.node === me || doc.wanted === 'stopped' || doc.move !== null) return { kind: 'none' };
  // What needs no pool goes on there.
  const isPoolLost = facts.nodes.get(doc.node)?.poolLost === true && doc.volumes.length > 0;
  if (alive.has(doc.node) && !isPoolLost) return { kind: 'none' };
  // It would be started on an empty volume of that name.
  if (isGivenUp(doc, facts)) return { kind: 'none' };
  const [first] = doc.volumes.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  if (first !== undefined) {
    const volume = volumes.get(first.id);
    if (volume?.owner !== me || volume.trashed !== null) return { kind: 'none' };
    const state = alive.has(doc.node) ? `the pool of node ${doc.node} has failed` : `node ${doc.node} is dead`;
    return unlessObstacles(doc, `${state}, and volume ${first.name} is here now`);
  }
  if (doc.failover !== 'auto') return { kind: 'none' };
  const since = facts.deadSinceMs.get(doc.node);
  // One that was taken out of the cluster is dead for ever.
  const deadMs = since === undefined ? (facts.nodes.has(doc.node) ? 0 : facts.guardMs) : facts.nowMs - since;
  const dead = [...facts.nodes.keys()].filter((node) => !alive.has(node)).length;
  const candidates = candidatesOf(doc, facts);
  const place = placeOf(doc, candidates, facts);
  if (isBraked(dead, facts.nodes.size) || (place ?? candidates[0]) !== me) return { kind: 'none' };
  if (deadMs < facts.guardMs) return { kind: 'wait', ms: facts.guardMs - deadMs };
  const why = `node ${doc.node} is dead`;
  if (place !== undefined) return unlessObstacles(doc, why);
  return { kind: 'refused', why: `${why}, but no other node has room for it: ${clashesAt(me, doc, facts).join('; ')}` };
}

type Room = Pick<FollowFacts, 'workloadsOn'>;

const clashesAt = (node: NodeName, doc: WorkloadDoc, { workloadsOn }: Room) =>
  clashesOf(doc, workloadsOn.get(node) ?? [], node);

/** The best of them where nothing has its name and its ports. Once claimed it is nobody else's, even if it can't be made. */
function placeOf(doc: WorkloadDoc, candidates: readonly NodeName[], facts: Room): NodeName | undefined {
  return candidates.find((node) => clashesAt(node, doc, facts).length === 0);
}

/** Living nodes with controllers that may be given something, best first: for each workload in another order, and in the same one everywhere. */
export function candidatesOf(
  doc: Pick<WorkloadDoc, 'id' | 'node'>,
  { nodes, alive, silentSinceMs }: Pick<FollowFacts, 'nodes' | 'alive' | 'silentSinceMs'>,
): readonly NodeName[] {
  return [...nodes]
    .filter(([node]) => alive.has(node) && !silentSinceMs.has(node) && node !== doc.node)
    .filter(([, { cordoned, draining }]) => !cordoned && !draining)
    .map(([node]) => ({ node, hash: hashText(`${doc.id} ${node}`) }))
    .toSorted((a, b) => b.hash - a.hash || (a.node < b.node ? -1 : 1))
    .map(({ node }) => node);
}

function unlessObstacles({ obstacles }: WorkloadDoc, why: string): Follow {
  if (obstacles.length === 0) return { kind: 'claim', why };
  return { kind: 'refused', why: `${why}, but it can't be made here: ${obstacles.join('; ')}` };
}

/** The nodes that should have a workload's image before they need it: where its volumes' copies are, or where it would go. */
export function imageNodesOf(
  doc: WorkloadDoc,
  facts: Pick<FollowFacts, 'nodes' | 'alive' | 'silentSinceMs' | 'nowMs' | 'workloadsOn'> & {
    readonly volumes: ReadonlyMap<DatasetId, Pick<VolumeDoc, 'owner' | 'replicas'>>;
  },
): readonly NodeName[] {
  if (doc.obstacles.length > 0) return [];
  if (doc.volumes.length === 0) {
    // A controller that is just restarted is no reason to bring an image to yet another node.
    const silentSinceMs = new Map(
      [...facts.silentSinceMs].filter(([, sinceMs]) => facts.nowMs - sinceMs > silentMsMin),
    );
    if (doc.failover !== 'auto') return [];
    const place = placeOf(doc, candidatesOf(doc, { ...facts, silentSinceMs }), facts);
    return place === undefined ? [] : [place];
  }
  const nodes = doc.volumes.flatMap(({ id }) => {
    const volume = facts.volumes.get(id);
    return volume === undefined ? [] : [volume.owner, ...volume.replicas];
  });
  return [...new Set(nodes)].filter((node) => node !== doc.node);
}

const silentMsMin = 60_000;

/** People have given up one of its volumes, with the node that had it. */
function isGivenUp(doc: WorkloadDoc, { volumes }: FollowFacts): boolean {
  return doc.volumes.some(({ id }) => !volumes.has(id));
}

/** Of a node that was taken out of the cluster, and to run nowhere else. One node sees to it. */
export function isLeftOver(doc: WorkloadDoc, facts: FollowFacts): boolean {
  if (facts.nodes.size === 0 || facts.nodes.has(doc.node) || facts.alive.has(doc.node)) return false;
  if (doc.move !== null) return false;
  const staysDown =
    doc.wanted === 'stopped' || isGivenUp(doc, facts) || (doc.volumes.length === 0 && doc.failover !== 'auto');
  return staysDown && candidatesOf(doc, facts)[0] === facts.me;
}
