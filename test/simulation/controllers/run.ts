import { keys, type NodeDoc } from '../../../controller/model/cluster.ts';
import { parseNodeName } from '../../../controller/model/names.ts';
import { createMemoryStore } from '../../../controller/store/memory.ts';
import { createRandom } from '../random.ts';
import type { RunResult } from '../run.ts';
import { createScheduler, sleepBy } from '../scheduler.ts';
import { calmEvent } from './calm.ts';
import { problemsOf } from './checks.ts';
import { createFaults } from './faults.ts';
import { createHost, type Host } from './host.ts';
import { createPeople } from './people.ts';
import { type World, workloadsOf } from './world.ts';

const troubleMs = { min: 20_000, max: 120_000 };
const betweenActsMs = { min: 500, max: 8_000 };
const betweenFaultsMs = { min: 1_000, max: 15_000 };
/** All that waits for something has its end by then: moves, guards, backoffs, sessions. */
const settleMsMax = 900_000;
const lookMs = 2_000;
const wellLooksMin = 3;

/** One run of several controllers from one seed: people and faults, then quiet, in which everything has to come right. */
export async function runControllers({
  seed,
  trace,
}: {
  readonly seed: number;
  readonly trace: ((line: string) => void) | null;
}): Promise<RunResult> {
  const random = createRandom(seed);
  const scheduler = createScheduler();
  const sleep = sleepBy(scheduler.after);
  const store = createMemoryStore({
    clock: { nowMs: scheduler.nowMs, sleep },
    random: random.next,
    quirks: { latencyMsMax: 25, watchDelayMsMax: 150, staleMsMax: 800, lateShare: 0.3, lateMsMax: 9_000 },
  });
  const hosts: Host[] = [];
  let violation: string | null = null;
  const isFlaky = random.chance(0.6);
  let isQuiet = false;
  const world: World = {
    scheduler,
    random,
    store,
    hosts,
    pauses: new Map(),
    touched: new Set(),
    host(name) {
      const found = hosts.find((one) => one.name === name);
      if (found === undefined) throw new Error(`simulation: there is no host ${name}`);
      return found;
    },
    isFlaky: () => isFlaky && !isQuiet,
    violate(rule, text) {
      violation ??= `Error: ${rule}: ${text} (at ${scheduler.nowMs().toFixed(0)} ms)`;
    },
    trace: (text) => trace?.(`${scheduler.nowMs().toFixed(1).padStart(9)} ${text()}`),
  };
  const names = Array.from({ length: random.whole(3, 4) }, (_, index) => `n${index + 1}`);
  for (const name of names) hosts.push(createHost(() => world, name));
  const people = createPeople(world);
  const faults = createFaults(world);

  let isOver = false;
  let failure: string | null = null;
  const pause = (ms: number) => sleep(ms);

  async function play(): Promise<void> {
    await tellCluster(world, names);
    await pause(3_000);
    await people.begin();
    for (const host of hosts) host.startController();
    await pause(3_000);
    const endMs = scheduler.nowMs() + random.between(troubleMs.min, troubleMs.max);
    const during = async (between: { readonly min: number; readonly max: number }, act: () => void) => {
      while (scheduler.nowMs() < endMs) {
        await pause(random.between(between.min, between.max));
        act();
      }
    };
    await Promise.all([during(betweenActsMs, people.act), during(betweenFaultsMs, faults.strike)]);
    isQuiet = true;
    world.trace(() => 'QUIET');
    faults.heal();
    await people.stop();
    await comeRight();
    await calmEvent(world, pause);
    await comeRight();
  }

  async function comeRight(): Promise<void> {
    const lastMs = scheduler.nowMs() + settleMsMax;
    for (let wellLooks = 0; wellLooks < wellLooksMin; ) {
      await pause(lookMs);
      const problems = problemsOf(world);
      wellLooks = problems.length === 0 ? wellLooks + 1 : 0;
      const [first] = problems;
      if (first === undefined || scheduler.nowMs() < lastMs) continue;
      world.violate(first.rule, problems.map(({ text }) => text).join('; '));
      return;
    }
  }

  try {
    const played = play().then(
      () => {
        isOver = true;
      },
      (error: unknown) => {
        failure = error instanceof Error ? error.message : String(error);
        isOver = true;
      },
    );
    await scheduler.run(() => isOver || violation !== null);
    if (violation !== null) failure = violation;
    else if (!isOver) failure = 'the run came to an end by itself';
    void played;
  } catch (error) {
    failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    for (const host of hosts) host.killController();
    store.close();
  }
  return {
    seed,
    events: scheduler.events(),
    virtualMs: scheduler.nowMs(),
    records: workloadsOf(store).length,
    failure,
  };
}

async function tellCluster({ store }: World, names: readonly string[]): Promise<void> {
  const admin = store.connect('founder');
  const cluster = { id: 'c', createdAtMs: 1, profile: 'default', caCertificate: '' };
  await admin.transact([
    { kind: 'set', key: keys.cluster, value: JSON.stringify(cluster) },
    ...names.map((text) => {
      const name = parseNodeName(text);
      const doc: NodeDoc = {
        ...{ name, address: text, port: 1, labels: {}, cordoned: false, draining: false },
        ...{ format: 'zfs', joinedAtMs: 0 },
      };
      return { kind: 'set', key: keys.node(name), value: JSON.stringify(doc) } as const;
    }),
    ...names.map((text) => {
      const value = JSON.stringify({ sizeBytes: 1e12, freeBytes: 6e11 });
      return { kind: 'set', key: keys.space(parseNodeName(text)), value } as const;
    }),
  ]);
}
