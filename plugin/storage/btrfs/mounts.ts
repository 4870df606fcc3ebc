import { mkdir, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId } from '../../../controller/model/names.ts';
import { copiesOf, mountedAnywhere, mountedAt, readMountTable } from '../../mount-table.ts';
import type { MountEntry } from '../storage.ts';
import { isRootOf, mountArguments } from './arguments.ts';
import { errnoOf } from './errors.ts';
import { type Host, subvolumeInode } from './host.ts';

export function isMountOf(entry: MountEntry, id: DatasetId): boolean {
  return entry.fsType === 'btrfs' && isRootOf(entry.root, id);
}

export function mountPathOf(host: Host, id: DatasetId): string {
  return join(host.config.mountRoot, id);
}

export async function mountVolume(host: Host, device: string, id: DatasetId): Promise<string> {
  const path = mountPathOf(host, id);
  await host.requireLive(id);
  const entry = mountedAt(await readMountTable(), path);
  if (entry?.root === `/volumes/${id}` && entry.fsType === 'btrfs' && (await isAlive(path))) return path;
  // Whatever else is here (a subvolume that was deleted, a device that is gone) would be covered and kept for ever.
  if (entry !== null) await host.commands.run(host.config.tools.umount, [path]);
  await mkdir(path, { recursive: true, mode: 0o755 });
  try {
    await host.commands.run(host.config.tools.mount, mountArguments.volume(device, id, path));
  } catch (error) {
    await removeMountPoint(path);
    throw error;
  }
  return path;
}

export async function unmountVolume(host: Host, id: DatasetId): Promise<void> {
  const path = mountPathOf(host, id);
  if (mountedAt(await readMountTable(), path) !== null) {
    try {
      // Unmounting one subvolume of several writes nothing by itself.
      await host.sync(path);
    } finally {
      while (mountedAt(await readMountTable(), path) !== null)
        await host.commands.run(host.config.tools.umount, [path]);
    }
  }
  const copies = copiesOf(await readMountTable(), (entry) => isMountOf(entry, id), path);
  for (const copy of copies) await host.commands.run(host.config.tools.umount, ['--lazy', copy]);
  await removeMountPoint(path);
}

/**
 * btrfs deletes and renames a subvolume under its mounts without a word, so they have to be looked for: in the mount tables of all
 * containers, as far as this process sees them.
 */
export async function refuseIfMounted(host: Host, id: DatasetId): Promise<void> {
  const found = await findMount(host, id);
  if (found === null) return;
  throw new FlockError('volume-busy', `the dataset ${id} is mounted at ${found.mountPoint}: unmount it first`, {
    id,
    mountPoint: found.mountPoint,
  });
}

/** In this pool: another one on the same machine may hold a replica, which has the same id. */
export async function findMount({ config }: Host, id: DatasetId): Promise<MountEntry | null> {
  // All mounts of one file system have its number.
  const device = mountedAt(await readMountTable(), config.topMount)?.device;
  return await mountedAnywhere((entry) => isMountOf(entry, id) && (device ?? entry.device) === entry.device);
}

async function isAlive(path: string): Promise<boolean> {
  try {
    return (await stat(path)).ino === subvolumeInode;
  } catch (error) {
    if (errnoOf(error) === null) throw error;
    return false;
  }
}

async function removeMountPoint(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    // Files in a bare directory are somebody's: they stay.
    if (!['ENOENT', 'ENOTEMPTY'].includes(errnoOf(error) ?? '')) throw error;
  }
}
