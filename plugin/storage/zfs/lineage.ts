import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId, SnapshotName } from '../../../controller/model/names.ts';
import type { DatasetOptions, Storage } from '../storage.ts';
import { cloneArguments, cloneOriginName, creationProperties, datasetPath, snapshotPath } from './arguments.ts';
import { reasonOf } from './errors.ts';
import type { Mounts } from './mounts.ts';
import { exactNumber } from './parse.ts';
import { isLent, lentProperty, type Renaming } from './renaming.ts';
import type { Runner } from './runner.ts';
import type { Snapshots } from './snapshots.ts';

export type Lineage = Pick<Storage, 'clone' | 'promote' | 'rename' | 'rollback'>;

/** Every step asks first what is there, so that each of these may be repeated after a crash between any two commands. */
export function createLineage(runner: Runner, mounts: Mounts, snapshots: Snapshots, renaming: Renaming): Lineage {
  const { config } = runner;
  const pathOf = (id: DatasetId) => datasetPath(config, id);

  /** The snapshot that a dataset is a clone of, null if it is none, undefined if it is not there. */
  async function originOf(id: DatasetId): Promise<string | null | undefined> {
    try {
      const path = pathOf(id);
      let found = (await runner.get(['origin', lentProperty], [path])).get(path);
      if (isLent(found?.get(lentProperty))) {
        await renaming.giveBack(path);
        found = (await runner.get(['origin'], [path])).get(path);
      }
      const origin = found?.get('origin')?.value ?? '-';
      return origin === '-' || origin === '' ? null : origin;
    } catch (error) {
      if (reasonOf(error) === 'missing') return undefined;
      throw error;
    }
  }

  async function cloneTo(origin: string, target: DatasetId, options: DatasetOptions): Promise<void> {
    const properties = creationProperties(config, await runner.support(), target, options, 'clone');
    await runner.zfs(cloneArguments(origin, pathOf(target), properties));
  }

  async function requireRoom(origin: string, { quotaBytes }: DatasetOptions): Promise<void> {
    if (quotaBytes === null) return;
    const found = (await runner.get(['referenced'], [origin])).get(origin) ?? new Map();
    const usedBytes = Number(exactNumber(origin, found, 'referenced'));
    if (usedBytes > quotaBytes) throw quotaBelowUsage(origin, usedBytes, quotaBytes);
  }

  async function cloneLive(id: DatasetId, target: DatasetId, options: DatasetOptions): Promise<void> {
    const name = cloneOriginName(target);
    const origin = snapshotPath(config, id, name);
    const leftover = (await snapshots.all(pathOf(id))).find((snapshot) => snapshot.name === name);
    // The content of a call that crashed may be long out of date.
    if (leftover !== undefined) await runner.zfs(['destroy', '--', origin]);
    await mounts.replayLog(id);
    await runner.zfs(['snapshot', '--', origin]);
    try {
      await requireRoom(origin, options);
      await cloneTo(origin, target, options);
    } finally {
      // It goes with its last clone, or at once if there is none.
      await runner.zfs(['destroy', '-d', '--', origin]);
    }
  }

  return {
    async clone({ id, snapshot }, target, options) {
      const origin = await originOf(target);
      if (origin === undefined) {
        if (snapshot === null) await cloneLive(id, target, options);
        else {
          const { path } = await snapshots.find(id, snapshot);
          await requireRoom(path, options);
          await cloneTo(path, target, options);
        }
        return;
      }
      // A repetition: all that may be left to do is to let go of the internal snapshot.
      const internal = snapshotPath(config, id, cloneOriginName(target));
      if (snapshot !== null || origin !== internal) return;
      const facts = (await snapshots.all(pathOf(id))).find(({ path }) => path === internal);
      if (facts?.deferred === false) await runner.zfs(['destroy', '-d', '--', internal]);
    },

    async promote(id) {
      try {
        await runner.zfs(['promote', pathOf(id)]);
      } catch (error) {
        if (reasonOf(error) !== 'not-a-clone') throw error;
      }
    },

    async rename(id, to) {
      const [here, there] = [await originOf(id), await originOf(to)];
      if (here === undefined || there !== undefined) return;
      await mounts.requireUnmounted(id);
      await renaming.rename(pathOf(id), pathOf(to));
    },

    async rollback(id, name, aside, options) {
      const target = snapshotPath(config, id, name);
      const kept = snapshotPath(config, aside, name);
      const [here, there] = [await originOf(id), await originOf(aside)];
      if (here !== undefined && there !== undefined && here !== kept) {
        if (there === target) return;
        throw new FlockError(
          'storage-failed',
          `${pathOf(aside)} is there already and has nothing to do with ${target}`,
        );
      }
      if (there === undefined) {
        const { path } = await snapshots.find(id, name);
        await mounts.requireUnmounted(id);
        await requireRoom(path, options);
        await renaming.rename(pathOf(id), pathOf(aside));
      }
      if (here !== kept) {
        // `id` may be missing here: the crash was after the renaming.
        await requireSnapshot(aside, name, id);
        await cloneTo(kept, id, options);
      }
      await runner.zfs(['promote', pathOf(id)]);
    },
  };

  async function requireSnapshot(aside: DatasetId, name: SnapshotName, id: DatasetId): Promise<void> {
    if (await runner.isThere(snapshotPath(config, aside, name))) return;
    throw new FlockError('dataset-missing', `there is no dataset ${pathOf(id)}, and ${aside} has no snapshot ${name}`);
  }
}

export function quotaBelowUsage(what: string, usedBytes: number, quotaBytes: number): FlockError {
  return new FlockError(
    'quota-below-usage',
    `${what} holds ${usedBytes} bytes of live data, more than the quota of ${quotaBytes} bytes: remove data or set a larger quota`,
    { usedBytes, quotaBytes },
  );
}
