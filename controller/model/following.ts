import { clashesOf } from './clashes.ts';
import type { VolumeDoc } from './cluster.ts';
import { isBraked } from './failover.ts';
import { hashText } from './hash.ts';
import { hasLinks, linksAmong } from './linking.ts';
import type { DatasetId, NodeName } from './names.ts';
import type { WorkloadDoc, WorkloadId, WorkloadVolume } from './workload.ts';

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
  readonly sharers: Sharers;
  /** Boot clock. */
  readonly deadSinceMs: ReadonlyMap<NodeName, number>;
  readonly nowMs: number;
  readonly volumes: ReadonlyMap<DatasetId, Pick<VolumeDoc, 'owner' | 'replicas' | 'trashed'>>;
  /** How long a node has to be dead before containers without volumes are made elsewhere. */
  readonly guardMs: number;
};

/** Workloads that are to run, by what keeps them together. */
export type Sharers = {
  readonly byVolume: ReadonlyMap<DatasetId, readonly WorkloadDoc[]>;
  readonly linked: ReadonlyMap<WorkloadId, readonly WorkloadDoc[]>;
};

export function sharersOf(workloads: readonly WorkloadDoc[]): Sharers {
  const running = workloads.filter(({ wanted }) => wanted === 'running');
  const uses = running.flatMap((doc) => doc.volumes.map(({ id }) => ({ id, doc })));
  const byVolume = Map.groupBy(uses, ({ id }) => id);
  return {
    byVolume: new Map([...byVolume].map(([id, entries]) => [id, entries.map(({ doc }) => doc)])),
    linked: linksAmong(running),
  };
}

/**
 * On whichever nodes: what has to be on the same one, for its volumes and links or those of others among them. The nearest first, without
 * itself.
 */
export function sharingWith(doc: WorkloadDoc, { byVolume, linked }: Sharers): readonly WorkloadDoc[] {
  const found = new Map([[doc.id, doc]]);
  // Grows while it is walked through.
  for (const one of found.values()) {
    const others = [...one.volumes.flatMap(({ id }) => byVolume.get(id) ?? []), ...(linked.get(one.id) ?? [])];
    for (const other of others) if (!found.has(other.id)) found.set(other.id, other);
  }
  return [...found.values()].slice(1);
}

/**
 * Of a workload whose node lives, and which can run on another one only: what is there has one of its volumes. Its node was dead when that
 * was taken over, and is back. Undefined too where others keep its volumes on several nodes: it would go to and fro.
 */
