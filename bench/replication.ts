import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseSnapshotName } from '../controller/model/names.ts';
import { parseReplicationSnapshot } from '../controller/model/replication.ts';
import { image } from '../packaging/proof.ts';
import { type Cluster, startCluster } from '../test/support/cluster/cluster.ts';
import type { ClusterHost } from '../test/support/cluster/cluster-host.ts';
import { type Backend, backends } from '../test/support/plugin-host.ts';
import { until } from '../test/support/until.ts';
import { interleave, median, percentile, timed } from './measure.ts';
import { extraRow, figureRow, type Row, table } from './report.ts';

/**
 * Measures replication and handoff on a cluster of two test hosts: `replication.ts [BACKEND...] [NAME...]` with names lag, handoff, idle.
 * Run it as `make bench-cluster`; it wants mount and process namespaces of its own.
 */
const measures: Readonly<Record<string, (cluster: Cluster) => Promise<readonly Row[]>>> = { lag, handoff, idle };

const seconds = (value: number) => `${value.toFixed(2)} s`;

/** A writer of 5 MB/s; how old is what the copy has, looked at all the time: T minus the time in the name of its newest snapshot. */
async function lag(cluster: Cluster): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const interval of ['1s', '100ms']) {
    const { owner, copy, id, volume } = await volumeWithCopy(cluster, `lag${interval}`, { interval });
    // 50 times a second 100 KB into a file of 200 MB, over and over.
    const script =
      'i=0; while :; do dd if=/dev/urandom of=/data/f bs=100k count=1 seek=$((i % 2000)) conv=notrunc 2>/dev/null; i=$((i+1)); echo $i > /data/n; usleep 16000; done';
    await owner.docker(
      'run',
      '-d',
      '--name',
      volume,
      '--network=none',
      '--volume-driver=flock',
      '-v',
      `${volume}:/data`,
      image,
      'sh',
      '-c',
      script,
    );
    await sleep(5_000);
    const writtenBefore = await written(owner, volume);
    const ages: number[] = [];
    const startedMs = Date.now();
    while (Date.now() - startedMs < lagMs) {
      const newest = await newestAt(cluster.backend, copy, id);
      if (newest !== null) ages.push((Date.now() - newest) / 1000);
      await sleep(20);
    }
    const rate = ((await written(owner, volume)) - writtenBefore) / ((Date.now() - startedMs) / 1000) / 1e6;
    await owner.docker('rm', '-f', volume);
    const isDefault = interval === '1s';
    const what = `lag at interval=${interval}, ${rate.toFixed(1)} MB/s`;
    rows.push(figureRow(`${what}, p50`, percentile(ages, 0.5), seconds, isDefault ? { max: 1.2 } : null));
    rows.push(figureRow(`${what}, p99`, percentile(ages, 0.99), seconds, isDefault ? { max: 2.5 } : null));
  }
  return rows;
}

const lagMs = 40_000;

/** An idle volume of 1 GB with at most 1 MB unsent, wanted on the other host; beside the same `docker run` on the owner. */
async function handoff(cluster: Cluster): Promise<readonly Row[]> {
  const { owner, copy, volume } = await volumeWithCopy(cluster, 'handoff', {});
  await owner.sh(volume, 'dd if=/dev/urandom of=/data/big bs=1M count=1000 2>/dev/null; sync');
  await inSync(owner, volume);
  let [here, there] = [owner, copy];
  const [moved = [], stayed = []] = await interleave({ warm: 1, counted: 10, maxMs: 120_000 }, [
    async () => {
      await here.sh(volume, 'dd if=/dev/urandom of=/data/small bs=1k count=900 conv=notrunc 2>/dev/null');
      const took = await timed(() => there.sh(volume, 'true'));
      [here, there] = [there, here];
      return took;
    },
    () => timed(() => here.sh(volume, 'true')),
  ]);
  return [
    extraRow(
      `handoff of 1 GB, 1 MB unsent (${moved.length} rounds)`,
      median(moved),
      'docker run on the owner',
      median(stayed),
      { max: 1_500 },
    ),
  ];
}

