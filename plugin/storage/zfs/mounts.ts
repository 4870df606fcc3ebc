import { mkdir, rmdir, statfs } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError, hasCode } from '../../../controller/model/errors.ts';
import { type DatasetId, isDatasetId } from '../../../controller/model/names.ts';
import { createSlots } from '../../exec.ts';
import { copiesOf, mountedAnywhere, mountedAt, readMountTable } from '../../mount-table.ts';
import type { MountEntry } from '../storage.ts';
import { datasetPath, mountProperties, setArguments } from './arguments.ts';
import { daemonAdvice, reasonOf } from './errors.ts';
import { busy, type Runner, whileBusy } from './runner.ts';

export type Mounts = {
  mount(id: DatasetId): Promise<string>;
  unmount(id: DatasetId): Promise<void>;
  /**
   * Has what was synced to the intent log before the host lost its power, or zfs-fuse was killed, written into the dataset. Only a mount
   * does that: until then OpenZFS makes snapshots without it, and zfs-fuse none.
   */
  replayLog(id: DatasetId): Promise<void>;
  path(id: DatasetId): string;
  isMountOf(entry: MountEntry, id: DatasetId): boolean;
  /** Lets go of what only the daemon holds; answers whether it is mounted nowhere that can be seen. */
  letGo(id: DatasetId): Promise<boolean>;
  /** As letGo, but throws `volume-busy` if it is mounted here, or, where that can be told, anywhere. */
  requireUnmounted(id: DatasetId): Promise<void>;
};

/** A mount whose daemon was killed answers at once; one whose daemon is stopped never does. */
const answerMs = 5_000;
const mountTriesMax = 4;
const unmountedProperty = 'flock:unmounted';
/** A daemon that hangs must not keep Docker waiting for long. */
const writeOutMs = 30_000;
/** zfs-fuse fails with EIO at about 1,010 mounts (measured). */
const daemonMountsMax = 800;
const replaysMax = 8;
/** Layers of one mount point; more are a loop of ours. */
const layersMax = 32;

