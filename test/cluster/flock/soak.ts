import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterHost, Daemon } from '../../support/cluster/cluster-host.ts';
import {
  acknowledgedAfter,
  acknowledgedBefore,
  failover,
  isolate,
  type Members,
  others,
  settled,
  startReplicatedWriter,
  stashesOf,
  volumeOf,
} from '../../support/cluster/members.ts';
import { bootSeconds } from '../../support/cluster/probes.ts';
import {
  acknowledged,
  checkRecords,
  type Entry,
  readRecords,
  startWriter,
  type Writer,
} from '../../support/cluster/records.ts';
import { until } from '../../support/until.ts';

/** Writers of one volume on each node, and the options that give each a copy on both other nodes (data centers: east, east, west). */
const volumes = [
  { volume: 'soak-1', options: ['replicas=1', 'remote-replicas=1'] },
  { volume: 'soak-2', options: ['replicas=1', 'remote-replicas=1'] },
  { volume: 'soak-3', options: ['replicas=0', 'remote-replicas=2'] },
] as const;

const writerOf = (volume: string): Writer => ({ container: `writer-of-${volume}`, volume });
const entryKey = ({ number, node, bootSeconds: at }: Entry) => `${number} ${node} ${at.toFixed(2)}`;

/** FLOCK_SOAK_MINUTES: for longer than the suite can take (`make cluster-soak`). */
const minutes = Number(process.env['FLOCK_SOAK_MINUTES'] || 1);
const faultMs = minutes * 60_000;

/** Random faults under writers, and the check of every record that was acknowledged; FLOCK_SEED repeats the faults, not their timing. */
export function soak(members: () => Members): void {
  it(`random faults for ${minutes} min: one owner each, equal copies, no record lost`, async function () {
    this.timeout(faultMs * 2 + 240_000);
    const seed = Number(process.env['FLOCK_SEED'] || Date.now() % 1_000_000);
    const random = createRandom(seed);
    console.log(`      FLOCK_SEED=${seed}`);
    const { cluster } = members();
    for (const [index, { volume, options }] of volumes.entries())
      await startReplicatedWriter(cluster.host(index + 1), writerOf(volume), options);

    let rounds = 0;
    for (const end = performance.now() + faultMs; performance.now() < end; rounds += 1) {
      const fault = random.pick(faultsOf(members(), random));
      console.log(`      ${fault.what}`);
      await fault.work();
      await cluster.heal();
      await keepWriting(members());
    }

    await settled(members(), 120_000);
    await keepWriting(members());
    await settled(members());
    let stashed = 0;
    for (const { volume } of volumes) stashed += await assertNothingLost(members(), writerOf(volume));
    console.log(`      ${rounds} faults, ${stashed} records are in stashes only`);
  });
}

type Fault = { readonly what: string; readonly work: () => Promise<unknown> };

function faultsOf(current: Members, random: Random): readonly Fault[] {
  const { cluster, backend } = current;
  const host = random.pick(cluster.hosts);
  const rest = others(cluster, host);
  const ms = 500 + random.below(5_000);
  const daemons: readonly Daemon[] = [
    'plugin',
    'plugin',
    'docker',
    'consul',
    ...(backend === 'zfs' ? ['zfs-fuse' as const] : []),
  ];
  const daemon = random.pick(daemons);
  const during = (what: string, work: () => Promise<unknown>): Fault => ({
    what: `${what} for ${ms} ms`,
    work: async () => {
      await work();
      await sleep(ms);
    },
  });
  return [
    during(`${daemon} of ${host.name} is killed`, () => host.killDaemon(daemon)),
    during(`${daemon} of ${host.name} stands still`, () => host.freezeDaemon(daemon)),
    during(`${host.name} stands still`, () => host.freeze()),
    during(`${host.name} is dead`, () => host.kill()),
    during(`${host.name} is cut off`, () => isolate(current, host)),
    during(`${host.name} is cut off from Consul`, () => cluster.network.partitionConsul([host.number], rest)),
    during(`${host.name} is not heard`, () => cluster.network.partitionOneWay([host.number], rest)),
    during(`${host.name} loses packets`, () => cluster.network.loss(host.number, 30)),
    during(`${host.name} is cut off and its plugin killed`, async () => {
      await isolate(current, host);
      await host.killDaemon('plugin');
    }),
    { what: `a volume of ${host.name} is taken over`, work: () => takeOver(current, host, random) },
  ];
}

