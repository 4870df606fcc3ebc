import { access, readFile, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FlockError, messageOf } from '../controller/model/errors.ts';
import { quote } from '../controller/model/names.ts';
import {
  decodeSettings,
  parseSettingsText,
  type Settings,
  type SettingsRequest,
  stashMsDefault,
  trashMsDefault,
  zfsPrefix,
} from '../controller/model/settings.ts';
import { fileProblem } from './disk-problems.ts';
import type { Commands } from './exec.ts';
import type { Paths } from './paths.ts';
import type { State } from './state.ts';
import { createBtrfs } from './storage/btrfs/btrfs.ts';
import type { PoolMaker, Storage } from './storage/storage.ts';
import { createZfs } from './storage/zfs/zfs.ts';

/**
 * The settings of this node: from the file, or on the very first start from FLOCK_SETTINGS and the defaults, which are then written
 * to the file. So `docker plugin set` is needed once at most, and an upgrade, which keeps Docker's old settings, changes nothing.
 */
export async function loadSettings(paths: Paths, firstSettings: string): Promise<Settings> {
  const text = await readFile(paths.settings, 'utf8').catch((error: unknown) => {
    if (isMissing(error)) return null;
    throw error;
  });
  if (text === null) {
    const settings = await completeSettings(paths, parseSettingsText(firstSettings));
    await saveSettings(paths, settings);
    return settings;
  }
  try {
    return decodeSettings(text);
  } catch (error) {
    throw new FlockError(
      'invalid-option',
      `${paths.settings} can't be read: ${messageOf(error)}. Mend it by hand, or move it away to start with the defaults (an existing pool is found again if it is where the settings say)`,
      {},
      { cause: error },
    );
  }
}

/** Written beside and moved over, so that a crash leaves the old or the new file. Throws `storage-failed` when the disk is full. */
export async function saveSettings(paths: Paths, settings: Settings): Promise<void> {
  const temporary = `${paths.settings}.new`;
  try {
    await writeFile(temporary, `${JSON.stringify(settings, null, 2)}\n`, { flush: true });
    await rename(temporary, paths.settings);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw fileProblem(error, paths.settings);
  }
}

const poolShareOfFree = 0.2;
const poolBytesMin = 1024 ** 3;
const poolBytesMax = 256 * 1024 ** 3;

async function completeSettings(paths: Paths, request: SettingsRequest): Promise<Settings> {
  const backend = request.backend ?? ((await exists(paths.zfsDevice)) ? 'zfs' : 'btrfs');
  const defaultPool = backend === 'zfs' ? 'flock/volumes' : join(paths.folder, 'pool.btrfs');
  const pool = request.pool ?? defaultPool;
  if ((backend === 'btrfs') !== pool.startsWith('/')) {
    throw new FlockError(
      'invalid-option',
      `pool ${quote(pool)} does not fit the backend ${backend}: use ${backend === 'zfs' ? 'a dataset such as tank/flock' : 'the path of a file or block device'}`,
    );
  }
  return {
    backend,
    pool,
    poolSizeBytes: request.poolSizeBytes ?? (await defaultPoolSize(paths.folder)),
    trashMs: request.trashMs ?? trashMsDefault,
    stashMs: request.stashMs ?? stashMsDefault,
    transferBytesPerSecond: request.transferBytesPerSecond ?? null,
    encryption: request.encryption ?? 'on',
  };
}

/** A fifth of what is free: room for a start without taking the host's disk. */
async function defaultPoolSize(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  const share = Math.floor((bavail * bsize * poolShareOfFree) / 1024 ** 3) * 1024 ** 3;
  return Math.min(Math.max(share, poolBytesMin), poolBytesMax);
}

export async function createStorage(
  paths: Paths,
  settings: Settings,
  commands: Commands,
): Promise<Storage & PoolMaker> {
  const { mountRoot } = paths;
  if (settings.backend === 'btrfs') {
    const tools = { btrfs: 'btrfs', mkfs: 'mkfs.btrfs', mount: 'mount', umount: 'umount', losetup: 'losetup' };
    return createBtrfs({ path: settings.pool, topMount: paths.poolMount, mountRoot, tools }, commands);
  }
  const variant = (await exists(paths.zfsDevice)) ? 'openzfs' : 'zfs-fuse';
  const folder = variant === 'openzfs' ? '' : paths.zfsFuseTools;
  return createZfs(
    {
      prefix: zfsPrefix(settings.pool),
      // A pool that the operator made is imported by whoever imports it on this host; ours is in a file.
      poolFile: settings.pool === 'flock/volumes' ? join(paths.folder, 'pool.zfs') : null,
      mountRoot,
      daemonMountRoot: paths.daemonMountRoot,
      variant,
      tools: { zfs: join(folder, 'zfs'), zpool: join(folder, 'zpool'), mount: 'mount', umount: 'umount' },
    },
    commands,
  );
}

/** Makes the pool on the first start of all. One that was there before and is gone now is never replaced by an empty one. */
export async function ensurePool(storage: Storage & PoolMaker, state: State, settings: Settings): Promise<void> {
  const status = await storage.pool();
  if (status.state === 'missing' && !state.poolKnown()) await storage.makePool(settings.poolSizeBytes);
  else if (status.state === 'missing')
    throw new FlockError('pool-missing', `the pool ${status.name} is not there: ${status.reason}`);
  else if (status.state === 'unusable' || status.state === 'failed')
    throw new FlockError('pool-unusable', `the pool ${status.name} can't be used: ${status.reason}`);
  if (!state.poolKnown()) state.setPoolKnown();
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}
