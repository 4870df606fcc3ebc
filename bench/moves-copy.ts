import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { ClusterHost } from '../test/support/cluster/cluster-host.ts';
import { type Counter, counterOf } from '../test/support/cluster/counting.ts';
import { fill, type Members, volumeOf } from '../test/support/cluster/members.ts';
import { move } from '../test/support/cluster/moving.ts';
import { until } from '../test/support/until.ts';
import { median, timed } from './measure.ts';
import { start } from './moves-common.ts';
import { type Row, ratioRow } from './report.ts';

const precopyMebibytes = 1_000;
const precopyRounds = 6;

/** The copying step of a volume that the target knows nothing of; beside one program's output in the other's input. */
export async function precopy(members: Members): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const encryption of ['on', 'off']) {
    for (const host of members.cluster.hosts) await host.flockctl('settings', 'set', `encryption=${encryption}`);
    rows.push(await precopyWith(members, encryption));
  }
  for (const host of members.cluster.hosts) await host.flockctl('settings', 'set', 'encryption=on');
  return rows;
}

async function precopyWith(members: Members, encryption: string): Promise<Row> {
  const flock: number[] = [];
  const raw: number[] = [];
  // The first one does not count: memory that a virtual machine has not used for a while has to be given to it anew.
  for (let round = 0; round <= precopyRounds; round += 1) {
    const counter = counterOf(`big${round}`);
    const [first, second, third] = [members.n(1), members.n(2), members.n(3)];
    // Nobody else copies it meanwhile, and the target has nothing of it.
    await start(members, counter, first, ['replicas=0']);
    await fill(first, counter.volume, precopyMebibytes);
    // In turns: what comes first finds the volume in the page cache.
    const isRawFirst = round % 2 === 1;
    if (isRawFirst) raw.push(await rawCopy(members, first, third, counter));
    await settle(members);
    const { history } = await move(members, third, counter.name, second);
    const line = history.find(({ step }) => step === 'copying');
    flock.push(line?.ms ?? Number.NaN);
    if (!isRawFirst) raw.push(await rawCopy(members, second, third, counter));
    console.log(
      `      encryption=${encryption}: ${line?.ms} ms (${line?.note}), raw ${Math.round(raw.at(-1) ?? 0)} ms`,
    );
    if (round === 0) for (const times of [flock, raw]) times.length = 0;
    await second.docker('rm', '-f', counter.name);
    await until('the volume can go', 60_000, () =>
      second.flockctl('volume', 'rm', counter.volume).catch(() => undefined),
    );
    for (const host of members.cluster.hosts) {
      const trash = (await host.json('trash', 'ls')) as readonly { readonly id: string }[];
      for (const { id } of trash) await host.flockctl('trash', 'purge', id).catch(() => '');
    }
  }
  const rate = (ms: readonly number[]) => precopyMebibytes / 1024 / (median(ms) / 1000);
  const gibibytes = (value: number) => `${value.toFixed(2)} GiB/s`;
  return ratioRow(
    `pre-copy of 1 GB, encryption=${encryption}`,
    gibibytes(rate(flock)),
    `raw send|receive ${gibibytes(rate(raw))}`,
    rate(flock) / rate(raw),
    { min: 0.8 },
  );
}

/**
 * `btrfs send` of a snapshot on one host into `btrfs receive` on another one, where the plugins have their pools, until it is on disk, as a
 * copy of flock is. Answers ms.
 */
async function rawCopy(members: Members, from: ClusterHost, to: ClusterHost, { volume }: Counter): Promise<number> {
  const { id } = (await volumeOf(members, volume)).doc;
  const [there, here] = [await btrfsOn(to), await btrfsOn(from)];
  const snapshot = `${pool}/meta/bench-raw`;
  await shell(`${here} subvolume snapshot -r ${pool}/volumes/${id} ${snapshot}`);
  try {
    await settle(members);
    const synced = `${there} filesystem sync ${pool}`;
    return await timed(() => shell(`${here} send -q ${snapshot} | ${there} receive -q ${pool}/meta && ${synced}`));
  } finally {
    for (const btrfs of [here, there]) await shell(`${btrfs} subvolume delete -c ${snapshot}`);
  }
}

const pool = '/run/flock/pool';

/** The command of the plugin there. In its process namespace too: /proc shows other processes otherwise, and receive finds no mount points. */
async function btrfsOn(host: ClusterHost): Promise<string> {
  return `nsenter -t ${await host.pluginPid()} -m -p -- /usr/bin/btrfs`;
}

async function shell(command: string): Promise<void> {
  const child = spawn('bash', ['-o', 'pipefail', '-c', command], { stdio: ['ignore', 'ignore', 'inherit'] });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${command} ended with status ${code}`);
}

/** Until nothing of what was before is still being written or cleaned up: both ways begin with the same. */
async function settle(members: Members): Promise<void> {
  for (const host of members.cluster.hosts) {
    const btrfs = await btrfsOn(host);
    await shell(`${btrfs} subvolume sync ${pool} && ${btrfs} filesystem sync ${pool}`);
  }
  await shell('sync');
}
