import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCommands } from '../../../plugin/exec.ts';
import { readMountTable } from '../../../plugin/mount-table.ts';
import type { PoolMaker, Storage } from '../../../plugin/storage/storage.ts';
import { createZfs, type ZfsConfig } from '../../../plugin/storage/zfs/zfs.ts';

export type ModulePool = {
  readonly config: ZfsConfig;
  readonly storage: Storage & PoolMaker;
  dispose(): Promise<void>;
};

export const { run } = createCommands();
export const zfs = (...args: readonly string[]): Promise<string> => run('zfs', args);
export const zpool = (...args: readonly string[]): Promise<string> => run('zpool', args);

let lastPool = 0;

/** A backend on the module, with a pool file in a folder of its own. The pool is not made yet. */
export async function openPool(changes: Partial<ZfsConfig> = {}): Promise<ModulePool> {
  lastPool += 1;
  const folder = await mkdtemp(join(tmpdir(), 'flock-zfs-'));
  await mkdir(join(folder, 'volumes'));
  const config: ZfsConfig = {
    // All pools are of one kernel.
    prefix: `flock${lastPool}/volumes`,
    poolFile: join(folder, 'pool.zfs'),
    mountRoot: join(folder, 'volumes'),
    daemonMountRoot: join(folder, 'daemon'),
    variant: 'openzfs',
    tools: { zfs: 'zfs', zpool: 'zpool', mount: 'mount', umount: 'umount' },
    ...changes,
  };
  const dispose = async () => {
    const mounts = (await readMountTable()).filter(({ mountPoint }) => mountPoint.startsWith(`${folder}/`));
    for (const { mountPoint } of mounts.toReversed()) await run('umount', ['-l', mountPoint]);
    const pool = config.prefix.split('/')[0] ?? '';
    if ((await zpool('list', '-H', '-o', 'name')).split('\n').includes(pool)) await zpool('destroy', '-f', pool);
    await rm(folder, { recursive: true });
  };
  return { config, storage: createZfs(config, createCommands()), dispose };
}
