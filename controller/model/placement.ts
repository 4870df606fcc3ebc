import { hashText } from './hash.ts';
import type { DatasetId, NodeName } from './names.ts';
import { costOf, type IndexedNode, meetsConditions, type NodeGroup, type NodeIndex, pickNode } from './node-index.ts';
import type { VolumeOptions } from './options.ts';
import { explainMissing } from './placement-problems.ts';

export type PlacementVolume = {
  readonly id: DatasetId;
  readonly owner: NodeName;
  readonly options: Pick<VolumeOptions, 'replicas' | 'remoteReplicas' | 'nodes' | 'locality'>;
  readonly usedBytes: number;
  /** As they are now, none twice. inSync: the copy is complete and not behind by more than replication's usual lag. */
  readonly replicas: readonly { readonly node: NodeName; readonly inSync: boolean }[];
};

export type PlacementInput = {
  readonly volume: PlacementVolume;
  /** Of prepareNodes; it holds the limits too. */
  readonly nodes: NodeIndex;
  readonly nowMs: number;
};

export type PlacementStep = { readonly kind: 'add' | 'remove'; readonly node: NodeName; readonly reason: string };

export type Placement = {
  /** Where the copies are to be when all is done, as far as that is known now. */
  readonly replicas: readonly NodeName[];
  /** What to do now: one step at most. Ask again when it is done. */
  readonly steps: readonly PlacementStep[];
  /** What is to be done later; untilMs null: when the reason ends. */
  readonly waiting: readonly { readonly reason: string; readonly untilMs: number | null }[];
  /** What can't be done, and why. */
  readonly problems: readonly string[];
};

type Member = {
  readonly node: IndexedNode;
  readonly inSync: boolean;
  /** grace: dead, but not for long. */
  readonly state: 'living' | 'grace' | 'dead';
};

type Tier = { readonly name: 'local' | 'remote'; readonly wanted: number; readonly members: readonly Member[] };

const nothing: readonly never[] = [];

/**
 * Where the copies of a volume belong: `replicas` of them in the owner's data center, in racks of their own where there are enough,
 * and `remote-replicas` in other data centers, each in another one where there are enough (docs/design.md, "Placement").
 *
 * Copies stay where they are unless the volume's conditions or the stream format forbid it, their node is drained or they are too
 * many: a better place is no reason to send a volume through the network. So are a full pool and a cordon: they only keep new copies away. A dead node is
 * waited for before another copy is made, unless no living up-to-date copy is left. Something is taken away only when everything
 * that stays is up to date.
 *
 * Free space is as the nodes last told: whoever receives a copy must check again, for many volumes may have chosen it at once.
 */
export function placeReplicas(input: PlacementInput): Placement {
  const { volume, nodes } = input;
  const owner = nodes.byName.get(volume.owner);
  if (owner === undefined) {
    const problem = `the owner ${volume.owner} is not a node of the cluster`;
    return { replicas: volume.replicas.map(({ node }) => node), steps: [], waiting: [], problems: [problem] };
  }
  if (isSettled(volume, nodes, owner))
    return { replicas: volume.replicas.map(({ node }) => node), steps: nothing, waiting: nothing, problems: nothing };
  return decide(input, owner);
}

function wantedOf(options: PlacementVolume['options'], { limits }: NodeIndex) {
  return { local: options.replicas ?? limits.localDefault, remote: options.remoteReplicas ?? limits.remoteDefault };
}

/** Whether a copy may be there at all. */
function mayHold(node: IndexedNode, owner: IndexedNode, options: PlacementVolume['options']): boolean {
  return !node.doc.draining && node.doc.format === owner.doc.format && meetsConditions(node.doc, options);
}

/** The usual case: all that is wanted is there and lives. */
function isSettled({ replicas, options }: PlacementVolume, nodes: NodeIndex, owner: IndexedNode): boolean {
  const wanted = wantedOf(options, nodes);
  if (replicas.length !== wanted.local + wanted.remote) return false;
  let local = 0;
  for (const replica of replicas) {
    const node = nodes.byName.get(replica.node);
    if (node === undefined || node === owner || !node.doc.alive || !mayHold(node, owner, options)) return false;
    if (node.dc === owner.dc) local += 1;
  }
  return local === wanted.local;
}

