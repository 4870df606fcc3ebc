import { open, readdir, rename, stat, unlink } from 'node:fs/promises';
import { FlockError } from '../../../controller/model/errors.ts';
import { type DatasetId, type HoldTag, parseHoldTag, type SnapshotName } from '../../../controller/model/names.ts';
import type { Snapshot, TakenSnapshot } from '../storage.ts';
import { holdPrefix, readOnlySnapshotArguments } from './arguments.ts';
import { nothing, usageById } from './datasets.ts';
import { errnoOf, nullIfMissing } from './errors.ts';
import { type Host, makeFolder } from './host.ts';
import { markOf } from './marks.ts';
import { identityOf, type Subvolume, snapshotOf } from './parse.ts';

export type Saved = Subvolume & { readonly name: SnapshotName };

/** Oldest first. */
export async function savedOf(host: Host, id: DatasetId): Promise<readonly Saved[]> {
  // A name with a line end in it can feign a subvolume in the list, but not a directory here.
  const names = new Set<string>(await nullIfMissing(readdir(host.layout.snapshotsOf(id))));
  return (await host.subvolumes()).flatMap((subvolume) => {
    const place = snapshotOf(subvolume.path);
    return place?.id === id && names.has(place.name) ? [{ ...subvolume, name: place.name }] : [];
  });
}

export type Snapshots = {
  list(id: DatasetId): Promise<readonly Snapshot[]>;
  one(id: DatasetId, name: SnapshotName): Promise<Snapshot>;
  make(id: DatasetId, name: SnapshotName): Promise<TakenSnapshot>;
};

export function createSnapshots(host: Host): Snapshots {
  const { layout } = host;
  /** It never changes, and asking takes a command for each snapshot. */
  const createdAtMs = new Map<string, number>();

  async function describe(id: DatasetId, saved: Omit<Saved, 'path' | 'id'>, uniqueBytes: number): Promise<Snapshot> {
    const time = createdAtMs.get(saved.uuid) ?? (await host.show(layout.snapshot(id, saved.name))).createdAtMs;
    createdAtMs.set(saved.uuid, time);
    const holds = await holdsOf(host, id, saved.name);
    return { name: saved.name, identity: identityOf(saved), createdAtMs: time, uniqueBytes, holds };
  }

  /** For one just made: nothing is in it alone. */
  async function one(id: DatasetId, name: SnapshotName): Promise<TakenSnapshot> {
    const shown = await host.show(layout.snapshot(id, name));
    createdAtMs.set(shown.uuid, shown.createdAtMs);
    // Not its generation: files deleted while open are cleaned out of a snapshot later on.
    return { ...(await describe(id, { ...shown, name }, 0)), mark: markOf(shown.createdGeneration) };
  }

  return {
    one,
    async list(id) {
      await host.requireLive(id);
      const [saved, usage] = [await savedOf(host, id), await usageById(host)];
      return await Promise.all(saved.map((one) => describe(id, one, (usage.get(one.id) ?? nothing).exclusive)));
    },
    async make(id, name) {
      await host.requireLive(id);
      if (await hasSnapshot(host, id, name)) throw taken(id, name);
      const work = layout.work(id, 'snapshot');
      await host.discard(work);
      await makeFolder(work);
      // Flushes what was written but not synced.
      await host.btrfs(readOnlySnapshotArguments(layout.live(id), `${work}/${name}`));
      await placeSnapshot(host, work, id, name);
      await host.sync();
      return await one(id, name);
    },
  };
}

/** Moves a folder with a finished snapshot to where it counts. */
export async function placeSnapshot(host: Host, work: string, id: DatasetId, name: SnapshotName): Promise<void> {
  await makeFolder(host.layout.snapshotsOf(id));
  try {
    // Replaces an empty folder, which a destruction that was cut short has left.
    await rename(work, host.layout.snapshotFolder(id, name));
  } catch (error) {
    if (errnoOf(error) === 'ENOTEMPTY') throw taken(id, name);
    throw error;
  }
}

export async function destroySnapshot(host: Host, id: DatasetId, name: SnapshotName): Promise<void> {
  const holds = await holdsOf(host, id, name);
  if (holds.length > 0)
    throw new FlockError('snapshot-held', `${id}@${name} is held by ${holds.join(', ')}: release it first`, {
      id,
      name,
    });
  await host.discard(host.layout.snapshotFolder(id, name));
  await host.sync();
}

export async function hold(host: Host, id: DatasetId, name: SnapshotName, tag: HoldTag): Promise<void> {
  await host.requireLive(id);
  await requireSnapshot(host, id, name);
  await (await open(host.layout.hold(id, name, tag), 'w')).close();
  await host.sync();
}

export async function release(host: Host, id: DatasetId, name: SnapshotName, tag: HoldTag): Promise<void> {
  const path = host.layout.hold(id, name, tag);
  if ((await nullIfMissing(unlink(path).then(() => true))) === null) return;
  await host.sync();
}

async function holdsOf(host: Host, id: DatasetId, name: SnapshotName): Promise<readonly HoldTag[]> {
  const entries = (await nullIfMissing(readdir(host.layout.snapshotFolder(id, name)))) ?? [];
  return entries
    .filter((entry) => entry.startsWith(holdPrefix))
    .map((entry) => parseHoldTag(entry.slice(holdPrefix.length)))
    .sort();
}

async function hasSnapshot(host: Host, id: DatasetId, name: SnapshotName): Promise<boolean> {
  return (await nullIfMissing(stat(host.layout.snapshot(id, name)))) !== null;
}

export async function requireSnapshot(host: Host, id: DatasetId, name: SnapshotName): Promise<void> {
  if (!(await hasSnapshot(host, id, name)))
    throw new FlockError('snapshot-not-found', `the dataset ${id} has no snapshot ${name}`, { id, name });
}

function taken(id: DatasetId, name: SnapshotName): FlockError {
  return new FlockError('snapshot-exists', `the dataset ${id} has a snapshot ${name} already`, { id, name });
}
