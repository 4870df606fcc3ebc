import { clashesOf } from './clashes.ts';
import type { VolumeDoc } from './cluster.ts';
import { FlockError } from './errors.ts';
import { formatLabels } from './labels.ts';
import { type MoveLimits, moveLimitsDefault } from './move.ts';
import { findAsked, groupOf } from './move-group.ts';
import { type NodeName, quote } from './names.ts';
import { nearNames } from './near-names.ts';
import { meetsConditions, type PlacementNode } from './node-index.ts';
import { heldMsMax } from './proxy-api.ts';
import { formatDuration } from './quantity.ts';
import type { WorkloadDoc, WorkloadVolume } from './workload.ts';

/** What a move would do, and what keeps it from being done, from what the store says. Pure. */
export type MovePlan = {
  /** As it was asked for. */
  readonly service: string;
  readonly from: NodeName;
  readonly to: NodeName;
  /** In the order in which they are started. */
  readonly workloads: readonly WorkloadDoc[];
  readonly volumes: readonly WorkloadVolume[];
  /** What is paused: services with routes or links, of containers that run. */
  readonly services: readonly string[];
  readonly limits: MoveLimits;
  /** Why it would be refused; each names the way out. */
  readonly obstacles: readonly string[];
};

export type PlanNode = PlacementNode & {
  /** Whether its controller is at work. */
  readonly controller: boolean;
};

/** What the store says. */
export type PlanFacts = {
  readonly workloads: readonly WorkloadDoc[];
  readonly volumes: readonly VolumeDoc[];
  readonly nodes: readonly PlanNode[];
  /** Services that routes or links lead to. */
  readonly routed: ReadonlySet<string>;
};

export type PlanRequest = { readonly service: string; readonly to: string; readonly limits: MoveLimits };

/** Of the pause, for everything but the containers' own stopping: last difference, transaction, start. */
export const pauseReserveMs = 5_000;
const pauseMsMin = 5_000;
/** Until all nodes hold requests. */
const acknowledgedMs = 3_000;
/** A longer one would keep clients waiting that have given up. */
export const movePauseMsMax = 120_000;
/** Of preparing and of copying. */
const stepMsMin = 1_000;
/** Timers of Node.js end before 25 days. */
const stepMsMax = 20 * 86_400_000;

/**
 * The commit is one transaction of the store, which holds 64 operations and 352 KiB; what the plugin adds for a volume counts. It takes 256 KiB
 * from others (plugin/server/moving-api.ts), of which the record of the move needs some. Whatever is beyond would be refused only when all is stopped.
 */
const operationsPerVolume = 4;
const operationsMax = 56;
const documentsBytesMax = 216 * 1024;

/** Throws for names that mean nothing (`service-not-found`, `node-not-found`), several things (`move-refused`), and for bad times. */
export function planMove({ service, to, limits }: PlanRequest, facts: PlanFacts): MovePlan {
  checkLimits(limits);
  const asked = findAsked(service, facts.workloads);
  const target = facts.nodes.find(({ name }) => name === to);
  if (target === undefined) throw nodeNotFound(to, facts.nodes);
  return planGroup({ service, asked, target, limits }, facts);
}

/** As planMove, for a group that is known already. */
export function planGroup(
  request: {
    readonly service: string;
    readonly asked: readonly WorkloadDoc[];
    readonly target: PlanNode;
    readonly limits: MoveLimits;
  },
  facts: PlanFacts,
): MovePlan {
  const { service, asked, target, limits } = request;
  const workloads = groupOf(asked, facts.workloads);
  const from = asked[0]?.node;
  if (from === undefined)
    throw new FlockError('service-not-found', `there is no container to move for ${quote(service)}`);
  const volumes = volumesOf(workloads).filter((volume) => !isGoneAlready(volume, from, workloads, facts));
  const source = facts.nodes.find(({ name }) => name === from);
  return {
    service,
    from,
    to: target.name,
    workloads,
    volumes,
    services: servicesToPause(workloads, facts.routed),
    limits,
    obstacles: [
      ...nodeObstacles(from, source, target, volumes.length > 0),
      ...controllerObstacles(source, target),
      ...workloads.flatMap((workload) => workloadObstacles(workload, workloads, facts, target)),
      ...stopObstacles(workloads, limits),
      ...volumes.flatMap((volume) => volumeObstacles(volume, from, target, facts.volumes)),
      ...sizeObstacles(workloads, volumes.length),
    ],
  };
}

