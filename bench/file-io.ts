import { join } from 'node:path';
import { importImage } from '../test/support/app-image.ts';
import type { PluginHost } from '../test/support/plugin-host.ts';
import { interleave, median, medianRatio } from './measure.ts';
import { type Row, ratioRow } from './report.ts';

const rounds = { warm: 1, counted: 9, maxMs: 18_000 };
const secondsEach = 1;
const fileSize = '96M';
const fioImage = 'flock/fio';

type Job = { readonly what: string; readonly side: 'read' | 'write'; readonly args: readonly string[] };

/** Writes are flushed, or they would be about memory only; zfs-fuse has no O_DIRECT. */
const jobs: readonly Job[] = [
  { what: 'sequential write, 1 MiB', side: 'write', args: ['--rw=write', '--bs=1M', '--fsync=32'] },
  { what: 'sequential read, 1 MiB', side: 'read', args: ['--rw=read', '--bs=1M'] },
  { what: 'random write, 4 KiB', side: 'write', args: ['--rw=randwrite', '--bs=4k', '--fsync=256'] },
  { what: 'random read, 4 KiB', side: 'read', args: ['--rw=randread', '--bs=4k'] },
  { what: 'write and fsync, 4 KiB', side: 'write', args: ['--rw=write', '--bs=4k', '--fsync=1'] },
];

/** The same jobs in two containers of one image: on a flock volume, and on the same pool's file system mounted by hand. */
export async function benchFileIo(flock: PluginHost): Promise<readonly Row[]> {
  await importImage(flock, fioImage, ['/usr/bin/fio']);
  const handPath = await mountByHand(flock);
  const containers = [
    await start(flock, 'fio-flock', ['--volume-driver=flock', '-v', 'fio:/data']),
    await start(flock, 'fio-hand', ['-v', `${handPath}:/data`]),
  ];
  const rows: Row[] = [];
  for (const job of jobs) {
    const [ours = [], hand = []] = await interleave(
      rounds,
      containers.map((container) => () => bandwidth(flock, container, job)),
    );
    const shown = (values: readonly number[]) => `${(median(values) / 1e6).toFixed(1)} MB/s`;
    rows.push(
      ratioRow(
        `${job.what} (${ours.length} rounds)`,
        shown(ours),
        `mounted by hand ${shown(hand)}`,
        medianRatio(ours, hand),
        { min: 0.97 },
      ),
    );
  }
  await flock.docker('rm', '-f', ...containers);
  return rows;
}

async function start(flock: PluginHost, name: string, volume: readonly string[]): Promise<string> {
  await flock.docker(
    'run',
    '-d',
    '--name',
    name,
    '--network=none',
    ...volume,
    fioImage,
    '/bin/busybox',
    'sleep',
    '3600',
  );
  return name;
}

/** Bytes a second, by fio's own clock: the start of the container and of fio is no part of it. */
async function bandwidth(flock: PluginHost, container: string, job: Job): Promise<number> {
  const text = await flock.docker(
    'exec',
    container,
    '/usr/bin/fio',
    '--name=bench',
    '--filename=/data/file',
    `--size=${fileSize}`,
    '--thread',
    '--ioengine=psync',
    '--time_based',
    `--runtime=${secondsEach}`,
    '--output-format=json',
    ...job.args,
  );
  const { jobs: results } = JSON.parse(text.slice(text.indexOf('{'))) as {
    readonly jobs: readonly Readonly<Record<'read' | 'write', { readonly bw_bytes: number }>>[];
  };
  const bytes = results[0]?.[job.side].bw_bytes;
  if (bytes === undefined || bytes === 0) throw new Error(`fio has measured nothing: ${text}`);
  return bytes;
}

/** Outside of what flock looks at in the pool. Answers where on the host it is. */
async function mountByHand(flock: PluginHost): Promise<string> {
  const { host } = flock;
  const path = '/var/lib/flock/bench';
  if (flock.backend === 'zfs') {
    // Owner's mount, as an administrator would make it; the same properties as flock's.
    await host.run('zfs', ['create', '-o', 'atime=off', '-o', `mountpoint=${path}`, 'flock/bench']);
    return path;
  }
  const device = (await host.run('losetup', ['-j', '/var/lib/flock/pool.btrfs'])).split(':')[0] ?? '';
  const options = 'noatime,nodiscard,user_subvol_rm_allowed';
  const top = join(path, 'top');
  const subvolume = join(path, 'data');
  await host.run('mkdir', ['-p', top, subvolume]);
  await host.run('mount', ['-t', 'btrfs', '-o', `${options},subvolid=5`, device, top]);
  await host.run('btrfs', ['subvolume', 'create', join(top, 'bench')]);
  await host.run('mount', ['-t', 'btrfs', '-o', `${options},subvol=bench`, device, subvolume]);
  return subvolume;
}
