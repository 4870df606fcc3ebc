import { realpath, rm, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { FlockError } from '../../../controller/model/errors.ts';
import { formatSize } from '../../../controller/model/quantity.ts';
import { CommandError, type Commands } from '../../exec.ts';
import { attachLoopArguments, findLoopArguments } from './arguments.ts';
import { nullIfMissing } from './errors.ts';
import type { BtrfsTools } from './host.ts';
import { parseLoops } from './parse.ts';

export type PoolFile = {
  readonly kind: 'file' | 'device';
  /** Without symbolic links, as the mount table shows a device. */
  readonly path: string;
  readonly inode: number;
  /** Changes when something else is at this path. */
  readonly identity: string;
  readonly sizeBytes: number;
};

/** What is at the pool's path; null if nothing is. */
export async function findPoolFile(path: string): Promise<PoolFile | null> {
  const stats = await nullIfMissing(stat(path));
  if (stats === null) return null;
  if (!stats.isFile() && !stats.isBlockDevice())
    throw new FlockError('pool-unusable', `${path} is neither a file nor a block device`, { path });
  return {
    kind: stats.isFile() ? 'file' : 'device',
    path: await realpath(path),
    inode: stats.ino,
    identity: `${stats.dev}:${stats.ino}:${stats.rdev}`,
    sizeBytes: stats.size,
  };
}

/**
 * The block device of the pool. A file gets a loop device, and never a second one: the kernel would mount both read-write
 * ("temp-fsid") and the file system would be destroyed without a word.
 */
export async function deviceOf(file: PoolFile, tools: BtrfsTools, commands: Commands): Promise<string> {
  if (file.kind === 'device') return file.path;
  const loops = parseLoops(await commands.run(tools.losetup, findLoopArguments(file.path)), file.inode);
  if (loops.length > 1)
    throw new FlockError(
      'pool-unusable',
      `${file.path} is attached to ${loops.join(' and ')}: mounting both would destroy it. Detach all but one with "losetup -d"`,
      { loops },
    );
  return loops[0] ?? (await commands.run(tools.losetup, attachLoopArguments(file.path))).trim();
}

/** From now on the loop device goes away with its last mount, also if this process does not live to see it. */
export async function detachWhenUnused(file: PoolFile, device: string, tools: BtrfsTools, commands: Commands) {
  if (file.kind === 'file') await commands.run(tools.losetup, ['-d', device]);
}

/** Of a file that is to be removed: nothing else would ever end its loop devices. */
export async function detachAll(file: PoolFile, tools: BtrfsTools, commands: Commands): Promise<void> {
  const loops = parseLoops(await commands.run(tools.losetup, findLoopArguments(file.path)), file.inode);
  for (const device of loops) await commands.run(tools.losetup, ['-d', device]);
}

const allocateMs = 600_000;

/**
 * A file with every block allocated, so that a full host disk can't damage the pool later. `fallocate` that runs out of space has
 * by then taken all there is, so room is looked at first and the rest is given back.
 */
export async function allocate(path: string, sizeBytes: number, commands: Commands): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(path));
  if (bavail * bsize < sizeBytes)
    throw new FlockError(
      'pool-unusable',
      `a pool of ${formatSize(sizeBytes)} does not fit: ${dirname(path)} has ${formatSize(bavail * bsize)} free. Ask for a smaller pool or make room`,
      { sizeBytes, freeBytes: bavail * bsize },
    );
  try {
    await commands.run('fallocate', ['-l', String(sizeBytes), path], { timeoutMs: allocateMs });
  } catch (error) {
    await rm(path, { force: true });
    if (!(error instanceof CommandError)) throw error;
    throw new FlockError('pool-unusable', `${path} can't be allocated: ${error.message}`, {}, { cause: error });
  }
}