export function createMounts(runner: Runner): Mounts {
  const { config } = runner;
  const path = (id: DatasetId) => `${config.mountRoot}/${id}`;
  const daemonPath = (id: DatasetId) => `${config.daemonMountRoot}/${id}`;
  const isFuse = config.variant === 'zfs-fuse';
  /** Were mounted since the pool was imported. */
  const replayed = new Set<DatasetId>();
  /** Each makes room for itself only. */
  const slots = createSlots(replaysMax);

  function isOurs(entry: MountEntry, id: DatasetId): boolean {
    return (entry.fsType === 'zfs' || entry.fsType === 'fuse.zfs') && entry.source === datasetPath(config, id);
  }

  function isMountOf(entry: MountEntry, id: DatasetId): boolean {
    return isOurs(entry, id) && !(isFuse && entry.mountPoint === daemonPath(id));
  }

  /** Whether this dataset is mounted at the place and answers. What is dead there is removed. */
  async function isAlive(id: DatasetId, place: string): Promise<boolean> {
    for (let layer = 0; layer < layersMax; layer += 1) {
      const entry = mountedAt(await readMountTable(), place);
      if (entry === null) return false;
      const answer = await ask(place);
      if (answer === 'silent') throw new FlockError('storage-daemon-down', daemonAdvice(config), { place });
      if (answer === 'alive' && isOurs(entry, id) && !entry.readOnly) return true;
      if (answer === 'alive' && !isOurs(entry, id)) {
        throw new FlockError('storage-failed', `${place} is the mount point of ${entry.source} (${entry.fsType})`);
      }
      await runner.umount(['-l', '--', place]);
    }
    throw new FlockError('storage-failed', `more than ${layersMax} mounts lie over each other at ${place}`);
  }

  async function requireProperties(id: DatasetId): Promise<void> {
    const dataset = datasetPath(config, id);
    const wanted = mountProperties(config, id);
    const found = (await runner.get(Object.keys(wanted), [dataset])).get(dataset);
    const wrong = Object.entries(wanted).filter(([name, value]) => found?.get(name)?.value !== value);
    await runner.set(dataset, Object.fromEntries(wrong));
  }

  /**
   * Lets the daemon on the host mount the dataset where we see it. It stays mounted there when the volume is no longer used: Docker
   * mounts, unmounts and mounts again within milliseconds, and zfs-fuse, which ends a FUSE session some time after its mount has gone,
   * then takes the new one down with the old (measured: lookups in the new mount answer ENOENT).
   */
  async function mountByDaemon(id: DatasetId): Promise<void> {
    const place = daemonPath(id);
    if (await isAlive(id, place)) return;
    await makeRoom();
    for (let tries = 1; ; tries += 1) {
      if (await isAlive(id, place)) return;
      // Our unmounting does not reach the host if its mounts only come to us (rslave). Removing the directory does: the kernel
      // then detaches whatever is mounted there in any name space, such as the dead mount of a killed daemon.
      await removeMountPoint(place);
      await requireProperties(id);
      await mkdir(place, { recursive: true });
      try {
        await runner.zfs(['mount', '--', datasetPath(config, id)]);
      } catch (error) {
        const isLeftover = error instanceof FlockError && /Input\/output error/.test(error.message);
        if (!isLeftover || tries > mountTriesMax) throw error;
        await sleep(100 * tries);
        continue;
      }
      // The daemon answers before its mount has come here, and a session that is just ending may take a new mount away with it.
      for (let looks = 0; looks < 10; looks += 1) {
        if (await isAlive(id, place)) return;
        await sleep(50);
      }
      if (tries <= mountTriesMax) continue;
      throw new FlockError(
        'storage-failed',
        `zfs-fuse has mounted ${datasetPath(config, id)} at ${place}, but it is not seen here: ${config.daemonMountRoot} must be on a shared mount of the host ("findmnt -o PROPAGATION -T ${config.daemonMountRoot}")`,
      );
    }
  }

  /** Lets the daemon's longest idle mounts go when it is near the number that it can have. */
  async function makeRoom(): Promise<void> {
    const table = await readMountTable();
    const mounted = table.flatMap(({ mountPoint }) => {
      const id = mountPoint.slice(config.daemonMountRoot.length + 1);
      return mountPoint.startsWith(`${config.daemonMountRoot}/`) && isDatasetId(id) ? [id] : [];
    });
    if (mounted.length < daemonMountsMax) return;
    const idle = mounted.filter((id) => mountedAt(table, path(id)) === null);
    for (const id of idle.slice(0, daemonMountsMax / 10)) await unmountAt(daemonPath(id));
  }

  /** Answers whether anything was mounted. */
  async function unmountAt(place: string, isCopy?: (entry: MountEntry) => boolean): Promise<boolean> {
    const wasMounted = mountedAt(await readMountTable(), place) !== null;
    for (let layer = 0; layer < layersMax; layer += 1) {
      if (mountedAt(await readMountTable(), place) === null) break;
      try {
        await whileBusy(() => runner.umount(['--', place]));
      } catch (error) {
        if (reasonOf(error) === 'busy') throw busy(`${place} is in use by a process outside of containers`, { place });
        // A dead mount can only be let go.
        await runner.umount(['-l', '--', place]);
      }
    }
    if (isCopy !== undefined) {
      for (const copy of copiesOf(await readMountTable(), isCopy, place)) await runner.umount(['-l', '--', copy]);
    }
    await removeMountPoint(place);
    return wasMounted;
  }

  async function mountByKernel(id: DatasetId, place: string): Promise<void> {
    const dataset = datasetPath(config, id);
    await runner.mount(['-t', 'zfs', '--', dataset, place]);
    // So it is, without a word, where the pool was imported so.
    if (mountedAt(await readMountTable(), place)?.readOnly !== true) return;
    await runner.umount(['-l', '--', place]);
    throw new FlockError('pool-read-only', `${dataset} can only be mounted read-only: its pool is imported read-only`);
  }

  async function mount(id: DatasetId): Promise<string> {
    const place = path(id);
    // First a command, because it has a time limit: asking a mount whose daemon hangs would block a thread of ours.
    await runner.get(['mounted'], [datasetPath(config, id)]);
    if (await isAlive(id, place)) return place;
    if (isFuse) await mountByDaemon(id);
    else await requireProperties(id);
    await mkdir(place, { recursive: true });
    if (isFuse) await runner.mount(['--bind', '--', daemonPath(id), place]);
    else await mountByKernel(id, place);
    if (await isAlive(id, place)) return place;
    throw new FlockError('storage-failed', `${datasetPath(config, id)} was mounted at ${place} but is not there`);
  }

  async function unmount(id: DatasetId): Promise<void> {
    const wasMounted = await unmountAt(path(id), (entry) => isMountOf(entry, id));
    if (!wasMounted || !isFuse) return;
    // Setting a property waits until all that was written is on disk, as unmounting does elsewhere.
    const note = setArguments(datasetPath(config, id), unmountedProperty, new Date().toISOString());
    await runner.zfs(note, writeOutMs).catch((error: unknown) => {
      if (!hasCode(error, 'storage-daemon-down', 'dataset-missing', 'pool-missing', 'pool-full', 'pool-read-only'))
        throw error;
    });
  }

  return {
    path,
    isMountOf,
    async mount(id) {
      const place = await mount(id);
      replayed.add(id);
      return place;
    },
    unmount,

    async replayLog(id) {
      if (isFuse) {
        // A command first, as in `mount`.
        await runner.get(['mounted'], [datasetPath(config, id)]);
        // The daemon may have been killed since; what it has mounted stays mounted.
        return await slots(() => mountByDaemon(id));
      }
      if (replayed.has(id)) return;
      // A second mount beside one that is not seen here does no harm, but the one that Docker has is not ours to end.
      if (mountedAt(await readMountTable(), path(id)) === null && !(await isKnownToKernel(id))) {
        await mount(id);
        await unmount(id);
      }
      replayed.add(id);
    },

    async letGo(id) {
      return (await remaining(id)) === null;
    },

    async requireUnmounted(id) {
      const entry = await remaining(id);
      if (entry !== null) throw busy(`${id} is mounted at ${entry.mountPoint}`, { mountPoint: entry.mountPoint });
      if (!isFuse && (await isKnownToKernel(id))) throw busy(`${id} is mounted in another mount name space`, {});
    },
  };

  async function remaining(id: DatasetId): Promise<MountEntry | null> {
    if (isFuse && mountedAt(await readMountTable(), path(id)) === null) await unmountAt(daemonPath(id));
    return await mountedAnywhere((entry) => isMountOf(entry, id));
  }

  /** The module has a statistics file for each file system that is mounted, whoever has mounted it. */
  async function isKnownToKernel(id: DatasetId): Promise<boolean> {
    const dataset = datasetPath(config, id);
    const objectSet = (await runner.get(['objsetid'], [dataset])).get(dataset)?.get('objsetid')?.value ?? '';
    if (!/^[0-9]+$/.test(objectSet)) return false;
    const pool = config.prefix.split('/')[0] ?? '';
    const name = `objset-0x${BigInt(objectSet).toString(16)}`;
    return statfs(`/proc/spl/kstat/zfs/${pool}/${name}`).then(
      () => true,
      () => false,
    );
  }
}

async function ask(place: string): Promise<'alive' | 'dead' | 'silent'> {
  const abort = new AbortController();
  const answer = statfs(place).then(
    () => 'alive' as const,
    () => 'dead' as const,
  );
  const silence = sleep(answerMs, 'silent' as const, { signal: abort.signal }).catch(() => 'silent' as const);
  return Promise.race([answer, silence]).finally(() => abort.abort());
}

/** Never removes more than an empty directory. */
async function removeMountPoint(place: string): Promise<void> {
  await rmdir(place).catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    // Something was written below it while nothing was mounted; it is hidden again by the next mount, and not ours to remove.
    if (code !== 'ENOENT' && code !== 'ENOTEMPTY') throw error;
  });
}
