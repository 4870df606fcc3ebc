import { readdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId, SnapshotName } from '../../../controller/model/names.ts';
import { formatSize } from '../../../controller/model/quantity.ts';
import { CommandError } from '../../exec.ts';
import type { Capabilities, Dataset, DatasetOptions, ReplicaOptions } from '../storage.ts';
import { dropQgroupArguments, usageArguments } from './arguments.ts';
import { nullIfMissing } from './errors.ts';
import { checkStamp, type Host } from './host.ts';
import { refuseIfMounted } from './mounts.ts';
import { deleteNested } from './nested.ts';
import { liveIdOf, parseUsage, type Subvolume, snapshotOf, totalOf, type Usage } from './parse.ts';
import { isPristine, notePristine } from './pristine.ts';
import { requireSnapshot } from './snapshots.ts';
import { isCountLost } from './sysfs.ts';

export const nothing: Usage = { referenced: 0, exclusive: 0, maxReferenced: null };

export async function listDatasets(host: Host, device: string): Promise<readonly Dataset[]> {
  if (await isCountLost(device)) await countAgain(host);
  const usage = await usageById(host);
  const subvolumes = await host.subvolumes();
  const snapshots = new Map<DatasetId, Usage[]>();
  for (const { id, path } of subvolumes) {
    const owner = snapshotOf(path)?.id;
    if (owner === undefined) continue;
    const known = snapshots.get(owner) ?? [];
    known.push(usage.get(id) ?? nothing);
    snapshots.set(owner, known);
  }
  await dropStaleQgroups(host, usage, subvolumes);
  // A name with a line end in it can feign a subvolume in the list, but not a directory here.
  const names = new Set<string>(await readdir(host.layout.volumes));
  const live = subvolumes.flatMap(({ id, path }) => {
    const dataset = liveIdOf(path);
    return dataset === null || !names.has(dataset) ? [] : [{ dataset, usage: usage.get(id) ?? nothing }];
  });
  return await Promise.all(
    live.map(async ({ dataset, usage: own }) => ({
      id: dataset,
      usedBytes: own.referenced,
      totalBytes: totalOf(own, snapshots.get(dataset) ?? []),
      quotaBytes: own.maxReferenced,
      stamp: await host.readStamp(dataset),
    })),
  );
}

export async function usageById(host: Host): Promise<ReadonlyMap<number, Usage>> {
  return parseUsage(await host.btrfs(usageArguments(host.layout.top)));
}

/** In the background; usage and quotas are wrong until it ends. */
async function countAgain(host: Host): Promise<void> {
  try {
    await host.btrfs(['quota', 'rescan', host.layout.top]);
  } catch (error) {
    // It is under way already, or the pool is read-only.
    if (!(error instanceof CommandError)) throw error;
  }
}

/** Older kernels keep the quota group of a deleted subvolume, and every command reads all of them. */
async function dropStaleQgroups(host: Host, usage: ReadonlyMap<number, Usage>, subvolumes: readonly Subvolume[]) {
  const there = new Set(subvolumes.map(({ id }) => id));
  const firstSubvolumeId = 256;
  for (const [id, { referenced }] of usage) {
    if (id < firstSubvolumeId || there.has(id) || referenced > 0) continue;
    try {
      await host.btrfs(dropQgroupArguments(id, host.layout.top));
    } catch (error) {
      // Not cleaned up yet, or a subvolume made since the list was read. The next list tries again.
      if (!(error instanceof CommandError)) throw error;
    }
  }
}

export async function createDataset(host: Host, id: DatasetId, options: DatasetOptions): Promise<void> {
  if (await host.isLive(id)) return await host.sync();
  await refuseSnapshotsOf(host, id);
  await host.makeLive(id, null, options);
}

export type CloneSource = { readonly id: DatasetId; readonly snapshot: SnapshotName | null };

export async function cloneDataset(host: Host, source: CloneSource, target: DatasetId, options: DatasetOptions) {
  await host.requireLive(source.id);
  if (source.snapshot !== null) await requireSnapshot(host, source.id, source.snapshot);
  if (await host.isLive(target)) return await host.sync();
  await refuseSnapshotsOf(host, target);
  const { live, snapshot } = host.layout;
  const content = source.snapshot === null ? live(source.id) : snapshot(source.id, source.snapshot);
  await refuseQuotaBelow(host, target, content, options.quotaBytes);
  await host.makeLive(target, content, options);
}

