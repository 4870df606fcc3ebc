import { readFile } from 'node:fs/promises';
import type { DatasetId } from '../controller/model/names.ts';
import { allMountTables, parseMountInfo } from './mount-table.ts';
import type { MountEntry, Storage } from './storage/storage.ts';

/** A process whose mount namespace shows a volume: a container, or a host process that works on one (docker cp). */
export type Holder = { readonly pid: number; readonly containerId: string | null; readonly mountPoint: string };

/**
 * Who has these datasets mounted, from the kernel's own tables of every process (so `pidhost` is needed). Docker's messages can be
 * lost; a mount can't. The plugin's own mounts in `ownFolders`, which show on the host too, don't count.
 */
export async function findHolders(
  storage: Storage,
  ids: readonly DatasetId[],
  ownFolders: readonly string[],
): Promise<ReadonlyMap<DatasetId, readonly Holder[]>> {
  const holders = new Map<DatasetId, Holder[]>();
  if (ids.length === 0) return holders;
  const ownPlaces = await findOwnPlaces(ownFolders);
  for await (const { pid, entries } of allMountTables()) {
    for (const entry of entries) {
      const id = ids.find((candidate) => storage.isMountOf(entry, candidate));
      if (id === undefined || isOwnMount(entries, entry, id, ownPlaces)) continue;
      const holder = { pid, containerId: await containerOf(pid), mountPoint: entry.mountPoint };
      holders.set(id, [...(holders.get(id) ?? []), holder]);
    }
  }
  return holders;
}

/**
 * A directory, whatever it is called where one looks from: the file system that it is in, and its path there.
 * `/mnt/flock/volumes` of the plugin is Docker's `.../plugins/PLUGIN/propagated-mount/volumes` on the host, and the same below a bind
 * of `/` in some container: one place. A container's own `/mnt/flock/volumes` is another one.
 */
export type Place = { readonly device: string; readonly path: string };

/** Docker's folder for what a plugin mounts, whichever folder of the host Docker's data is in: PLUGIN is 64 hex digits. */
const propagated = /\/[0-9a-f]{64}\/propagated-mount\/volumes\/$/;

/** As the plugin sees the folders, and the host: the watchdog has none of the plugin's mounts, and zfs-fuse runs on the host. */
export async function findOwnPlaces(folders: readonly string[]): Promise<readonly Place[]> {
  const tables = await Promise.all(
    ['self', '1'].map((process) => readFile(`/proc/${process}/mountinfo`, 'utf8').catch(() => '')),
  );
  return tables.flatMap((text) => placesOf(parseMountInfo(text), folders));
}

/** Where the folders are in which flock, or zfs-fuse for it, mounts volumes. `table`: of the process that the paths are of. Pure. */
export function placesOf(table: readonly MountEntry[], folders: readonly string[]): readonly Place[] {
  return folders.flatMap((folder) => placeOf(table, `${folder}/`) ?? []);
}

/** Whether flock itself made this mount, the one of `id`, or it is a copy of one that it made. `table`: the one with the entry. Pure. */
export function isOwnMount(
  table: readonly MountEntry[],
  entry: MountEntry,
  id: DatasetId,
  ownPlaces: readonly Place[],
): boolean {
  const place = placeOf(table, entry.mountPoint);
  if (place === null || !place.path.endsWith(`/${id}`)) return false;
  if (propagated.test(place.path.slice(0, -id.length))) return true;
  return ownPlaces.some(({ device, path }) => place.device === device && place.path === `${path}${id}`);
}

/** The place of a mount point itself is in the file system below it. Null outside of all that the table shows (a chroot). */
function placeOf(table: readonly MountEntry[], path: string): Place | null {
  let below: MountEntry | null = null;
  for (const entry of table) {
    const isAbove = entry.mountPoint !== path && path.startsWith(withSlash(entry.mountPoint));
    // Of several on one mount point the last one is on top.
    if (isAbove && (below === null || entry.mountPoint.length >= below.mountPoint.length)) below = entry;
  }
  if (below === null) return null;
  return { device: below.device, path: withSlash(below.root) + path.slice(withSlash(below.mountPoint).length) };
}

function withSlash(path: string): string {
  return path.endsWith('/') ? path : `${path}/`;
}

async function containerOf(pid: number): Promise<string | null> {
  return containersIn(await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => ''))[0] ?? null;
}

/** From the outermost one on. Docker names a container's cgroup by its 64-digit id, in every cgroup layout. Pure. */
export function containersIn(cgroup: string): readonly string[] {
  return cgroup.match(/\b[0-9a-f]{64}\b/g) ?? [];
}
