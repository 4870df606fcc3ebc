import type { VolumeDoc } from './cluster.ts';
import type { DrainNodeView } from './controller-api.ts';
import { hasStoppedInVain, isOver, type MoveDoc } from './move.ts';
import { groupOf } from './move-group.ts';
import { limitsFor, type PlanFacts } from './move-plan.ts';
import { type Choice, chooseTarget, chooseVolumeTarget } from './move-target.ts';
import type { DatasetId, NodeName } from './names.ts';
import { prepareNodes } from './node-index.ts';
import { placeReplicas } from './placement.ts';
import { formatDuration } from './quantity.ts';
import type { WorkloadDoc } from './workload.ts';

/** What is still on a node that is being drained, and what to do about it next. Pure. */
export type DrainFacts = PlanFacts & {
  readonly moves: readonly MoveDoc[];
  /** Wall clock. */
  readonly nowMs: number;
  /** Where volumes that nothing uses could lately not be handed over to. */
  readonly failedTargets?: ReadonlyMap<DatasetId, ReadonlySet<NodeName>>;
};

export type DrainStep = {
  /** To be begun now, each a group of its own. */
  readonly moves: readonly { readonly group: readonly WorkloadDoc[]; readonly to: NodeName }[];
  /** To be handed over next, when no move is left to be begun. */
  readonly volumes: readonly { readonly volume: VolumeDoc; readonly to: NodeName }[];
};

/** Each move takes a share of the network, and of the patience of those who wait for it. */
const movesMax = 2;
/** After a move that has failed, the next one. */
export const drainAgainMs = 60_000;
/** After one that has stopped it. */
const lateMs = 600_000;

type Group = {
  readonly workloads: readonly WorkloadDoc[];
  readonly state: 'moving' | 'waiting' | 'blocked';
  /** Why it waits or is blocked; the step of its move. */
  readonly text: string;
  readonly to: NodeName | null;
};

export function decideDrain(node: NodeName, facts: DrainFacts): DrainStep {
  const groups = groupsOn(node, facts);
  const free = Math.max(0, movesMax - openMoves(node, facts).length);
  const ready = groups.flatMap(({ state, workloads, to, text }) =>
    state === 'waiting' && text === '' && to !== null ? [{ group: workloads, to }] : [],
  );
  const isMoving = ready.length > 0 || groups.some(({ state }) => state === 'moving');
  const volumes = isMoving
    ? []
    : idleVolumes(node, facts).flatMap((volume) => {
        const { node: to } = chooseOtherForVolume(volume, facts);
        return to === null ? [] : [{ volume, to }];
      });
  return { moves: ready.slice(0, free), volumes };
}

export function viewDrain(
  node: NodeName,
  facts: DrainFacts,
  told: { readonly startedAtMs: number | null; readonly problems: readonly string[] },
): DrainNodeView {
  const { nodes, volumes, workloads } = facts;
  const doc = nodes.find(({ name }) => name === node);
  const groups = groupsOn(node, facts);
  const running = groups.flatMap(({ workloads: members, state, text }) =>
    members.map(({ name }) => ({ name, state: text === '' ? state : `${state}: ${text}` })),
  );
  const grouped = new Set(groups.flatMap(({ workloads: members }) => members.map(({ id }) => id)));
  const resting = workloads
    .filter(({ id, node: home }) => home === node && !grouped.has(id))
    .map(({ name }) => ({ name, state: 'stopped, stays' }));
  const owned = volumes.filter(({ owner, trashed }) => owner === node && trashed === null);
  const idle = new Set(idleVolumes(node, facts).map(({ id }) => id));
  const copied = volumes.filter(({ replicas }) => replicas.includes(node));
  const trashed = volumes.filter((volume) => volume.owner === node && volume.trashed !== null).length;
  const choices = owned.map((volume) => ({ volume, choice: chooseVolumeTarget(volume, nodes) }));
  return {
    node,
    draining: doc?.draining === true,
    cordoned: doc?.cordoned === true,
    startedAtMs: told.startedAtMs,
    containers: [...running, ...resting],
    volumes: choices.map(({ volume, choice }) => {
      if (!idle.has(volume.id)) return { name: volume.name, state: 'goes with its container' };
      return { name: volume.name, state: choice.node === null ? 'blocked' : `goes to ${choice.node}` };
    }),
    copies: copied.map(({ name }) => name),
    problems: [
      ...(doc?.alive === false
        ? [`${node} is dead: what is on it can only be brought up elsewhere by a failover`]
        : []),
      ...new Set([
        ...groups
          .filter(({ state }) => state === 'blocked')
          .map(({ workloads: [first], text }) => `${first?.name}: ${text}`),
        ...choices.flatMap(({ volume, choice }) =>
          idle.has(volume.id) && choice.node === null ? [`volume ${volume.name}: ${choice.reason}`] : [],
        ),
        ...(doc?.draining === true ? copyProblems(copied, facts) : []),
        ...told.problems,
      ]),
    ],
    stays: [
      ...resting.map(({ name }) => `container ${name}, which is stopped`),
      ...(trashed === 0 ? [] : [`${trashed} removed ${trashed === 1 ? 'volume' : 'volumes'} in its trash`]),
    ],
    done: running.length === 0 && owned.length === 0 && copied.length === 0,
  };
}