/** `content`: the subvolume whose data `id` has or is about to have. */
export async function refuseQuotaBelow(
  host: Host,
  id: DatasetId,
  content: string,
  quotaBytes: number | null,
): Promise<void> {
  if (quotaBytes === null) return;
  // Writes count when they are committed.
  await host.sync();
  const { referenced } = await host.show(content);
  if (referenced <= quotaBytes) return;
  throw new FlockError(
    'quota-below-usage',
    `the data of ${id} takes ${formatSize(referenced)}, more than a size of ${formatSize(quotaBytes)} holds: remove data or choose a larger size`,
    { usedBytes: referenced, quotaBytes },
  );
}

/** Snapshots without a live subvolume belong to a rollback or renaming that was cut short: only its repetition may touch them. */
export async function refuseSnapshotsOf(host: Host, id: DatasetId, except?: SnapshotName): Promise<void> {
  const names = (await nullIfMissing(readdir(host.layout.snapshotsOf(id)))) ?? [];
  if (names.some((name) => name !== except))
    throw new FlockError(
      'storage-failed',
      `${id} is in the middle of a rollback or renaming, which has to be repeated first`,
      {
        id,
      },
    );
}

/** Snapshots go first, so that a dataset that was destroyed half is still seen, and destroying it again finishes the work. */
export async function destroyDataset(host: Host, id: DatasetId): Promise<void> {
  await refuseIfMounted(host, id);
  const { layout } = host;
  for (const name of (await nullIfMissing(readdir(layout.snapshotsOf(id)))) ?? [])
    await host.discard(join(layout.snapshotsOf(id), name));
  await nullIfMissing(rmdir(layout.snapshotsOf(id)));
  if (await host.isLive(id)) {
    await deleteNested(host, id);
    await host.deleteSubvolumes([layout.live(id)]);
  }
  await rm(layout.stamp(id), { force: true });
  await rm(layout.made(id), { force: true });
  await host.sync();
}

export async function resizeDataset(host: Host, id: DatasetId, quotaBytes: number | null): Promise<void> {
  await host.requireLive(id);
  const path = host.layout.live(id);
  const { maxReferenced } = await host.show(path);
  // A volume can be over its limit by a little; a larger one helps its user all the same.
  if (maxReferenced === null || (quotaBytes ?? Number.POSITIVE_INFINITY) < maxReferenced)
    await refuseQuotaBelow(host, id, path, quotaBytes);
  await host.limit(quotaBytes, path);
  await host.sync();
}

/** For a dataset that is there; a replica counts as unchanged afterwards if it did before. */
export async function applyOptions(host: Host, id: DatasetId, options: ReplicaOptions): Promise<void> {
  await host.requireLive(id);
  const path = host.layout.live(id);
  const wasPristine = await isPristine(host, id);
  // What may be refused comes first.
  await resizeDataset(host, id, options.quotaBytes);
  await host.compress(path, options.compression ?? '');
  if (wasPristine) await notePristine(host, id, path);
  await host.sync();
}

/** The options as btrfs takes them; refuses what it has not. */
export function resolveOptions(options: DatasetOptions, capabilities: Capabilities): DatasetOptions {
  checkStamp(options.stamp);
  return { ...options, ...resolveReplicaOptions(options, capabilities) };
}

export function resolveReplicaOptions(options: ReplicaOptions, capabilities: Capabilities): ReplicaOptions {
  const known = ['on', 'off', ...capabilities.compression];
  if (options.compression !== null && !known.includes(options.compression))
    throw new FlockError('invalid-option', `unknown compression "${options.compression}": use ${known.join(', ')}`);
  if (options.recordSizeBytes !== null)
    throw new FlockError('not-supported', 'btrfs has no record size: leave the option out');
  const properties = Object.keys(options.properties);
  if (properties.length > 0)
    throw new FlockError('not-supported', `btrfs has no properties to set: leave out ${properties.join(', ')}`);
  const compression = options.compression === 'on' ? (capabilities.compression[0] ?? null) : options.compression;
  return { quotaBytes: options.quotaBytes, compression, recordSizeBytes: null, properties: {} };
}