export function volumesOf(workloads: readonly WorkloadDoc[]): readonly WorkloadVolume[] {
  return [...new Map(workloads.flatMap(({ volumes }) => volumes).map((volume) => [volume.id, volume])).values()];
}

/** Of stopped containers only, and on another node: an idle volume goes to where it is mounted, whenever that is. */
function isGoneAlready(
  { id }: WorkloadVolume,
  from: NodeName,
  group: readonly WorkloadDoc[],
  facts: Pick<PlanFacts, 'volumes'>,
): boolean {
  const doc = facts.volumes.find((one) => one.id === id);
  if (doc === undefined || doc.owner === from || doc.trashed !== null) return false;
  return runningOf(group).every(({ volumes }) => volumes.every((volume) => volume.id !== id));
}

export function servicesToPause(workloads: readonly WorkloadDoc[], routed: ReadonlySet<string>): readonly string[] {
  const names = workloads.filter(({ wanted }) => wanted === 'running').map(({ service }) => service);
  return [...new Set(names)].filter((name) => name !== null).filter((name) => routed.has(name));
}

function checkLimits({ prepareMs, copyMs, pauseMs, drainMs }: MoveLimits): void {
  checkTime(pauseMs, { min: pauseMsMin, max: movePauseMsMax, what: 'a pause', option: '--timeout' });
  checkTime(copyMs, { min: stepMsMin, max: stepMsMax, what: 'a copying', option: '--copy-timeout' });
  // flockctl has no option for it.
  checkTime(prepareMs, { min: stepMsMin, max: stepMsMax, what: 'a preparing', option: 'prepareMs' });
  if (drainMs > pauseMs)
    throw new FlockError(
      'invalid-option',
      `a drain of ${formatDuration(drainMs)} is longer than the pause of ${formatDuration(pauseMs)}: use a shorter --drain or a longer --timeout`,
    );
}

function checkTime(
  ms: number,
  { min, max, what, option }: Readonly<{ min: number; max: number; what: string; option: string }>,
): void {
  if (ms >= min && ms <= max) return;
  throw new FlockError(
    'invalid-option',
    `${what} of ${formatDuration(ms)} can't be: use from ${formatDuration(min)} to ${formatDuration(max)} (${option})`,
  );
}

/** What is given to draining: half of the pause at most, and what the longest stop needs stays. */
export function drainMsOf({ pauseMs, drainMs }: MoveLimits, workloads: readonly WorkloadDoc[]): number {
  return Math.max(0, Math.min(drainMs, pauseMs / 2, pauseMs - stopMsOf(workloads) - pauseReserveMs));
}

/** For moves that nobody gives a time: all stops have their place in the pause, one after the other, as far as any pause may go. */
export function limitsFor(workloads: readonly WorkloadDoc[]): MoveLimits {
  const { pauseMs, drainMs } = moveLimitsDefault;
  const stopsMs = runningOf(workloads).reduce((sum, { spec }) => sum + 1000 * spec.stopSeconds, 0);
  const neededMs = acknowledgedMs + drainMs + stopsMs + pauseReserveMs;
  return { ...moveLimitsDefault, pauseMs: Math.min(movePauseMsMax, Math.max(pauseMs, neededMs)) };
}

function runningOf(workloads: readonly WorkloadDoc[]): readonly WorkloadDoc[] {
  return workloads.filter(({ wanted }) => wanted === 'running');
}

function stopMsOf(workloads: readonly WorkloadDoc[]): number {
  return 1000 * Math.max(0, ...runningOf(workloads).map(({ spec }) => spec.stopSeconds));
}

export function nodeObstacles(
  from: NodeName,
  source: PlanNode | undefined,
  target: PlanNode,
  hasVolumes: boolean,
): readonly string[] {
  const { name } = target;
  if (name === from) return [`it is on ${name} already`];
  const obstacles: string[] = [];
  const add = (is: boolean, obstacle: string) => void (is && obstacles.push(obstacle));
  add(
    source?.alive !== true,
    `${from}, where it is, is dead: only a failover can bring it back ("flockctl failover VOLUME"; without volumes it waits for that node)`,
  );
  add(!target.alive, `${name} is dead: "flockctl node ls" shows who is up`);
  add(target.draining, `${name} is being drained: "flockctl node undrain ${name}" first, or another node`);
  add(
    target.cordoned && !target.draining,
    `${name} is cordoned: "flockctl node uncordon ${name}" first, or another node`,
  );
  for (const { name: node, poolLost } of source === undefined ? [target] : [source, target])
    add(hasVolumes && poolLost === true, `the pool of ${node} has failed: "flockctl events" says why`);
  add(
    hasVolumes && source !== undefined && source.format !== target.format,
    `${name} keeps volumes on ${target.format}, ${from} on ${source?.format}: these can't be exchanged`,
  );
  return obstacles;
}

