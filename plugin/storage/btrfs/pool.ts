import { chmod, mkdir, rename, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FlockError, messageOf } from '../../../controller/model/errors.ts';
import { CommandError } from '../../exec.ts';
import { mountedAt, readMountTable } from '../../mount-table.ts';
import type { PoolStatus } from '../storage.ts';
import { folders, mkfsArguments, mountArguments } from './arguments.ts';
import { nullIfMissing, translate } from './errors.ts';
import { type Host, makeFolder, syncDirectory } from './host.ts';
import { allocate, detachAll, detachWhenUnused, deviceOf, findPoolFile, type PoolFile } from './loop.ts';
import { deviceErrors, keepCounting } from './sysfs.ts';
import { recoverIncoming } from './transfer.ts';

export type Pool = {
  /** The block device of the pool, which is mounted when this returns. Throws one of the pool codes. */
  open(): Promise<string>;
  make(sizeBytes: number): Promise<void>;
  status(): Promise<PoolStatus>;
  close(): Promise<void>;
};

const mkfsMs = 300_000;

/**
 * INVARIANTS
 * - At most one loop device per pool file (deviceOf).
 * - What is at `topMount` was verified to be this pool before anything was done below it, and again when the file changes.
 * - A pool file appears at its path only when it is complete; a device without flock's folders is somebody else's.
 */
export function createPool(host: Host): Pool {
  const { config, commands } = host;
  const { path, topMount, tools } = config;
  let verified: { readonly identity: string; readonly device: string } | null = null;
  let opening: Promise<string> | null = null;

  async function open(): Promise<string> {
    const file = await findPoolFile(path);
    if (file === null) throw new FlockError('pool-missing', `the pool ${path} is not there`, { path });
    const top = await mountedTop();
    if (verified !== null && verified.identity === file.identity && top?.source === verified.device)
      return verified.device;
    opening ??= openAnew(file).finally(() => {
      opening = null;
    });
    return await opening;
  }

  const mountedTop = async () => mountedAt(await readMountTable(), topMount);

  async function openAnew(file: PoolFile): Promise<string> {
    if (file.sizeBytes === 0 && file.kind === 'file')
      throw new FlockError('pool-unusable', `${path} is an empty file, not a pool`, { path });
    const device = await mountTop(file);
    for (const folder of folders) {
      if ((await nullIfMissing(stat(join(topMount, folder)))) !== null) continue;
      await commands.run(tools.umount, [topMount]);
      throw new FlockError('pool-unusable', `${path} is a btrfs, but not a pool of flock: it has no ${folder}`, {
        path,
      });
    }
    if ((await mountedTop())?.readOnly === false) {
      // Does nothing where they are on.
      await host.btrfs(['quota', 'enable', topMount]);
      await keepCounting(device);
      await recoverIncoming(host);
    }
    verified = { identity: file.identity, device };
    return device;
  }

  async function mountTop(file: PoolFile): Promise<string> {
    const device = await deviceOf(file, tools, commands);
    const top = await mountedTop();
    if (top === null) {
      await mkdir(topMount, { recursive: true, mode: 0o700 });
      try {
        await commands.run(tools.mount, mountArguments.top(device, topMount));
      } finally {
        await detachWhenUnused(file, device, tools, commands);
      }
    } else if (top.source !== device || top.fsType !== 'btrfs' || top.root !== '/') {
      await detachWhenUnused(file, device, tools, commands);
      throw new FlockError('pool-unusable', `at ${topMount} ${top.source} is mounted instead of ${path}`, { topMount });
    }
    return device;
  }

  async function make(sizeBytes: number): Promise<void> {
    const file = await findPoolFile(path);
    if (file?.kind === 'device') return await makeOn(file);
    if (file !== null && file.sizeBytes > 0)
      throw new FlockError('pool-unusable', `${path} is there already and not empty: flock overwrites nothing`, {
        path,
      });
    const unfinished = `${path}.new`;
    // Left by a crash; it never was a pool.
    const left = await findPoolFile(unfinished);
    if (left?.kind === 'file') await detachAll(left, tools, commands);
    await host.discard(unfinished);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await allocate(unfinished, sizeBytes, commands);
    const made = await findPoolFile(unfinished);
    if (made === null) throw new FlockError('storage-failed', `${unfinished} has vanished`, { path });
    try {
      await makeOn(made);
    } catch (error) {
      await host.discard(unfinished);
      throw error;
    }
    await rename(unfinished, path);
    await syncDirectory(dirname(path));
  }

  /** A device is used whole. */
  async function makeOn(file: PoolFile): Promise<void> {
    await commands.run(tools.mkfs, mkfsArguments(file.path), { timeoutMs: mkfsMs });
    await mountTop(file);
    try {
      await host.btrfs(['quota', 'enable', topMount]);
      // Nobody but root may reach what is being received, or read a snapshot past the owner of its volume.
      await chmod(topMount, 0o700);
      for (const folder of folders) await makeFolder(join(topMount, folder));
      await host.sync();
    } finally {
      await commands.run(tools.umount, [topMount]);
    }
  }

  async function status(): Promise<PoolStatus> {
    const name = path;
    try {
      const device = await open();
      const { blocks, bavail, bsize } = await statfs(topMount);
      const state = (await mountedTop())?.readOnly === true ? 'read-only' : 'online';
      return { state, name, sizeBytes: blocks * bsize, freeBytes: bavail * bsize, warning: await deviceErrors(device) };
    } catch (error) {
      const known = translate(error, 'pool-unusable');
      const isMissing = known instanceof FlockError && known.code === 'pool-missing';
      // Its file or link may be away for a moment, while what is mounted works on.
      const isMounted = isMissing && verified !== null && (await mountedTop())?.source === verified.device;
      return { state: isMissing && !isMounted ? 'missing' : 'unusable', name, reason: messageOf(known) };
    }
  }

  async function close(): Promise<void> {
    if ((await mountedTop()) === null) return;
    try {
      await host.sync();
    } catch (error) {
      // A pool that is broken is given back all the same.
      if (!(error instanceof CommandError)) throw error;
    }
    await commands.run(tools.umount, [topMount]);
    // Only now: opening sweeps unfinished work, and while something is under way the mount is busy.
    verified = null;
  }

  return { open, make, status, close };
}
