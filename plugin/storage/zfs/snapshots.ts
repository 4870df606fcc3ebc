import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId, HoldTag, SnapshotName } from '../../../controller/model/names.ts';
import type { Snapshot } from '../storage.ts';
import { datasetPath, goneName, snapshotPath } from './arguments.ts';
import { reasonOf } from './errors.ts';
import { type SnapshotFacts, snapshotProperties, toSnapshots } from './parse.ts';
import type { Runner } from './runner.ts';

/**
 * INVARIANTS
 * - A hold is two things: a real `zfs hold`, which stops others, and its tag in the property flock:holds of the snapshot, because
 *   zfs-fuse can't list holds. Every real hold of ours has its tag there: the tag is written before it and removed after it.
 * - A snapshot that a clone needs is not refused to its owner: it gives up its name and goes with the clone.
 */
export type Snapshots = {
  /** With artifacts; an unknown dataset is `dataset-missing`. */
  all(dataset: string): Promise<readonly SnapshotFacts[]>;
  find(id: DatasetId, name: SnapshotName): Promise<SnapshotFacts>;
  make(id: DatasetId, name: SnapshotName): Promise<Snapshot>;
  destroy(id: DatasetId, name: SnapshotName): Promise<void>;
  hold(id: DatasetId, name: SnapshotName, tag: HoldTag): Promise<void>;
  release(id: DatasetId, name: SnapshotName, tag: HoldTag): Promise<void>;
  /** Releases all real holds of ours; for a snapshot that is to be destroyed. */
  releaseAll(snapshot: SnapshotFacts): Promise<void>;
  /** Frees the name at once and the space with the last clone. */
  abandon(snapshot: SnapshotFacts): Promise<void>;
};

/** The least that a pool of any version takes as a value of a user property. */
const holdsBytesMax = 1_023;

export function createSnapshots(runner: Runner): Snapshots {
  const { config } = runner;

  async function all(dataset: string): Promise<readonly SnapshotFacts[]> {
    return toSnapshots(await runner.get(snapshotProperties, [dataset], 'children'), dataset);
  }

  async function lookUp(id: DatasetId, name: SnapshotName): Promise<SnapshotFacts | null> {
    try {
      const table = await runner.get(snapshotProperties, [snapshotPath(config, id, name)]);
      return toSnapshots(table, datasetPath(config, id))[0] ?? null;
    } catch (error) {
      if (reasonOf(error) === 'missing') return null;
      throw error;
    }
  }

  async function find(id: DatasetId, name: SnapshotName): Promise<SnapshotFacts> {
    const found = await lookUp(id, name);
    if (found !== null) return found;
    if (await runner.isThere(datasetPath(config, id))) {
      throw new FlockError('snapshot-not-found', `${id} has no snapshot ${name}`, { id, snapshot: name });
    }
    throw new FlockError('dataset-missing', `there is no dataset ${datasetPath(config, id)}`, { id });
  }

  async function setHolds(path: string, tags: readonly HoldTag[]): Promise<void> {
    if (tags.length === 0) {
      await runner.zfs(['inherit', 'flock:holds', path]);
      return;
    }
    const value = tags.join(',');
    if (Buffer.byteLength(value) > holdsBytesMax) {
      throw new FlockError('invalid-option', `${path} has too many holds already (${tags.length - 1})`, { path });
    }
    await runner.set(path, { 'flock:holds': value });
  }

  async function releaseReal(path: string, tag: HoldTag): Promise<void> {
    try {
      await runner.zfs(['release', '--', tag, path]);
    } catch (error) {
      if (reasonOf(error) !== 'no-tag' && reasonOf(error) !== 'missing') throw error;
    }
  }

  async function holdReal(path: string, tag: HoldTag): Promise<void> {
    try {
      await runner.zfs(['hold', '--', tag, path]);
    } catch (error) {
      if (reasonOf(error) !== 'tag-exists') throw error;
    }
  }

  async function abandon(snapshot: SnapshotFacts): Promise<void> {
    const gone = snapshot.path.replace(/@.*$/, `@${goneName(snapshot.identity)}`);
    // First deferred, then renamed: after a crash in between, a repetition still finds it by its name.
    if (!snapshot.deferred) await runner.zfs(['destroy', '-d', '--', snapshot.path]);
    if (snapshot.path === gone) return;
    try {
      await runner.zfs(['rename', '--', snapshot.path, gone]);
    } catch (error) {
      // The last clone is gone meanwhile, and the snapshot with it.
      if (reasonOf(error) !== 'missing') throw error;
    }
  }

  return {
    all,
    find,
    abandon,

    async make(id, name) {
      try {
        await runner.zfs(['snapshot', '--', snapshotPath(config, id, name)]);
      } catch (error) {
        if (reasonOf(error) !== 'exists') throw error;
        throw new FlockError('snapshot-exists', `${id} has a snapshot ${name} already`, { id, snapshot: name });
      }
      return toContract(await find(id, name));
    },

    async destroy(id, name) {
      const snapshot = await lookUp(id, name);
      if (snapshot === null) return;
      if (snapshot.holds.length > 0 || snapshot.references > 0) {
        const holders = snapshot.holds.length > 0 ? snapshot.holds.join(', ') : 'a tag that flock has not set';
        throw new FlockError('snapshot-held', `${id}@${name} is held by ${holders}`, { holds: snapshot.holds });
      }
      try {
        await runner.zfs(['destroy', '--', snapshot.path]);
      } catch (error) {
        if (reasonOf(error) === 'missing') return;
        if (reasonOf(error) !== 'has-clones') throw error;
        await abandon(snapshot);
      }
    },

    async hold(id, name, tag) {
      const { path, holds } = await find(id, name);
      if (!holds.includes(tag)) await setHolds(path, [...holds, tag]);
      await holdReal(path, tag);
    },

    async release(id, name, tag) {
      const snapshot = await lookUp(id, name);
      if (snapshot === null) return;
      await releaseReal(snapshot.path, tag);
      const rest = snapshot.holds.filter((other) => other !== tag);
      if (rest.length < snapshot.holds.length) await setHolds(snapshot.path, rest);
    },

    async releaseAll({ path, holds }) {
      for (const tag of holds) await releaseReal(path, tag);
    },
  };
}

export function toContract({ name, identity, createdAtMs, uniqueBytes, holds }: SnapshotFacts): Snapshot {
  return { name, identity, createdAtMs, uniqueBytes, holds };
}