/** The owner is cut off, or dead, for as long as it takes. */
async function takeOver(current: Members, host: ClusterHost, random: Random): Promise<void> {
  const { cluster } = current;
  const docs = await Promise.all(volumes.map(({ volume }) => volumeOf(current, volume)));
  const owned = docs.find(({ doc }) => doc.owner === host.name)?.doc;
  if (owned === undefined) return;
  const next = cluster.hosts.find(({ name }) => name === random.pick(owned.replicas));
  if (next === undefined) return;
  if (random.below(2) === 0) await isolate(current, host);
  else await host.kill();
  // Another copy may be newer, or a fault of before not yet be over: then this takeover is none.
  const done = await failover(next, owned.name, 20_000).then(
    () => true,
    () => false,
  );
  if (done) await write(next, writerOf(owned.name));
}

/** Every volume has a writer where it is. */
async function keepWriting(current: Members): Promise<void> {
  for (const { volume } of volumes) {
    const writer = writerOf(volume);
    await until(`${volume} is written`, 60_000, async () => {
      const { doc, session } = await volumeOf(current, volume);
      const owner = current.cluster.hosts.find(({ name }) => name === doc.owner);
      if (owner === undefined || session === null) return undefined;
      return await write(owner, writer).then(
        () => true,
        () => undefined,
      );
    });
  }
}

/** Starts the writer's container here, or a new one; nothing where it runs. */
async function write(host: ClusterHost, writer: Writer): Promise<void> {
  const names = (await host.docker('ps', '-a', '--format', '{{.Names}}')).split('\n');
  if (names.includes(writer.container)) await host.docker('start', writer.container);
  else await startWriter(host, writer);
}

/** Answers how many records did not survive a takeover. */
async function assertNothingLost(current: Members, writer: Writer): Promise<number> {
  const { cluster } = current;
  const { doc } = await volumeOf(current, writer.volume);
  const at = cluster.hosts.find(({ name }) => name === doc.owner) ?? cluster.host(1);
  await acknowledgedAfter(at, writer, await bootSeconds());
  await at.docker('stop', '-t', '0', writer.container);
  const logs = await Promise.all(cluster.hosts.map((host) => acknowledged(host, writer).catch(() => [])));
  const entries = logs.flat();
  assert.ok(entries.length > 100, `${entries.length} records in all`);

  const text = await readRecords(at, writer);
  const { faults, lost } = checkRecords(text, entries);
  assert.deepEqual(faults, []);
  const rescued = new Set<string>();
  const mayMiss = new Set<string>();
  const seen = new Set<string>();
  let nowhere: readonly Entry[] = lost;
  // A node that is no longer to hold a copy keeps what it has for half a minute before it makes a stash of it.
  await until(`all lost records of ${writer.volume} are in stashes`, 90_000, async () => {
    const stashes = (await stashesOf(at)).filter(({ id, volume }) => volume === writer.volume && !seen.has(id));
    for (const stash of stashes) {
      const name = `${writer.volume}-stash-${seen.size}`;
      seen.add(stash.id);
      await at.flockctl('stash', 'restore', stash.id, name);
      const found = await readRecords(at, { ...writer, volume: name });
      const lines = new Set(found.split('\n'));
      const before = stash.common === null ? [] : await acknowledgedBefore(lost, stash.common);
      for (const entry of lost.filter((one) => lines.has(entryKey(one)))) {
        rescued.add(entryKey(entry));
        if (!before.includes(entry)) mayMiss.add(entryKey(entry));
      }
    }
    nowhere = lost.filter((entry) => !rescued.has(entryKey(entry)));
    return nowhere.length === 0 ? true : undefined;
  }).catch((error: unknown) => {
    assert.deepEqual(nowhere, [], `records of ${writer.volume} are nowhere, not in its ${seen.size} stashes`);
    throw error;
  });
  assert.deepEqual(
    lost.filter((entry) => !mayMiss.has(entryKey(entry))),
    [],
    'records that were replicated before a takeover are only in a stash',
  );
  for (const host of cluster.hosts) assert.equal(await readRecords(host, writer), text, `the copy on ${host.name}`);
  return lost.length;
}

type Random = { below(limit: number): number; pick<T>(from: readonly T[]): T };

/** mulberry32. */
function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const below = (limit: number) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
  return {
    below,
    pick<T>(from: readonly T[]): T {
      const picked = from[below(from.length)];
      if (picked === undefined) throw new Error('there is nothing to pick from');
      return picked;
    },
  };
}