function keeperElsewhere(doc: WorkloadDoc, { volumes, sharers, alive }: FollowFacts): WorkloadDoc | undefined {
  const ownerOf = ({ id }: WorkloadVolume) => volumes.get(id)?.owner;
  if (doc.volumes.every((volume) => ownerOf(volume) === doc.node)) return undefined;
  const keepers = doc.volumes.flatMap((volume) =>
    (sharers.byVolume.get(volume.id) ?? []).filter(({ id, node }) => id !== doc.id && node === ownerOf(volume)),
  );
  const [keeper] = keepers;
  if (keeper === undefined || keepers.some(({ node }) => node !== keeper.node)) return undefined;
  return keeper.node !== doc.node && alive.has(keeper.node) ? keeper : undefined;
}

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
  const isPoolLostThere = facts.nodes.get(doc.node)?.poolLost === true;
  const together = alive.has(doc.node) && !isPoolLostThere ? [] : sharingWith(doc, facts.sharers);
  const leader = together.find(({ node, volumes }) => node === doc.node && volumes.length > 0);
  // What needs no pool goes on there, unless it is nothing without what does.
  const isPoolLost = isPoolLostThere && (doc.volumes.length > 0 || leader !== undefined);
  const isLeft = !alive.has(doc.node) || isPoolLost;
  // A node that runs something keeps its volumes, so there is no other place for what shares them; nor for what is linked with it.
  const ahead = isLeft
    ? together.find(({ node }) => node !== doc.node && alive.has(node))
    : keeperElsewhere(doc, facts);
  if (!isLeft && ahead === undefined) return { kind: 'none' };
  // It would be started on an empty volume of that name.
  if (isGivenUp(doc, facts)) return { kind: 'none' };
  const state = isPoolLost ? `the pool of node ${doc.node} has failed` : `node ${doc.node} is dead`;
  const aheadOr = (other: string) =>
    ahead === undefined ? other : `container ${ahead.name}, which has to be on the same node,`;
  const [first] = doc.volumes.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  if (first !== undefined) {
    const volume = volumes.get(first.id);
    if (volume === undefined || volume.trashed !== null) return { kind: 'none' };
    const place = ahead?.node ?? makerOf(volume, doc, facts);
    if (place !== me) return { kind: 'none' };
    const here = aheadOr(`volume ${first.name}`);
    const why =
      ahead === undefined && volume.owner !== me
        ? `${here} is on ${volume.owner}, whose controller is not at work`
        : `${here} is here now`;
    return unlessObstacles(doc, `${isLeft ? `${state}, and ` : ''}${why}`);
  }
  if (doc.failover !== 'auto') return { kind: 'none' };
  const since = facts.deadSinceMs.get(doc.node);
  // One that was taken out of the cluster is dead for ever.
  const deadMs = since === undefined ? (facts.nodes.has(doc.node) ? 0 : facts.guardMs) : facts.nowMs - since;
  const dead = [...facts.nodes.keys()].filter((node) => !alive.has(node)).length;
  const candidates = candidatesOf(doc, facts);
  const place = placeOf(doc, candidates, facts);
  if (isBraked(dead, facts.nodes.size) || (ahead?.node ?? place ?? candidates[0]) !== me) return { kind: 'none' };
  if (deadMs < facts.guardMs && !isPoolLost) return { kind: 'wait', ms: facts.guardMs - deadMs };
  if (ahead !== undefined) return unlessObstacles(doc, `${state}, and ${aheadOr('')} is here now`);
  // Where that will be its volumes decide. What does without it is not made to wait for ever.
  if (leader !== undefined) {
    const ms = facts.guardMs + leaderMsMax - deadMs;
    if (ms > 0) return { kind: 'wait', ms };
    if (hasLinks(doc))
      return {
        kind: 'refused',
        why: `${state}, and so far no node has taken over container ${leader.name}, which it is linked with`,
      };
  }
  if (place !== undefined) return unlessObstacles(doc, state);
  return {
    kind: 'refused',
    why: `${state}, but no other node has room for it: ${clashesAt(me, doc, facts).join('; ')}`,
  };
}

/**
 * Who makes a container where its volume is now: that node. Where for long nobody there could, the best of those that have copies: the
 * volume follows the container, as it does when a person starts one there.
 */
function makerOf(
  { owner, replicas }: Pick<VolumeDoc, 'owner' | 'replicas'>,
  doc: WorkloadDoc,
  facts: FollowFacts,
): NodeName {
  const since = facts.silentSinceMs.get(owner);
  const isSilent = since !== undefined && facts.nowMs - since > silentMsMin;
  if (!isSilent || owner === doc.node || !facts.alive.has(owner)) return owner;
  return candidatesOf(doc, facts).find((node) => replicas.includes(node)) ?? owner;
}

/** After the guard, until people are told that something waits, or it goes where it likes. */
const leaderMsMax = 30_000;

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

/** The nodes that should have a workload's image before they need it: where copies of its volumes are, or of what goes with it, or where it would go. */
export function imageNodesOf(
  doc: WorkloadDoc,
  facts: Pick<FollowFacts, 'nodes' | 'alive' | 'silentSinceMs' | 'nowMs' | 'workloadsOn' | 'sharers'> & {
    readonly volumes: ReadonlyMap<DatasetId, Pick<VolumeDoc, 'owner' | 'replicas'>>;
  },
): readonly NodeName[] {
  if (doc.obstacles.length > 0) return [];
  const volumes = [doc, ...sharingWith(doc, facts.sharers)].flatMap((one) => one.volumes);
  if (volumes.length === 0) {
    // A controller that is just restarted is no reason to bring an image to yet another node.
    const silentSinceMs = new Map(
      [...facts.silentSinceMs].filter(([, sinceMs]) => facts.nowMs - sinceMs > silentMsMin),
    );
    if (doc.failover !== 'auto') return [];
    const place = placeOf(doc, candidatesOf(doc, { ...facts, silentSinceMs }), facts);
    return place === undefined ? [] : [place];
  }
  const nodes = volumes.flatMap(({ id }) => {
    const volume = facts.volumes.get(id);
    return volume === undefined ? [] : [volume.owner, ...volume.replicas];
  });
  return [...new Set(nodes)].filter((node) => node !== doc.node);
}

/** A controller that is just restarted has not gone. */
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
