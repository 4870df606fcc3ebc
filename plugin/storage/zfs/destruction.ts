import { FlockError, hasCode } from '../../../controller/model/errors.ts';
import { type DatasetId, isDatasetId } from '../../../controller/model/names.ts';
import { condemnedPath, condemnedSuffix, datasetPath } from './arguments.ts';
import { reasonOf } from './errors.ts';
import type { Mounts } from './mounts.ts';
import type { PropertyTable, SnapshotFacts } from './parse.ts';
import type { Clone, Renaming } from './renaming.ts';
import type { Runner } from './runner.ts';
import type { Snapshots } from './snapshots.ts';

export type Destruction = {
  destroy(id: DatasetId): Promise<void>;
  /** Finishes what a crash cut off, as seen in a table of the prefix's children. */
  sweep(table: PropertyTable): Promise<void>;
};

/**
 * Destroys datasets with their snapshots and leaves their clones as they are.
 *
 * A dataset is renamed first, for two reasons. `zfs destroy -r` of one that is in use destroys all its snapshots and fails only
 * then; zfs-fuse refuses to rename such a one, and nothing is lost. And after a crash a half destroyed dataset is not listed.
 */
export function createDestruction(
  runner: Runner,
  mounts: Mounts,
  snapshots: Snapshots,
  renaming: Renaming,
): Destruction {
  const { config } = runner;
  /** Destructions under way; a list that is made meanwhile must not take them for cut off. */
  const running = new Map<DatasetId, Promise<void>>();

  function alone(id: DatasetId, work: () => Promise<void>): Promise<void> {
    const previous = running.get(id)?.catch(() => undefined) ?? Promise.resolve();
    const mine = previous.then(work).finally(() => {
      if (running.get(id) === mine) running.delete(id);
    });
    running.set(id, mine);
    return mine;
  }

  async function destroy(id: DatasetId): Promise<void> {
    let path: string;
    try {
      await mounts.requireUnmounted(id);
      path = await condemn(id);
    } catch (error) {
      if (reasonOf(error) !== 'missing') throw error;
      // Perhaps a crash came between the renaming and the rest.
      path = condemnedPath(config, id);
      if (!(await runner.isThere(path))) return;
      await renaming.giveBack(path);
    }
    await finish(id, path);
  }

  /** Answers where the dataset is then. */
  async function condemn(id: DatasetId): Promise<string> {
    const [from, to] = [datasetPath(config, id), condemnedPath(config, id)];
    try {
      await renaming.rename(from, to);
      return to;
    } catch (error) {
      // A pool without any room refuses the renaming, but not the destruction, which is what it needs then.
      if (hasCode(error, 'pool-full')) return from;
      if (reasonOf(error) !== 'exists') throw error;
      // A destroyed dataset whose destruction a crash cut off, and a new one of the same id.
      await finishCutOff(id);
      await renaming.rename(from, to);
      return to;
    }
  }

  async function finishCutOff(id: DatasetId): Promise<void> {
    const path = condemnedPath(config, id);
    await renaming.giveBack(path);
    await finish(id, path);
  }

  async function finish(id: DatasetId, path: string): Promise<void> {
    const all = await snapshots.all(path);
    const clones = all.length === 0 ? [] : await renaming.clonesOf(path);
    for (const snapshot of all) await snapshots.releaseAll(snapshot);
    if (clones.length > 0) await leaveToClones(path, all, clones);
    try {
      await runner.zfs(['destroy', '-r', '--', path]);
    } catch (error) {
      // zfs-fuse can answer "busy" after it has destroyed; the repetition then finds nothing.
      if (reasonOf(error) === 'missing') return;
      // The module lets a mounted dataset be renamed. Whoever still uses it must find it under its name.
      const home = datasetPath(config, id);
      if (reasonOf(error) === 'busy' && path !== home) await runner.zfs(['rename', '--', path, home]);
      throw error;
    }
  }

  /** After this, what clones need belongs to one of them and goes with the last of them. */
  async function leaveToClones(
    condemned: string,
    all: readonly SnapshotFacts[],
    clones: readonly Clone[],
  ): Promise<void> {
    for (const snapshot of all) {
      // Promotion would give all that is older than the origin to the clone.
      if (clones.some(({ origin }) => origin === snapshot.path)) await snapshots.abandon(snapshot);
      else await destroyIfThere(snapshot.path);
    }
    // The clone of the youngest snapshot takes over the older ones, with them the other clones.
    const youngest = (await snapshots.all(condemned)).at(-1);
    const heir = (await renaming.clonesOf(condemned)).find(({ origin }) => origin === youngest?.path);
    if (heir !== undefined) await runner.zfs(['promote', heir.path]);
  }

  async function destroyIfThere(snapshot: string): Promise<void> {
    try {
      await runner.zfs(['destroy', '--', snapshot]);
    } catch (error) {
      if (reasonOf(error) !== 'missing') throw error;
    }
  }

  return {
    destroy: (id) => alone(id, () => destroy(id)),

    async sweep(table) {
      for (const path of table.keys()) {
        const id = path.slice(config.prefix.length + 1, -condemnedSuffix.length);
        if (!path.endsWith(condemnedSuffix) || !isDatasetId(id) || running.has(id)) continue;
        try {
          await alone(id, () => finishCutOff(id));
        } catch (error) {
          // Nobody waits for it, and the next list tries again.
          if (!(error instanceof FlockError)) throw error;
        }
      }
    },
  };
}
