import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { Operation, SessionId } from '../../controller/store/store.ts';
import { dockerRun } from './docker.ts';
import type { Host } from './host.ts';
import { passedOn } from './parts.ts';
import type { Workload } from './workload.ts';
import type { World } from './world.ts';

/** What goes wrong while a run lasts. Every fault ends by itself; `heal` ends all. */
export type Faults = { heal(): void };

type Fault = { readonly weight: number; begin(world: World, host: Host, workload: Workload): (() => void) | null };

const pauseBetweenMs = { min: 300, max: 5_000 };

/** Each begins something and answers what ends it. */
const kinds: Readonly<Record<string, Fault>> = {
  'kill plugin': {
    weight: 3,
    begin(_world, host) {
      host.killPlugin();
      return () => host.startPlugin();
    },
  },
  'stop plugin': {
    weight: 3,
    begin(_world, host) {
      const process = host.process();
      process?.gate.pause();
      return () => process?.gate.resume();
    },
  },
  /** Between the answer to Docker and whatever the plugin would do next. */
  'stop plugin at a mount': {
    weight: 2,
    begin(_world, host) {
      host.atMount.add(() => host.process()?.gate.pause());
      return () => {
        host.atMount.clear();
        host.process()?.gate.resume();
      };
    },
  },
  'power off': {
    weight: 2,
    begin(world, host, workload) {
      host.powerOff();
      failHealthCheck(world, host);
      if (world.random.chance(0.5)) workload.rescue(host);
      return () => host.powerOn();
    },
  },
  /** The machine lives on. */
  'pool fails': {
    weight: 2,
    begin(world, host) {
      host.disk.fault = world.random.chance(0.5) ? 'failed' : 'read-only';
      return () => {
        host.disk.fault = null;
      };
    },
  },
  /** Once in a run, where enough others are left. */
  'lost for good': {
    weight: 1,
    begin(world, host, workload) {
      if (world.hosts.length < 4 || world.hosts.some((one) => one.isLost())) return null;
      failHealthCheck(world, host);
      world.checks.lost(host);
      host.lose();
      if (world.random.chance(0.7)) workload.rescue(host);
      return null;
    },
  },
  'store away from one': {
    weight: 3,
    begin(world, host) {
      world.store.cut(host.name, world.random.chance(0.3) ? 'answers' : 'both');
      return () => world.store.heal(host.name);
    },
  },
  /** So that nobody knows at first what came of it, and somebody wants the volume back. */
  'store away at a handover': {
    weight: 2,
    begin(world, host, workload) {
      const strike = (operations: readonly Operation[]) => {
        const ids = passedOn(operations);
        if (ids.length === 0) return false;
        if (world.random.chance(0.5)) world.store.loseNext(host.name, world.random.between(4_000, 9_000));
        else world.store.cut(host.name, world.random.chance(0.3) ? 'answers' : 'both');
        for (const id of ids) useAgain(world, host, id, workload);
        return true;
      };
      host.atTransaction.add(strike);
      return () => {
        host.atTransaction.delete(strike);
        world.store.heal(host.name);
      };
    },
  },
  /** One that changes a volume's document. */
  'a change comes late': {
    weight: 2,
    begin(world, host) {
      const strike = (operations: readonly Operation[]) => {
        const isChange = operations.some(({ kind, key }) => kind === 'compare-and-set' && key.startsWith('volumes/'));
        if (isChange) world.store.loseNext(host.name, world.random.between(500, 9_000));
        return isChange;
      };
      host.atTransaction.add(strike);
      return () => void host.atTransaction.delete(strike);
    },
  },
  'store away from all': {
    weight: 1,
    begin(world) {
      for (const { name } of world.hosts) world.store.cut(name);
      return () => {
        for (const { name } of world.hosts) world.store.heal(name);
      };
    },
  },
  'no leader': {
    weight: 2,
    begin(world) {
      world.store.loseLeader();
      return () => world.store.electLeader();
    },
  },
  'session ends': {
    weight: 2,
    begin(world) {
      const sessions = world.store.sessions();
      if (sessions.length > 0) world.store.endSession(world.random.pick(sessions));
      return null;
    },
  },
  'cut between two': {
    weight: 2,
    begin(world, host) {
      const other = world.random.pick(world.hosts).name;
      return cutBoth(world, host.name, other);
    },
  },
  'one-way cut': {
    weight: 2,
    begin: (world, host) => world.network.cut(host.name, world.random.pick(world.hosts).name),
  },
  isolated: {
    weight: 3,
    begin(world, host, workload) {
      const ends = world.hosts.filter((other) => other !== host).map(({ name }) => cutBoth(world, host.name, name));
      world.store.cut(host.name);
      failHealthCheck(world, host);
      if (world.random.chance(0.7)) workload.rescue(host);
      return () => {
        world.store.heal(host.name);
        for (const end of ends) end();
      };
    },
  },
  'wall clock steps': {
    weight: 0.5,
    begin(world, host) {
      host.stepWallClock(world.random.between(-3_600_000, 3_600_000));
      return null;
    },
  },
};

