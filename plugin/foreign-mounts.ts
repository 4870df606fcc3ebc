import type { Commands } from './exec.ts';
import { readMountTable } from './mount-table.ts';
import type { MountEntry } from './storage/storage.ts';

/**
 * The plugin binds all of /var/lib, because Docker's daemon does not start when a bind source such as /var/lib/flock is missing. So it
 * gets copies of whatever else is mounted there: container roots, other disks. A copy keeps a file system busy after the host has
 * unmounted it, so these are dropped from the plugin's own mount namespace; the host's mounts are not touched.
 */
export async function dropForeignMounts(folder: string, commands: Commands): Promise<number> {
  const table = await readMountTable();
  const foreign = foreignMounts(table, folder);
  for (const path of foreign) await commands.run('umount', ['--lazy', '--no-canonicalize', path]);
  return foreign.length;
}

/** Mount points below the bound parent of `folder` that are not of `folder`, topmost only. Empty outside a managed plugin. Pure. */
export function foreignMounts(table: readonly MountEntry[], folder: string): readonly string[] {
  // On the host itself this would take every container's files away.
  const root = table.findLast((entry) => entry.mountPoint === '/')?.root ?? '/';
  if (!/\/plugins\/[0-9a-f]{64}\/rootfs$/.test(root)) return [];
  const parent = folder.slice(0, folder.lastIndexOf('/'));
  const isBelow = (path: string, above: string) => path.startsWith(`${above}/`);
  const candidates = table
    // Of the host's mounts these are private or slave copies. A shared one would take the host's along.
    .filter(({ shared }) => !shared)
    .map(({ mountPoint }) => mountPoint)
    .filter((path) => isBelow(path, parent) && path !== folder && !isBelow(path, folder));
  const topmost = candidates.filter((path) => !candidates.some((other) => isBelow(path, other)));
  // A mount point can have several mounts on it, each to be dropped.
  return topmost.toReversed();
}