/** Why copies stay: the owners of the volumes find no other place for them. As far as can be told without asking the owners. */
function copyProblems(copied: readonly VolumeDoc[], { nodes, nowMs }: DrainFacts): readonly string[] {
  const index = prepareNodes(nodes);
  const reasons = copied.flatMap(({ id, name, owner, options, replicas }) => {
    const inSync = replicas.map((replica) => ({ node: replica, inSync: true }));
    const { problems } = placeReplicas({
      volume: { id, owner, options, usedBytes: 0, replicas: inSync },
      nodes: index,
      nowMs,
    });
    return problems.map((problem) => ({ name, problem }));
  });
  return [...Map.groupBy(reasons, ({ problem }) => problem)].map(([problem, found]) => {
    const names = found.slice(0, namedMax).map(({ name }) => name);
    const more = found.length > namedMax ? ` and ${found.length - namedMax} more` : '';
    return `the copies of ${names.join(', ')}${more} stay: ${problem}; another node there would do ("flockctl join"), and for a reboot they may stay`;
  });
}

const namedMax = 8;

/** What runs there, and what hangs together with it. */
function groupsOn(node: NodeName, facts: DrainFacts): readonly Group[] {
  const seen = new Set<string>();
  const running = facts.workloads.filter((workload) => workload.node === node && workload.wanted === 'running');
  return running.flatMap((workload): Group[] => {
    if (seen.has(workload.id)) return [];
    const workloads = groupOf([workload], facts.workloads);
    for (const { id } of workloads) seen.add(id);
    return [groupOfNow(workloads, facts)];
  });
}

function groupOfNow(workloads: readonly WorkloadDoc[], facts: DrainFacts): Group {
  const ids = new Set(workloads.map(({ id }) => id));
  const moves = facts.moves.filter(({ members }) => members.some(({ workload }) => ids.has(workload)));
  const open = moves.find((move) => !isOver(move));
  if (open !== undefined) return { workloads, state: 'moving', text: `to ${open.to}, ${open.step}`, to: open.to };
  const choice = chooseOther(workloads, moves, facts);
  if (choice.node === null) return { workloads, state: 'blocked', text: choice.reason, to: null };
  const failed = moves.find(({ failure, stepSinceMs }) => failure !== null && facts.nowMs - stepSinceMs < drainAgainMs);
  if (failed?.failure == null) return { workloads, state: 'waiting', text: '', to: choice.node };
  return {
    workloads,
    state: 'waiting',
    text: `tried again in a minute, move ${failed.id} has failed: ${failed.failure.reason}`,
    to: choice.node,
  };
}

function chooseOtherForVolume(volume: VolumeDoc, { nodes, failedTargets }: DrainFacts): Choice {
  const failed = failedTargets?.get(volume.id);
  const best = chooseVolumeTarget(
    volume,
    nodes.filter(({ name }) => failed?.has(name) !== true),
  );
  return best.node === null ? chooseVolumeTarget(volume, nodes) : best;
}

/**
 * Where it has failed lately it would fail again, so others are tried first. Where it was stopped for nothing, it is not tried again for
 * some time: a service is not to be stopped every minute for as long as a drain lasts.
 */
function chooseOther(workloads: readonly WorkloadDoc[], moves: readonly MoveDoc[], facts: DrainFacts): Choice {
  const lately = moves
    .filter(({ from }) => from === workloads[0]?.node)
    .filter(({ failure, stepSinceMs }) => failure !== null && facts.nowMs - stepSinceMs < lateMs)
    .toSorted((a, b) => b.stepSinceMs - a.stepSinceMs);
  const inVain = lately.filter(hasStoppedInVain);
  const limits = limitsFor(workloads);
  const without = (bad: readonly MoveDoc[]) => {
    const nodes = facts.nodes.filter(({ name }) => !bad.some(({ to }) => to === name));
    return chooseTarget(workloads.slice(0, 1), limits, { ...facts, nodes });
  };
  const best = without(lately);
  if (best.node !== null) return best;
  const [last] = inVain;
  const next = without(inVain);
  if (next.node !== null || last === undefined) return next;
  return {
    node: null,
    reason: `move ${last.id} to ${last.to} has stopped it and failed: ${last.failure?.reason}; tried again ${formatDuration(lateMs)} after that`,
  };
}

function openMoves(node: NodeName, { moves }: DrainFacts): readonly MoveDoc[] {
  return moves.filter((move) => move.from === node && !isOver(move));
}

/** Volumes that no container that is to run has, and no move takes along. */
function idleVolumes(node: NodeName, facts: DrainFacts): readonly VolumeDoc[] {
  const running = facts.workloads.filter(({ wanted, move }) => wanted === 'running' || move !== null);
  const used = new Set<DatasetId>([
    ...running.flatMap(({ volumes }) => volumes.map(({ id }) => id)),
    ...facts.moves.filter((move) => !isOver(move)).flatMap(({ volumes }) => volumes.map(({ id }) => id)),
  ]);
  return facts.volumes.filter(({ id, owner, trashed }) => owner === node && trashed === null && !used.has(id));
}