/** Many volumes that have a copy and are mounted, with nothing written: processor time of the owner's plugin with its commands, writes to the store. */
async function idle(cluster: Cluster): Promise<readonly Row[]> {
  const count = cluster.backend === 'btrfs' ? 1000 : 100;
  const [owner, copy] = pair(cluster);
  const names = Array.from({ length: count }, (_, index) => `idle${index}`);
  for (let from = 0; from < count; from += 100)
    await owner.docker('volume', 'ls', '-q').then(() => createMany(owner, names.slice(from, from + 100)));
  await until('every volume has a copy', 600_000, async () => {
    const copies = (await owner.json('replica', 'ls')) as readonly {
      readonly volume: string;
      readonly state: string;
    }[];
    return copies.filter(({ volume, state }) => volume.startsWith('idle') && state === 'in-sync').length >= count
      ? true
      : undefined;
  });
  const rows: Row[] = [];
  await sleep(10_000);
  for (const [what, mounted] of [
    ['not mounted', 0],
    ['mounted', 50],
  ] as const) {
    if (mounted > 0) {
      const volumes = names.slice(0, mounted).flatMap((name) => ['-v', `${name}:/${name}`]);
      await owner.docker(
        'run',
        '-d',
        '--name',
        'idler',
        '--network=none',
        '--volume-driver=flock',
        ...volumes,
        image,
        'sleep',
        '1000',
      );
      await sleep(40_000);
    }
    const [cpuBefore, copyBefore, indexBefore] = [await cpuMs(owner), await cpuMs(copy), await raftIndex(owner)];
    await sleep(idleMs);
    const share = (after: number, before: number) => (100 * (after - before)) / idleMs;
    const percent = (value: number) => `${value.toFixed(2)} % of a core`;
    rows.push(
      figureRow(
        `${count} idle volumes, ${mounted} of them ${what === 'mounted' ? 'mounted' : 'mounted anywhere'}, owner`,
        share(await cpuMs(owner), cpuBefore),
        percent,
        { max: 3 },
      ),
    );
    rows.push(figureRow('the node with the copies', share(await cpuMs(copy), copyBefore), percent, null));
    rows.push(
      figureRow(
        'store writes',
        ((await raftIndex(owner)) - indexBefore) / (idleMs / 1000),
        (value) => `${value.toFixed(2)} /s`,
        { max: 20 },
      ),
    );
  }
  await owner.docker('rm', '-f', 'idler');
  return rows;
}

const idleMs = 30_000;

async function createMany(host: ClusterHost, names: readonly string[]): Promise<void> {
  for (const name of names) await host.docker('volume', 'create', '-d', 'flock', name);
}

function pair(cluster: Cluster): readonly [ClusterHost, ClusterHost] {
  return [cluster.host(1), cluster.host(2)];
}

async function volumeWithCopy(cluster: Cluster, volume: string, options: Readonly<Record<string, string>>) {
  const [owner, copy] = pair(cluster);
  const words = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  await owner.docker('volume', 'create', '-d', 'flock', ...words, volume);
  await inSync(owner, volume);
  const [found] = (await owner.json('volume', 'inspect', volume)) as readonly { readonly id: string }[];
  if (found === undefined) throw new Error(`${volume} is not there`);
  return { owner, copy, volume, id: found.id };
}

async function inSync(owner: ClusterHost, volume: string): Promise<void> {
  await until(`${volume} has a copy that is up to date`, 60_000, async () => {
    const copies = (await owner.json('replica', 'ls')) as readonly {
      readonly volume: string;
      readonly state: string;
    }[];
    return copies.some((copy) => copy.volume === volume && copy.state === 'in-sync') ? true : undefined;
  });
}

/** The time in the name of the newest replication snapshot that the host has of a dataset. */
async function newestAt(backend: Backend, host: ClusterHost, id: string): Promise<number | null> {
  const names =
    backend === 'btrfs'
      ? await readdir(`/proc/${await host.pluginPid()}/root/run/flock/pool/snapshots/${id}`)
      : (
          await host.host.run('zfs', [
            'list',
            '-H',
            '-o',
            'name',
            '-t',
            'snapshot',
            '-r',
            '-d',
            '1',
            `flock/volumes/${id}`,
          ])
        )
          .split('\n')
          .map((path) => path.slice(path.indexOf('@') + 1));
  const times = names.flatMap((name) => parseReplicationSnapshot(parseSnapshotName(name))?.timeMs ?? []);
  return times.length === 0 ? null : Math.max(...times);
}

/** Bytes that the writer has written so far. */
async function written(host: ClusterHost, container: string): Promise<number> {
  return Number(await host.docker('exec', container, 'cat', '/data/n')) * 100 * 1024;
}

/** Processor time of the plugin and of the commands that it has run, in ms: proc_pid_stat(5), fields 14 to 17, 100 a second. */
async function cpuMs(host: ClusterHost): Promise<number> {
  const text = await readFile(`/proc/${await host.pluginPid()}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0) * 10;
}

async function raftIndex(host: ClusterHost): Promise<number> {
  return Number(/last_log_index = (\d+)/.exec(await host.consul('info'))?.[1]);
}

const words = process.argv.slice(2);
const chosenBackends = backends.filter((backend) => words.includes(backend));
const chosenMeasures = Object.keys(measures).filter((name) => words.includes(name));
for (const backend of chosenBackends.length === 0 ? backends : chosenBackends) {
  for (const name of chosenMeasures.length === 0 ? Object.keys(measures) : chosenMeasures) {
    const settings = `pool-size=${name === 'handoff' ? 3 : 2}G`;
    const cluster = await startCluster({ count: 2, backend, settings, labels: [{ dc: 'one' }, { dc: 'one' }] });
    try {
      console.log(`\n## ${name} (${backend})\n\n${table((await measures[name]?.(cluster)) ?? [])}`);
    } finally {
      await cluster.dispose();
    }
  }
}
