import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseVolumeName } from '../../controller/model/names.ts';
import { createCommands } from '../../plugin/exec.ts';
import { createBtrfs } from '../../plugin/storage/btrfs/btrfs.ts';
import type { Storage } from '../../plugin/storage/storage.ts';
import { createZfs } from '../../plugin/storage/zfs/zfs.ts';
import type { Context } from '../../plugin/volumes/context.ts';
import { openBtrfsPool } from '../support/btrfs-pool.ts';
import { type CrashHost, commandsWithFuse, crashSuite } from '../support/crash-points.ts';
import { isShort } from '../support/short.ts';
import { startZfsFuse } from '../support/zfs-fuse.ts';

/** Commands of zfs-fuse take long. */
const stepsApart = isShort ? 4 : 1;

/** Content through the real file system. */
const throughMount: Pick<CrashHost<Storage>, 'write' | 'read'> = {
  write: (storage, context, volume, text) =>
    mounted(storage, context, volume, (path) => writeFile(join(path, 'file'), text)),
  read: (storage, context, volume) =>
    mounted(storage, context, volume, (path) => readFile(join(path, 'file'), 'utf8').catch(() => null)),
};

async function mounted<T>(
  storage: Storage,
  context: Context,
  volume: string,
  work: (path: string) => Promise<T>,
): Promise<T> {
  const record = context.state.byName(parseVolumeName(volume));
  if (record === undefined) throw new Error(`no volume ${volume}`);
  const path = await storage.mount(record.id);
  try {
    return await work(path);
  } finally {
    await storage.unmount(record.id);
  }
}

describe('a process that dies before any of its commands (btrfs)', () => {
  crashSuite<Storage>(async () => {
    const pool = await openBtrfsPool();
    await pool.storage.makePool(512 * 1024 ** 2);
    await pool.storage.close();
    return {
      ...throughMount,
      makeStorage: (fuse) => Promise.resolve(createBtrfs(pool.config, commandsWithFuse(createCommands(), fuse))),
      dispose: pool.dispose,
    };
  });
});

describe('a process that dies before any of its commands (zfs)', () => {
  crashSuite<Storage>(async () => {
    const fuse = await startZfsFuse();
    await mkdir(fuse.config.mountRoot, { recursive: true });
    return {
      ...throughMount,
      makeStorage: (burning) => Promise.resolve(createZfs(fuse.config, commandsWithFuse(createCommands(), burning))),
      dispose: fuse.stop,
    };
  }, stepsApart);
});