/** At about the time when it is given up to wait for the store's answer. */
function useAgain(world: World, host: Host, id: DatasetId, workload: Workload): void {
  const name = world.docs().get(id)?.doc.name;
  if (name === undefined || world.random.chance(0.4)) return;
  world.scheduler.after(world.random.between(4_000, 8_000), () => dockerRun(world, host, name, workload.options(name)));
}

/** The store's other nodes notice that one is away, and end its session long before its time to live is over. */
function failHealthCheck(world: World, host: Host): void {
  const session = host.file.facts.get('session') as SessionId | undefined;
  if (session !== undefined && world.random.chance(0.7))
    world.scheduler.after(world.random.between(100, 4_000), () => world.store.endSession(session));
}

function cutBoth(world: World, one: NodeName, other: NodeName): () => void {
  const ends = [world.network.cut(one, other), world.network.cut(other, one)];
  return () => {
    for (const end of ends) end();
  };
}

const deck = Object.entries(kinds).flatMap(([name, { weight }]) => Array.from({ length: weight * 2 }, () => name));

export function startFaults(world: World, workload: Workload): Faults {
  const { scheduler, random } = world;
  const running = new Set<() => void>();
  let isOver = false;

  function next(): void {
    scheduler.after(random.between(pauseBetweenMs.min, pauseBetweenMs.max), () => {
      if (isOver) return;
      strike();
      // Troubles like company.
      if (random.chance(0.3)) strike();
      next();
    });
  }

  function strike(): void {
    const name = random.pick(deck);
    const host = random.pick(world.hosts);
    if (!host.isUp() && name !== 'session ends') return;
    const lastsMs = lengthMs();
    world.trace(() => `FAULT ${name} on ${host.name} for ${lastsMs.toFixed(0)} ms`);
    const undo = kinds[name]?.begin(world, host, workload) ?? null;
    if (undo === null) return;
    const end = () => {
      if (!running.delete(end)) return;
      world.trace(() => `END of ${name} on ${host.name}`);
      undo();
    };
    running.add(end);
    scheduler.after(lastsMs, end);
  }

  /** Short ones, some around the deadlines, some long ones. */
  function lengthMs(): number {
    const { fenceAfterMs, guardMs } = world.timing;
    return random.pick([
      () => random.between(100, 2_000),
      () => random.between(fenceAfterMs * 0.8, guardMs * 1.3),
      () => random.between(guardMs, guardMs * 3),
    ])();
  }

  next();
  return {
    heal() {
      isOver = true;
      for (const end of [...running]) end();
      for (const host of world.hosts) {
        host.disk.fault = null;
        host.powerOn();
        host.startPlugin();
        host.process()?.gate.resume();
        world.store.heal(host.name);
      }
      world.store.electLeader();
      world.network.calm();
    },
  };
}
