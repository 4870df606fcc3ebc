import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { messageOf } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import { useGraceMs } from '../../plugin/uses.ts';
import { Violation } from './checks.ts';
import { ask, dockerRun, dockerStop } from './docker.ts';
import type { Workload } from './workload.ts';
import type { World } from './world.ts';

/** What everything must come to when all faults are over. */
const limitMs = 150_000;
const lookMs = 500;
/** One, or two while the next is on its way. */
const heldMaxOfTag = 2;
/** Copies that nobody wants any more go late, so most runs don't wait for that. */
const thoroughShare = 0.2;
/** Of the runs. */
const movingShare = 0.3;
const moveMs = 20_000;

/** Tells `done` when it has come to that, or throws what is missing. */
export function watchConvergence(world: World, workload: Workload, done: () => void): void {
  const { scheduler } = world;
  const startedMs = scheduler.nowMs();
  const isThorough = world.random.chance(thoroughShare);
  const late = new Set(world.hosts);
  look();

  function look(): void {
    // A mount whose container is just starting must not look forgotten.
    for (const host of late) {
      if (host.starting.size > 0) continue;
      host.ageUses(useGraceMs);
      late.delete(host);
    }
    const missing = problems(world, isThorough);
    if (missing.length > 0) world.trace(() => `MISSING ${missing[0]}`);
    if (missing.length === 0) {
      const run = () => runEverywhere(world, workload, startedMs + limitMs, done);
      if (world.random.chance(movingShare)) moveIdle(world, startedMs + limitMs, run);
      else run();
      return;
    }
    if (scheduler.nowMs() - startedMs > limitMs)
      throw new Violation(`I7: after ${limitMs / 1000} s without faults: ${missing.join('; ')}`);
    scheduler.after(lookMs, look);
  }
}

function problems(world: World, isThorough: boolean): readonly string[] {
  const found: string[] = [];
  const docs = world.docs();
  for (const [id, { doc, session }] of docs) {
    const owner = world.host(doc.owner);
    const record = owner.file.records.get(id);
    if (session === null || session !== owner.file.facts.get('session'))
      found.push(`${id} is not locked by its owner ${doc.owner}`);
    if (record === undefined) {
      found.push(`${id} has no record on its owner ${doc.owner}`);
      continue;
    }
    if (record.epoch !== doc.epoch)
      found.push(`${id} has epoch ${record.epoch} on its owner ${doc.owner}, not ${doc.epoch}`);
    const wanted = doc.trashed === null ? 'ready' : 'trashed';
    if (record.phase.kind !== wanted)
      found.push(`${id} is ${record.phase.kind} on its owner ${doc.owner}, not ${wanted}`);
    if (doc.trashed !== null) continue;
    if (doc.replicas.length !== (doc.options.replicas ?? 1))
      found.push(`${id} has copies on ${doc.replicas.join(', ') || 'no node'}`);
    const copies = owner.process()?.agent()?.copies(id) ?? [];
    for (const node of doc.replicas) {
      const copy = copies.find((one) => one.node === node);
      if (copy?.state !== 'in-sync')
        found.push(`the copy of ${id} on ${node} is ${copy?.state ?? 'unknown'} (${copy?.problem})`);
    }
    for (const other of isThorough ? world.hosts.filter((host) => !host.isLost()) : []) {
      if (other === owner || doc.replicas.includes(other.name)) continue;
      const kind = other.file.records.get(id)?.phase.kind;
      if (kind !== undefined) found.push(`${other.name} has a dataset of ${id} (${kind}) that nobody lists`);
    }
  }
  for (const host of world.hosts) {
    // What its plugin was just doing may have left something in its state file.
    if (host.isLost()) continue;
    for (const { volume, isFrozen } of host.containers)
      if (isFrozen()) found.push(`a container of ${volume} on ${host.name} is frozen`);
    for (const [id, { phase }] of host.file.records) {
      if (phase.kind === 'creating' || phase.kind === 'rolling-back' || (isThorough && phase.kind === 'destroying'))
        found.push(`${id} on ${host.name} is still ${phase.kind}`);
      if (isThorough && phase.kind === 'replica' && !docs.has(id))
        found.push(`${host.name} has a copy of ${id}, which is no volume`);
    }
    // What a copy was just setting aside is finished when its owner looks at it: of what is in the trash, when it comes back or goes.
    const asides = new Set(
      [...host.file.records].flatMap(([id, { phase }]) =>
        phase.kind === 'replica' && phase.stashing !== null && docs.get(id)?.doc.trashed != null
          ? [phase.stashing.aside]
          : [],
      ),
    );
    for (const id of host.disk.datasets.keys())
      if (!host.file.records.has(id) && !asides.has(id))
        found.push(`${host.name} has a dataset ${id} without a record`);
    found.push(...leaks(world, host.name));
  }
  return found;
}

