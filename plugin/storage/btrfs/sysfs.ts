import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, nullIfMissing } from './errors.ts';

const root = '/sys/fs/btrfs';

/** What this kernel's btrfs can do; null where sysfs is not there. */
export async function kernelFeatures(): Promise<readonly string[] | null> {
  return await nullIfMissing(readdir(join(root, 'features')));
}

/**
 * Linux 6.14 and later stop counting usage when a large snapshot is deleted, to save time. Quotas are promised, so count on. In a
 * container sysfs can be read-only; then counting has to be started again when `isCountLost`.
 */
export async function keepCounting(device: string): Promise<void> {
  const folder = await folderOf(device);
  if (folder === null) return;
  try {
    await writeFile(join(folder, 'qgroups/drop_subtree_threshold'), '8');
  } catch (error) {
    if (errnoOf(error) === null) throw error;
  }
}

/** Whether usage and quotas are wrong until a rescan has ended. */
export async function isCountLost(device: string): Promise<boolean> {
  return (await read(device, 'qgroups/inconsistent'))?.trim() === '1';
}

/**
 * A text that is different after every commit of the pool; null where this kernel (before 6.0) or container does not show it. Both
 * numbers are needed: a generation begins before its commit, and the count of commits grows a moment after one has ended.
 */
export async function commitsOf(device: string): Promise<string | null> {
  const generation = (await read(device, 'generation'))?.trim();
  const commits = /^commits (\d+)$/m.exec((await read(device, 'commit_stats')) ?? '')?.[1];
  return generation === undefined || commits === undefined ? null : `${generation}:${commits}`;
}

/** What the disk has done wrong since the pool was made, for people; null if nothing. */
export async function deviceErrors(device: string): Promise<string | null> {
  const text = (await read(device, 'devinfo/1/error_stats')) ?? '';
  const errors = text.split('\n').filter((line) => /_errs [1-9]/.test(line));
  return errors.length === 0 ? null : `the disk has made errors (${errors.join(', ')}): see "btrfs device stats"`;
}

async function read(device: string, path: string): Promise<string | null> {
  const folder = await folderOf(device);
  return folder === null ? null : await nullIfMissing(readFile(join(folder, path), 'utf8'));
}

async function folderOf(device: string): Promise<string | null> {
  const name = device.split('/').at(-1) ?? '';
  for (const folder of (await nullIfMissing(readdir(root))) ?? [])
    if ((await nullIfMissing(stat(join(root, folder, 'devices', name)))) !== null) return join(root, folder);
  return null;
}
