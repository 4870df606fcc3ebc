import assert from 'node:assert/strict';
import { createRandom, type Random } from '../../simulation/random.ts';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import { assertRescued } from '../../support/cluster/lost-records.ts';
import {
  acknowledgedAfter,
  failover,
  isolate,
  type Members,
  settled,
  startReplicatedWriter,
  volumeOf,
} from '../../support/cluster/members.ts';
import { bootSeconds } from '../../support/cluster/probes.ts';
import { faultsOf } from '../../support/cluster/random-faults.ts';
import { acknowledged, checkRecords, readRecords, startWriter, type Writer } from '../../support/cluster/records.ts';
import { until } from '../../support/until.ts';

/** Writers of one volume on each node, and the options that give each a copy on both other nodes (data centers: east, east, west). */
const volumes = [
  { volume: 'soak-1', options: ['replicas=1', 'remote-replicas=1', 'failover=auto'] },
  { volume: 'soak-2', options: ['replicas=1', 'remote-replicas=1', 'failover=manual'] },
  { volume: 'soak-3', options: ['replicas=0', 'remote-replicas=2', 'failover=auto', 'max-loss=1m'] },
] as const;

const writerOf = (volume: string): Writer => ({ container: `writer-of-${volume}`, volume });

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
      const host = random.pick(cluster.hosts);
      const takeover = {
        what: `a volume of ${host.name} is taken over`,
        work: () => takeOver(members(), host, random),
      };
      const fault = random.pick([...faultsOf(members(), random), takeover]);
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

/** The owner is cut off, or dead, for as long as it takes. */
async function takeOver(current: Members, host: ClusterHost, random: Random): Promise<void> {
  const { cluster } = current;
  const docs = await Promise.all(volumes.map(({ volume }) => volumeOf(current, volume)));
  const owned = docs.find(({ doc }) => doc.owner === host.name)?.doc;
  if (owned === undefined) return;
  const chosen = random.pick(owned.replicas);
  const next = cluster.hosts.find(({ name }) => name === chosen);
  if (next === undefined) return;
  if (random.chance(0.5)) await isolate(current, host);
  else await host.kill();
  if (owned.options.failover === 'auto') {
    // Less than a minute after the last time it is left alone.
    const taker = await until('it is taken by itself', 20_000, async () => {
      const { doc, session } = await volumeOf(current, owned.name);
      return session === null ? undefined : cluster.hosts.find(({ name }) => name === doc.owner && name !== host.name);
    }).catch(() => null);
    if (taker !== null) await write(taker, writerOf(owned.name));
    return;
  }
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
  await assertRescued(at, writer, lost);
  for (const host of cluster.hosts) assert.equal(await readRecords(host, writer), text, `the copy on ${host.name}`);
  return lost.length;
}
