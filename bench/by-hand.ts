/**
 * Runs in the plugin's own namespaces with the tools of its image. For each line on stdin (`storage` or `commands`) it creates, mounts,
 * unmounts and destroys one dataset, and answers the milliseconds of each as a line of JSON:
 *
 *     storage   by the storage backend, as the plugin has it, without the plugin around it
 *     commands  by the very commands that the backend was seen to run for this, one after the other
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rename, rmdir } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DatasetId, datasetIdFor, parseVolumeName } from '../controller/model/names.ts';
import { CommandError, type Commands, createCommands } from '../plugin/exec.ts';
import { pathsBelow } from '../plugin/paths.ts';
import { createStorage, loadSettings } from '../plugin/pool.ts';
import { layoutBelow } from '../plugin/storage/btrfs/arguments.ts';
import type { DatasetOptions } from '../plugin/storage/storage.ts';
import { type Steps, steps, type Times } from './steps.ts';

type Command = { readonly file: string; readonly args: readonly string[] };

const busyPauseMs = 10;
const busyTriesMax = 300;
const paths = pathsBelow('/');
const commands = createCommands({ PATH: '/usr/sbin:/usr/bin:/sbin:/bin' });
let seen: Command[] = [];
/** Only what succeeded: a repetition of what was busy is no part of the work. */
const watched: Commands = {
  ...commands,
  async run(file, args, options) {
    const answer = await commands.run(file, args, options);
    seen.push({ file, args });
    return answer;
  },
};
const storage = await createStorage(paths, await loadSettings(paths, ''), watched);
/** No stamp of flock's, so that the plugin does not adopt what it finds. */
const options: DatasetOptions = {
  quotaBytes: null,
  compression: null,
  recordSizeBytes: null,
  mode: null,
  uid: null,
  gid: null,
  properties: {},
  stamp: 'bench',
};

const newId = () => datasetIdFor(parseVolumeName('bench-by-hand'), randomBytes(4).toString('hex'));

const byStorage: Steps<DatasetId> = {
  create: (id) => storage.create(id, options),
  mount: (id) => storage.mount(id),
  unmount: (id) => storage.unmount(id),
  remove: (id) => storage.destroy(id),
};

/** The second dataset's: with the first one the backend opens the pool and looks at its tools. */
async function watch(): Promise<{ readonly id: DatasetId; readonly lists: Readonly<Record<keyof Times, Command[]>> }> {
  const lists: Record<keyof Times, Command[]> = { create: [], mount: [], unmount: [], remove: [] };
  await timesOf(byStorage, newId());
  const id = newId();
  for (const step of steps) {
    seen = [];
    await byStorage[step](id);
    lists[step] = seen;
  }
  seen = [];
  return { id, lists };
}

const { id: watchedId, lists } = await watch();

async function replay(step: keyof Times, id: DatasetId): Promise<void> {
  for (const { file, args } of lists[step]) {
    const own = args.map((argument) => argument.replaceAll(watchedId, id));
    await whileBusy({ file, args: own });
    // In the plugin an unmount does not reach the host, where zfs-fuse has mounted; the removal of the directory does.
    if (file === 'umount') await rmdir(own.at(-1) ?? '');
  }
}

/** zfs-fuse lets go of a mount some time after umount. */
async function whileBusy({ file, args }: Command): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await commands.run(file, args);
      return;
    } catch (error) {
      if (!(error instanceof CommandError) || tries === busyTriesMax) throw error;
      // It may have done its work and only then have found something busy.
      if (tries > 1 && error.stderr.includes('does not exist')) return;
      if (!error.stderr.includes('busy')) throw error;
      await sleep(busyPauseMs);
    }
  }
}

const mountPoints = (id: DatasetId) =>
  storage.kind === 'zfs' ? [`${paths.daemonMountRoot}/${id}`, storage.mountPath(id)] : [storage.mountPath(id)];

const byCommands: Steps<DatasetId> = {
  async create(id) {
    await replay('create', id);
    if (storage.kind !== 'btrfs') return;
    // What is not done by a command, but without which the others would find nothing.
    const layout = layoutBelow(paths.poolMount);
    await rename(layout.work(id, 'live'), layout.live(id));
  },
  async mount(id) {
    for (const place of mountPoints(id)) await mkdir(place, { recursive: true });
    await replay('mount', id);
  },
  unmount: (id) => replay('unmount', id),
  remove: (id) => replay('remove', id),
};

async function timesOf(way: Steps<DatasetId>, id: DatasetId): Promise<Times> {
  const times: Times = { create: 0, mount: 0, unmount: 0, remove: 0 };
  for (const step of steps) {
    const startMs = performance.now();
    await way[step](id);
    times[step] = performance.now() - startMs;
  }
  return times;
}

console.log(JSON.stringify(Object.fromEntries(steps.map((step) => [step, lists[step].map(shown)]))));
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await timesOf(line === 'storage' ? byStorage : byCommands, newId())));
}

function shown({ file, args }: Command): string {
  return [file.split('/').at(-1), ...args].join(' ').replaceAll(watchedId, 'ID');
}