/** What would keep snapshots for ever. */
function leaks(world: World, node: World['hosts'][number]['name']): readonly string[] {
  const found: string[] = [];
  for (const [id, { snapshots }] of world.host(node).disk.datasets) {
    const counts = new Map<string, number>();
    for (const { holds } of snapshots) for (const tag of holds) counts.set(tag, (counts.get(tag) ?? 0) + 1);
    const kind = world.host(node).file.records.get(id)?.phase.kind;
    if (kind !== 'ready' && kind !== 'replica') continue;
    // Nothing is sent of what is in the trash, so nobody looks at its copies until it comes back.
    if (world.docs().get(id)?.doc.trashed !== null) continue;
    for (const [tag, count] of counts)
      if (count > heldMaxOfTag) found.push(`${tag} holds ${count} snapshots of ${id} on ${node}`);
  }
  return found;
}

/** Idle volumes of one node can be handed over together. */
function moveIdle(world: World, untilMs: number, done: () => void): void {
  const { random, scheduler } = world;
  const idle = idleVolumes(world);
  if (idle.length === 0) {
    done();
    return;
  }
  const first = random.pick(idle);
  const second = idle.find(({ id, owner }) => id !== first.id && owner === first.owner);
  const group = second === undefined ? [first] : [first, second];
  const from = world.host(first.owner);
  const to = random.pick(world.hosts.filter((host) => host !== from && !host.isLost()));
  ask(
    world,
    from,
    async ({ context, agent }) => {
      const records = group.flatMap(({ id }) => context.state.byId(id) ?? []);
      return await agent()?.moving.handOver({ records, to: to.name, also: [], deadlineMs: moveMs });
    },
    (answer) => {
      if (answer !== null && 'value' in answer && answer.value?.length === group.length) return done();
      const why = answer === null ? 'no answer' : 'error' in answer ? messageOf(answer.error) : 'not all of them';
      if (scheduler.nowMs() > untilMs)
        throw new Violation(`I7: idle volumes of ${from.name} can't be moved to ${to.name}: ${why}`);
      // An unmount was lost since the convergence.
      if (from.starting.size === 0) from.ageUses(useGraceMs);
      scheduler.after(1_000, () => moveIdle(world, untilMs, done));
    },
  );
}

function idleVolumes(world: World): readonly VolumeDoc[] {
  const used = new Set<DatasetId>(world.hosts.flatMap((host) => [...host.containers].map(({ volume }) => volume)));
  return [...world.docs().values()].flatMap(({ doc }) => (doc.trashed === null && !used.has(doc.id) ? [doc] : []));
}

/** An idle volume can be used on any node. What has just been mended may be refused for a moment. */
function runEverywhere(world: World, workload: Workload, untilMs: number, done: () => void): void {
  const { random, scheduler } = world;
  const [first] = idleVolumes(world);
  if (first === undefined) {
    done();
    return;
  }
  const { id, name, owner } = first;
  const host = random.pick(world.hosts.filter((one) => !one.isLost()));
  dockerRun(world, host, name, workload.options(name), (container) => {
    if (typeof container === 'string') {
      if (scheduler.nowMs() > untilMs)
        throw new Violation(`I7: the idle volume ${id} of ${owner} can't be used on ${host.name}: ${container}`);
      scheduler.after(1_000, () => runEverywhere(world, workload, untilMs, done));
      return;
    }
    scheduler.after(random.between(500, 1_500), () => {
      dockerStop(world, container);
      scheduler.after(3_000, done);
    });
  });
}