function decide({ volume, nodes, nowMs }: PlacementInput, owner: IndexedNode): Placement {
  const { limits } = nodes;
  const { options } = volume;
  // An owner that is named among the replicas (it was one until a handoff) has no copy that could be taken away: it is left out.
  const present = volume.replicas.filter(({ node }) => node !== volume.owner);
  const gone = present.filter(({ node }) => !nodes.byName.has(node)).map(({ node }) => node);
  const members = present.flatMap(({ node: name, inSync }): Member[] => {
    const node = nodes.byName.get(name);
    if (node === undefined) return [];
    if (node.doc.alive) return [{ node, inSync, state: 'living' }];
    const isGrace = nowMs - (node.doc.deadSinceMs ?? nowMs) < limits.graceMs;
    return [{ node, inSync: false, state: isGrace ? 'grace' : 'dead' }];
  });
  const [allowed, forbidden] = split(members, ({ node }) => mayHold(node, owner, options));
  const [local, remote] = split(allowed, ({ node }) => node.dc === owner.dc);
  const wanted = wantedOf(options, nodes);
  const tiers: readonly Tier[] = [
    { name: 'local', wanted: wanted.local, members: local },
    { name: 'remote', wanted: wanted.remote, members: remote },
  ];
  const urgent = members.some(({ state }) => state !== 'living') && !members.some(({ inSync }) => inSync);
  const braked = nodes.deadShare > limits.deadShareMax;

  const waiting: { reason: string; untilMs: number | null }[] = [];
  const problems: string[] = [];
  const additions: PlacementStep[] = [];
  const surplus: Member[] = [];
  const taken = [owner, ...members.map(({ node }) => node)];
  let urgentLeft = urgent ? 1 : 0;
  for (const tier of tiers) {
    const graced = tier.members.filter(({ state }) => state === 'grace');
    const dead = tier.members.filter(({ state }) => state === 'dead');
    const held = tier.members.length - dead.length;
    const short = Math.max(0, tier.wanted - held);
    const hurried = short === 0 && graced.length > 0 && held === tier.wanted ? urgentLeft : 0;
    const missing = short + hurried;
    if (missing > 0) urgentLeft = 0;
    if (held <= tier.wanted)
      waiting.push(...graced.slice(hurried).map((member) => graceOf(member, limits.graceMs, nowMs)));
    const picks: IndexedNode[] = [];
    while (picks.length < missing && !braked && owner.doc.alive) {
      const node = pick(volume, nodes, owner, tier.name, taken);
      if (node === null) {
        problems.push(explainMissing({ volume, nodes, owner, tier, missing: missing - picks.length, taken }));
        break;
      }
      picks.push(node);
      taken.push(node);
    }
    const reason = addReason(tier, urgent, [...dead, ...graced]);
    additions.push(...picks.map((node): PlacementStep => ({ kind: 'add', node: node.doc.name, reason })));
    surplus.push(...weakest(tier, tier.members.length + picks.length - tier.wanted, volume, owner));
    if (missing > 0 && !owner.doc.alive) waiting.push({ reason: `the owner ${volume.owner} is dead`, untilMs: null });
    else if (missing > 0 && braked) waiting.push({ reason: brakeText(nodes), untilMs: null });
  }

  const leaving = new Set([...forbidden, ...surplus]);
  const staying = members.filter((member) => !leaving.has(member));
  const replicas = [...staying.map(({ node }) => node.doc.name), ...additions.map(({ node }) => node)];
  const answer = (step: PlacementStep | null): Placement => {
    return { replicas, steps: step === null ? [] : [step], waiting, problems };
  };

  const [addition] = additions;
  if (addition !== undefined) {
    const filling = staying.find(({ state, inSync }) => state === 'living' && !inSync);
    if (filling === undefined || urgent) return answer(addition);
    waiting.push({
      reason: `${filling.node.doc.name} is not up to date yet; one copy changes at a time`,
      untilMs: null,
    });
  }
  const [lost] = gone;
  if (lost !== undefined) return answer({ kind: 'remove', node: lost, reason: 'it is not a node of the cluster' });
  const [leaver] = leaving;
  if (leaver === undefined) return answer(null);
  const node = leaver.node.doc.name;
  const isSafe = staying.every(({ inSync }) => inSync) && (staying.length > 0 || wanted.local + wanted.remote === 0);
  if (additions.length === 0 && isSafe && !braked && owner.doc.alive) {
    const reason = surplus.includes(leaver) ? 'more copies than wanted' : forbiddenReason(leaver, owner);
    return answer({ kind: 'remove', node, reason });
  }
  waiting.push({ reason: `the copy on ${node} stays until the others are up to date`, untilMs: null });
  return answer(null);
}

