import { chmod, chown, lstat, mkdir, open, readdir, readlink, rename, rm, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId } from '../../../controller/model/names.ts';
import type { Commands } from '../../exec.ts';
import { type DatasetOptions, stampBytesMax } from '../storage.ts';
import {
  compressionArguments,
  createArguments,
  deleteArguments,
  type Layout,
  layoutBelow,
  limitArguments,
  listArguments,
  readCompressionArguments,
  showArguments,
  snapshotArguments,
  syncArguments,
} from './arguments.ts';
import { errnoOf, nullIfMissing } from './errors.ts';
import { parseCompression, parseShown, parseSubvolumes, type Shown, type Subvolume } from './parse.ts';
import { notePristine, writeLink } from './pristine.ts';

export type BtrfsTools = {
  readonly btrfs: string;
  readonly mkfs: string;
  readonly mount: string;
  readonly umount: string;
  readonly losetup: string;
};

export type BtrfsConfig = {
  /** The pool: a file such as /var/lib/flock/pool.btrfs, or a block device. */
  readonly path: string;
  /** Where the top level is mounted, for flock alone. */
  readonly topMount: string;
  /** Volumes are mounted at MOUNT_ROOT/ID. */
  readonly mountRoot: string;
  readonly tools: BtrfsTools;
};

/** Flushing a volume's writes can take long on a slow disk; a limit is only there so that nothing waits for ever. */
const flushMs = 600_000;
const deletesMax = 50;

export type Host = ReturnType<typeof createHost>;

/** What every operation below an open pool is made of. */
export function createHost(config: BtrfsConfig, commands: Commands) {
  const layout: Layout = layoutBelow(config.topMount);
  const btrfs = (args: readonly string[]) => commands.run(config.tools.btrfs, args, { timeoutMs: flushMs });

  /** Commits: whatever was done before survives a power cut. */
  async function sync(path = layout.top): Promise<void> {
    await btrfs(syncArguments(path));
  }

  async function subvolumes(): Promise<readonly Subvolume[]> {
    return parseSubvolumes(await btrfs(listArguments(layout.top)));
  }

  async function show(path: string): Promise<Shown> {
    return parseShown(await btrfs(showArguments(path)));
  }

  /** Sets or lifts (null) the limit of what a subvolume may refer to. */
  async function limit(bytes: number | null, path: string): Promise<void> {
    await btrfs(limitArguments(bytes, (await show(path)).id, layout.top));
  }

  async function deleteSubvolumes(paths: readonly string[]): Promise<void> {
    for (let at = 0; at < paths.length; at += deletesMax)
      await btrfs(deleteArguments(paths.slice(at, at + deletesMax)));
  }

  /** Removes a subvolume, or a plain directory with the subvolumes in it. Nothing to do where nothing is. */
  async function discard(path: string): Promise<void> {
    const stats = await nullIfMissing(lstat(path));
    if (stats === null) return;
    if (!stats.isDirectory()) return await rm(path);
    if (stats.ino === subvolumeInode) return await deleteSubvolumes([path]);
    // A receiver that was killed may still be inside its last system call and make something new.
    const triesMax = 10;
    for (let tries = 1; ; tries += 1) {
      for (const name of await readdir(path)) await discard(join(path, name));
      try {
        return await rmdir(path);
      } catch (error) {
        if (tries === triesMax) throw error;
        await sleep(50);
      }
    }
  }

  const isLive = async (id: DatasetId) => (await nullIfMissing(stat(layout.live(id)))) !== null;

  async function requireLive(id: DatasetId): Promise<void> {
    if (!(await isLive(id)))
      throw new FlockError('dataset-missing', `the dataset ${id} is not in the pool ${config.path}`, { id });
  }

  /**
   * The stamp is the target of a symbolic link: that is metadata, which can still be written in a full pool, where a volume has to
   * be stamped to be thrown away. It is durable with the next `sync`.
   */
  async function writeStamp(id: DatasetId, text: string): Promise<void> {
    await writeLink(encodeStamp(text), layout.work(id, 'stamp'), layout.stamp(id));
  }

  async function readStamp(id: DatasetId): Promise<string | null> {
    const target = await nullIfMissing(readlink(layout.stamp(id)));
    return target === null ? null : decodeStamp(target);
  }

  /**
   * Makes the live subvolume `id`, empty or with the content of `source`. It is made complete elsewhere and moved into place at the
   * end, so a dataset that is there has its quota, owner and stamp, and after a crash the whole is done again.
   */
  async function makeLive(id: DatasetId, source: string | null, options: DatasetOptions): Promise<void> {
    const work = layout.work(id, 'live');
    await discard(work);
    await btrfs(source === null ? createArguments(work) : snapshotArguments(source, work));
    // A snapshot inherits the limit of its source.
    if (source !== null) await limit(null, work);
    if (options.compression !== null) await compress(work, options.compression);
    const { uid, gid, mode } = options;
    if (uid !== null || gid !== null) {
      const owner = await stat(work);
      await chown(work, uid ?? owner.uid, gid ?? owner.gid);
    }
    // After chown, which clears the set-id bits.
    if (mode !== null || source === null) await chmod(work, mode ?? 0o755);
    if (options.quotaBytes !== null) await limit(options.quotaBytes, work);
    await writeStamp(id, options.stamp);
    if (source !== null) await notePristine({ layout, sync, show }, id, work);
    await rename(work, layout.live(id));
    await sync();
  }

  /** Only where it is not so already, for it changes the root directory; answers whether it did. `''` is the pool's default. */
  async function compress(path: string, value: string): Promise<boolean> {
    const found = parseCompression(await btrfs(readCompressionArguments(path))) ?? '';
    if (found === (value === 'off' ? 'none' : value)) return false;
    await btrfs(compressionArguments(path, value));
    return true;
  }

  return {
    config,
    commands,
    layout,
    btrfs,
    sync,
    subvolumes,
    show,
    limit,
    deleteSubvolumes,
    discard,
    isLive,
    requireLive,
    writeStamp,
    readStamp,
    makeLive,
    compress,
  };
}

/** The root directory of every subvolume has this inode number. */
export const subvolumeInode = 256;

export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Makes one directory. `recursive` is not for a pool: on a read-only one Node then fails with ENOENT instead of EROFS. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
}

export function checkStamp(text: string): void {
  const bytes = Buffer.byteLength(text);
  if (bytes > stampBytesMax)
    throw new FlockError('invalid-option', `a stamp of ${bytes} bytes is too long: at most ${stampBytesMax}`, {
      bytes,
    });
}

/** A link has a target, and no NUL in it. */
const stampPrefix = 'stamp:';

function encodeStamp(text: string): string {
  return stampPrefix + text.replaceAll('%', '%25').replaceAll('\0', '%00');
}

function decodeStamp(target: string): string {
  return target.slice(stampPrefix.length).replaceAll('%00', '\0').replaceAll('%25', '%');
}
