import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createCommands } from '../../plugin/exec.ts';
import { parseMountInfo } from '../../plugin/mount-table.ts';
import { type BtrfsConfig, createBtrfs } from '../../plugin/storage/btrfs/btrfs.ts';
import type { PoolMaker, Storage } from '../../plugin/storage/storage.ts';

export type BtrfsPool = {
  readonly folder: string;
  readonly config: BtrfsConfig;
  readonly storage: Storage & PoolMaker;
  /** Another process on the same host: it knows nothing of the first. */
  again(): Storage & PoolMaker;
  dispose(): Promise<void>;
};

/** A btrfs backend in a folder of its own; its pool is not made yet. Needs root, btrfs-progs and loop devices. */
export async function openBtrfsPool(): Promise<BtrfsPool> {
  const folder = await mkdtemp(join(tmpdir(), 'flock-btrfs-'));
  const tools = { btrfs: 'btrfs', mkfs: 'mkfs.btrfs', mount: 'mount', umount: 'umount', losetup: 'losetup' };
  const config = {
    path: join(folder, 'pool.btrfs'),
    topMount: join(folder, 'top'),
    mountRoot: join(folder, 'volumes'),
    tools,
  };
  const again = () => createBtrfs(config, createCommands());
  return { folder, config, storage: again(), again, dispose: () => removeFolder(folder) };
}

export async function command(file: string, ...args: readonly string[]): Promise<string> {
  return (await promisify(execFile)(file, [...args])).stdout.trim();
}

/** Whatever a test left mounted or attached in this folder goes first. */
async function removeFolder(folder: string): Promise<void> {
  const table = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  for (const { mountPoint } of table.filter((entry) => entry.mountPoint.startsWith(`${folder}/`)).toReversed())
    await command('umount', '--lazy', mountPoint);
  for (const line of (await command('losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE')).split('\n')) {
    const [device, file] = line.trim().split(/\s+/);
    if (device !== undefined && file?.startsWith(`${folder}/`) === true)
      await command('losetup', '-d', device).catch(() => {});
  }
  await rm(folder, { recursive: true, force: true });
}