function pick(
  volume: PlacementVolume,
  nodes: NodeIndex,
  owner: IndexedNode,
  tier: Tier['name'],
  taken: readonly IndexedNode[],
): IndexedNode | null {
  const { options, usedBytes } = volume;
  const volumeSeed = hashText(volume.id);
  const from = (groups: readonly NodeGroup[]) => pickNode({ volumeSeed, usedBytes, taken, groups });
  const groups = nodes.groups(owner.doc.format, options).filter(({ dc }) => (dc === owner.dc) === (tier === 'local'));
  if (tier === 'local') return from(groups);
  return from(groups.filter(({ dc }) => !taken.some((node) => node.dc === dc))) ?? from(groups);
}

/** Members that go first where there are too many: dead, behind, cordoned or drained, not alone in their data center or rack. */
function weakest(tier: Tier, count: number, volume: PlacementVolume, owner: IndexedNode): readonly Member[] {
  const seed = hashText(volume.id);
  const rest = [...tier.members];
  const chosen: Member[] = [];
  while (chosen.length < count && rest.length > 0) {
    const badness = ({ node, inSync, state }: Member) => {
      const others = [owner, ...rest.map((member) => member.node)].filter((other) => other !== node);
      const flags = [
        state === 'dead',
        state === 'grace',
        !inSync,
        node.doc.cordoned || node.doc.draining,
        tier.name === 'remote' && others.some((other) => other.dc === node.dc),
        others.some((other) => other.rack === node.rack),
      ];
      return flags.reduce((sum, flag) => 2 * sum + Number(flag), 0);
    };
    const [worst] = rest.toSorted((a, b) => badness(b) - badness(a) || costOf(seed, b.node) - costOf(seed, a.node));
    if (worst === undefined) break;
    chosen.push(worst);
    rest.splice(rest.indexOf(worst), 1);
  }
  return chosen;
}

function addReason(tier: Tier, urgent: boolean, dead: readonly Member[]): string {
  const names = dead.map(({ node }) => node.doc.name).join(', ');
  if (urgent) return `${names === '' ? 'a node' : names} is dead and no living copy is up to date`;
  if (names !== '' && tier.members.length >= tier.wanted) return `${names} is dead for too long`;
  return `${tier.wanted} ${tier.name} copies are wanted`;
}

function forbiddenReason({ node }: Member, owner: IndexedNode): string {
  if (node.doc.draining) return 'its node is being drained';
  return node.doc.format === owner.doc.format
    ? "the volume's nodes or locality do not allow it there"
    : `its node keeps volumes on ${node.doc.format}, the owner on ${owner.doc.format}`;
}

function graceOf({ node }: Member, graceMs: number, nowMs: number) {
  const reason = `${node.doc.name} is dead; it may come back before another copy is made`;
  return { reason, untilMs: (node.doc.deadSinceMs ?? nowMs) + graceMs };
}

function brakeText({ deadShare, limits }: NodeIndex): string {
  const percent = (share: number) => Math.round(100 * share);
  return `${percent(deadShare)} % of the nodes look dead, more than ${percent(limits.deadShareMax)} %: rather the network, so nothing is added`;
}

function split<T>(items: readonly T[], test: (item: T) => boolean): readonly [readonly T[], readonly T[]] {
  return [items.filter(test), items.filter((item) => !test(item))];
}