/** Containers are made, stopped and started by the controllers of both nodes. */
function controllerObstacles(source: PlanNode | undefined, target: PlanNode): readonly string[] {
  const silent = [source, target].filter((node) => node?.alive === true && !node.controller);
  return silent.map(
    (node) =>
      `the controller of ${node?.name} is not at work: "docker ps -a --filter name=flock-controller" there shows why ("make up" starts it)`,
  );
}

function workloadObstacles(
  workload: WorkloadDoc,
  group: readonly WorkloadDoc[],
  facts: PlanFacts,
  target: PlanNode,
): readonly string[] {
  const { name, move } = workload;
  const obstacles = workload.obstacles.map((obstacle) => `container ${name}: ${obstacle}`);
  if (move !== null) obstacles.push(`container ${name} is part of move ${move}: "flockctl moves show ${move}"`);
  if (workload.containerId === null)
    obstacles.push(
      `container ${name} has still to be made on ${workload.node}: "flockctl events" says what it waits for`,
    );
  const there = facts.workloads.filter((one) => one.node === target.name && !group.includes(one));
  return [...obstacles, ...clashesOf(workload, there, target.name)];
}

/** Of several, which are stopped one after the other, the longest: that each takes all of its time at once is not to be expected. */
function stopObstacles(workloads: readonly WorkloadDoc[], { pauseMs }: MoveLimits): readonly string[] {
  return runningOf(workloads).flatMap(({ name, spec }) => {
    const stopMs = 1000 * spec.stopSeconds;
    const neededMs = stopMs + pauseReserveMs;
    if (neededMs <= pauseMs) return [];
    const way =
      neededMs <= movePauseMsMax
        ? `use --timeout ${formatDuration(neededMs)} or longer`
        : `no pause is longer than ${formatDuration(movePauseMsMax)}, so it needs a shorter --stop-timeout`;
    return [
      `container ${name} may take ${formatDuration(stopMs)} to stop, and the pause is ${formatDuration(pauseMs)}: ${way}`,
    ];
  });
}

/** What is no reason against it, and would surprise. */
export function planWarnings({ services, limits }: MovePlan): readonly string[] {
  if (services.length === 0 || limits.pauseMs <= heldMsMax) return [];
  return [
    `the pause may last ${formatDuration(limits.pauseMs)}, but no request waits longer than ${formatDuration(heldMsMax)}: those that would are answered with 503`,
  ];
}

export function volumeObstacles(
  { id, name }: WorkloadVolume,
  from: NodeName,
  target: PlanNode,
  volumes: readonly VolumeDoc[],
): readonly string[] {
  const doc = volumes.find((one) => one.id === id);
  if (doc === undefined) return [`the cluster does not know volume ${name} (yet): "flockctl volume ls"`];
  if (doc.trashed !== null) return [`volume ${name} is in the trash: "flockctl trash restore" brings it back`];
  if (doc.owner !== from) return [`volume ${name} belongs to ${doc.owner}, not to ${from}`];
  const { nodes, locality } = doc.options;
  if (!meetsConditions(target, { nodes, locality: null }))
    return [`volume ${name} is to be on ${nodes?.join(', ')} only (its option nodes)`];
  if (!meetsConditions(target, doc.options))
    return [
      `volume ${name} is to be on nodes with ${formatLabels(locality ?? {})}, which ${target.name} does not have (its option locality)`,
    ];
  return [];
}

function sizeObstacles(workloads: readonly WorkloadDoc[], volumes: number): readonly string[] {
  const utf8 = new TextEncoder();
  const bytes = workloads.reduce((sum, workload) => sum + utf8.encode(JSON.stringify(workload)).length, 0);
  if (operationsPerVolume * volumes + workloads.length <= operationsMax && bytes <= documentsBytesMax) return [];
  return [
    `${workloads.length} containers with ${volumes} volumes hang together, more than can change hands at once: take some of the shared volumes, --volumes-from or --link away`,
  ];
}

export function nodeNotFound(name: string, nodes: readonly { readonly name: string }[]): FlockError {
  const near = nearNames(
    name,
    nodes.map((node) => node.name),
  );
  const hint = near.length > 0 ? `did you mean ${near.join(' or ')}?` : '"flockctl node ls" shows them';
  return new FlockError('node-not-found', `the cluster has no node ${quote(name)}: ${hint}`, { near });
}
