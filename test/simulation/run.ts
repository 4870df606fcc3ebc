import type { AliveDoc, NodeDoc } from '../../controller/model/cluster.ts';
import { keys } from '../../controller/model/cluster.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { type Timing, timings } from '../../controller/model/timing.ts';
import { createMemoryStore } from '../../controller/store/memory.ts';
import { createChecks } from './checks.ts';
import { createFailovers, loseOwner } from './failovers.ts';
import { startFaults } from './faults.ts';
import { createHost, type Host } from './host.ts';
import { createGroups } from './moves.ts';
import { createNetwork } from './network.ts';
import { watchConvergence } from './quiet.ts';
import { createRandom } from './random.ts';
import { salvage } from './salvage.ts';
import { createScheduler, sleepBy } from './scheduler.ts';
import { startWorkload } from './workload.ts';
import { docsOf, type World } from './world.ts';

export type RunOptions = {
  readonly seed: number;
  readonly trace: ((line: string) => void) | null;
  /** Other times than the profile's, to see whether that is found. */
  readonly timing?: Partial<Timing>;
  readonly withoutWatchdog?: boolean;
};

export type RunResult = {
  readonly seed: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly records: number;
  /** null: everything held. */
  readonly failure: string | null;
};

/** Of the runs: in the quiet one more host loses its power, so that it is seen what happens then without any other fault. */
const lastLossShare = 0.2;

/** One run from one seed: some time with faults, then quiet. The same seed does the same, always. */
export async function runSeed({ seed, trace, timing, withoutWatchdog = false }: RunOptions): Promise<RunResult> {
  const random = createRandom(seed);
  const scheduler = createScheduler();
  const profile = random.chance(0.7) ? 'fast' : 'default';
  const troubledMs = random.between(1, profile === 'fast' ? 8 : 5) * timings[profile].guardMs;
  const clock = { nowMs: scheduler.nowMs, sleep: sleepBy(scheduler.after) };
  const store = createMemoryStore({
    clock,
    random: random.next,
    onChange: (keys) => {
      world.groups.changed(keys);
      world.failovers.changed(keys);
    },
    quirks: { latencyMsMax: 25, watchDelayMsMax: 150, staleMsMax: 800, lateShare: 0.3, lateMsMax: 9_000 },
  });
  const hosts: Host[] = [];
  const world: World = {
    scheduler,
    random,
    timing: { ...timings[profile], ...timing },
    store,
    network: createNetwork(() => world),
    checks: createChecks(() => world),
    failovers: createFailovers(() => world),
    groups: createGroups(() => world),
    hosts,
    host: (name) => {
      const found = hosts.find((host) => host.name === name);
      if (found === undefined) throw new Error(`simulation: there is no host ${name}`);
      return found;
    },
    docs: () => docsOf(store),
    trace: (text) => trace?.(`${scheduler.nowMs().toFixed(1).padStart(9)} ${text()}`),
    without: { watchdog: withoutWatchdog },
  };
  const rateError = world.timing.clockRateErrorMax / 2;
  const count = random.whole(3, 5);
  for (let index = 1; index <= count; index += 1)
    hosts.push(createHost(() => world, parseNodeName(`n${index}`), 1 + random.between(-rateError, rateError)));
  world.trace(() => `seed ${seed}: ${count} nodes, profile ${profile}, ${(troubledMs / 1000).toFixed(0)} s of trouble`);

  let failure: string | null = null;
  let isOver = false;
  try {
    await tellNodes(world);
    for (const host of hosts) host.powerOn();
    const workload = startWorkload(world);
    const faults = startFaults(world, workload);
    scheduler.after(troubledMs, () => {
      world.trace(() => 'QUIET');
      workload.stop();
      faults.heal();
      const end = () => {
        world.checks.nothingLost();
        isOver = true;
      };
      const converge = () =>
        watchConvergence(world, workload, () => {
          if (!random.chance(lastLossShare)) return end();
          loseOwner(world, () => watchConvergence(world, workload, end));
        });
      salvage(world, converge);
    });
    await scheduler.run(() => isOver || world.checks.violation() !== null);
    const violation = world.checks.violation();
    if (violation !== null) throw violation;
    if (!isOver) failure = 'the run came to an end by itself';
  } catch (error) {
    failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    for (const host of hosts) host.killPlugin();
    store.close();
  }
  return {
    seed,
    events: scheduler.events(),
    virtualMs: scheduler.nowMs(),
    records: world.checks.written().length,
    failure,
  };
}

async function tellNodes(world: World): Promise<void> {
  const store = world.store.connect('founder');
  let isDone = false;
  const docs = world.hosts.map(
    ({ name }): NodeDoc => ({
      name,
      address: name,
      port: 1,
      labels: {},
      cordoned: false,
      draining: false,
      format: 'zfs',
      joinedAtMs: 0,
    }),
  );
  const operations = docs.map(
    (doc) => ({ kind: 'set', key: keys.node(doc.name), value: JSON.stringify(doc) }) as const,
  );
  void store.transact(operations).then(() => {
    isDone = true;
  });
  await world.scheduler.run(() => isDone);
}

export type { AliveDoc };
