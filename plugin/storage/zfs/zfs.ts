import { chmod, chown, open, stat } from 'node:fs/promises';
import { hasCode } from '../../../controller/model/errors.ts';
import type { DatasetId } from '../../../controller/model/names.ts';
import type { Commands } from '../../exec.ts';
import { mountedAt, readMountTable } from '../../mount-table.ts';
import type { Capabilities, DatasetOptions, PoolMaker, ReplicaOptions, Storage } from '../storage.ts';
import { createArguments, creationProperties, datasetPath, quotaValue, replicaProperties } from './arguments.ts';
import type { ZfsConfig } from './config.ts';
import { createDestruction } from './destruction.ts';
import { reasonOf } from './errors.ts';
import { createLineage, quotaBelowUsage } from './lineage.ts';
import { createMarks } from './marks.ts';
import { createMounts } from './mounts.ts';
import { datasetProperties, exactNumber, toDatasets } from './parse.ts';
import { createPool } from './pool.ts';
import { encodeStamp } from './property-text.ts';
import { createRenaming } from './renaming.ts';
import { createResuming } from './resuming.ts';
import { createRunner } from './runner.ts';
import { createSnapshots, toContract } from './snapshots.ts';
import { createStreams } from './streams.ts';

export type { ZfsConfig } from './config.ts';

/** Datasets come and go while a list is made, and zfs then fails as a whole. */
const listTriesMax = 5;

/** OpenZFS 2.x, or zfs-fuse with its daemon on the host. */
export function createZfs(config: ZfsConfig, commands: Commands): Storage & PoolMaker {
  const runner = createRunner(config, commands);
  const pool = createPool(runner);
  const mounts = createMounts(runner);
  const snapshots = createSnapshots(runner);
  const renaming = createRenaming(runner, mounts);
  const lineage = createLineage(runner, mounts, snapshots, renaming);
  const resuming = createResuming(runner, mounts, snapshots);
  const streams = createStreams(runner, mounts, snapshots, resuming);
  const marks = createMarks(runner);
  const destruction = createDestruction(runner, mounts, snapshots, renaming);
  const { within } = pool;
  const pathOf = (id: DatasetId) => datasetPath(config, id);

  async function mount(id: DatasetId): Promise<string> {
    streams.forget(id);
    return mounts.mount(id);
  }

  async function exists(id: DatasetId): Promise<boolean> {
    try {
      await within(() => runner.get(['type'], [pathOf(id)]));
      return true;
    } catch (error) {
      if (hasCode(error, 'dataset-missing')) return false;
      throw error;
    }
  }

  /** Owner and mode of the root directory, where they are wanted. */
  async function setRoot(id: DatasetId, { mode, uid, gid }: DatasetOptions): Promise<void> {
    if (mode === null && uid === null && gid === null) return;
    const wasMounted = mountedAt(await readMountTable(), mounts.path(id)) !== null;
    const root = await mount(id);
    try {
      // What is so already is not touched: a change would make the dataset differ from the snapshot that it was made from.
      const found = await stat(root);
      const isOwned = found.uid === (uid ?? found.uid) && found.gid === (gid ?? found.gid);
      // Owner first: changing it clears the set-id bits.
      if (!isOwned) await chown(root, uid ?? found.uid, gid ?? found.gid);
      const isSet = isOwned && (mode === null || (found.mode & 0o7777) === mode);
      if (mode !== null && !isSet) await chmod(root, mode);
      if (!isSet) await syncDirectory(root);
    } finally {
      if (!wasMounted) await mounts.unmount(id);
    }
  }

  async function create(id: DatasetId, options: DatasetOptions): Promise<void> {
    const properties = creationProperties(config, await runner.support(), id, options, 'dataset');
    try {
      await runner.zfs(createArguments(pathOf(id), properties));
    } catch (error) {
      if (reasonOf(error) !== 'exists') throw error;
    }
    await setRoot(id, options);
  }

  async function resize(id: DatasetId, quotaBytes: number | null): Promise<void> {
    const path = pathOf(id);
    const read = async () => {
      const found = (await runner.get(['referenced', 'refquota'], [path])).get(path) ?? new Map();
      return { usedBytes: Number(exactNumber(path, found, 'referenced')), quota: found.get('refquota')?.value };
    };
    const before = await read();
    if (quotaBytes !== null && before.usedBytes > quotaBytes) {
      throw quotaBelowUsage(id, before.usedBytes, quotaBytes);
    }
    await runner.zfs(['set', `refquota=${quotaValue(quotaBytes)}`, path]);
    if (quotaBytes === null) return;
    // Setting it has written out what was still in memory; only now is the usage exact.
    const { usedBytes } = await read();
    if (usedBytes <= quotaBytes) return;
    const quota = before.quota === undefined || before.quota === '0' ? 'none' : before.quota;
    await runner.zfs(['set', `refquota=${quota}`, path]);
    throw quotaBelowUsage(id, usedBytes, quotaBytes);
  }

  async function applyOptions(id: DatasetId, options: ReplicaOptions): Promise<void> {
    const path = pathOf(id);
    const wanted = replicaProperties(await runner.support(), options);
    const found = (await runner.get([...Object.keys(wanted), 'compression', 'recordsize'], [path])).get(path);
    const changed = Object.entries(wanted).filter(([name, value]) => found?.get(name)?.value !== value);
    await runner.set(path, Object.fromEntries(changed));
    for (const name of ['compression', 'recordsize'])
      if (!(name in wanted) && found?.get(name)?.source === 'local') await runner.zfs(['inherit', name, path]);
    await resize(id, options.quotaBytes);
  }

  async function list() {
    for (let tries = 1; ; tries += 1) {
      try {
        const table = await runner.get(datasetProperties, [config.prefix], 'children');
        await destruction.sweep(table);
        return toDatasets(table, config.prefix);
      } catch (error) {
        if (reasonOf(error) !== 'missing' || tries === listTriesMax) throw error;
      }
    }
  }

  return {
    kind: 'zfs',
    async capabilities() {
      const support = await runner.support();
      return {
        compression: support.compression,
        recordSizeBytesMax: support.recordSizeBytesMax,
        resumableReceive: support.resumableReceive,
        bookmarks: support.bookmarks,
        compressedSend: support.compressedSend,
        clonesDependOnOrigin: support.clonesDependOnOrigin,
        cheapContentMarks: support.cheapContentMarks,
      } satisfies Capabilities;
    },
    pool: () => pool.status(),
    list: () => within(list),
    exists,
    create: (id, options) => within(() => create(id, options)),
    destroy: (id) => within(() => destruction.destroy(id)),
    resize: (id, quotaBytes) => within(() => resize(id, quotaBytes)),
    stamp: (id, text) => within(() => runner.set(pathOf(id), { 'flock:stamp': encodeStamp(text) })),
    mount: (id) => within(() => mount(id)),
    // Without the pool: an unmount must work also while the daemon is down.
    unmount: (id) => mounts.unmount(id),
    mountPath: (id) => mounts.path(id),
    isMountOf: (entry, id) => mounts.isMountOf(entry, id),
    snapshot: (id, name) =>
      within(async () => {
        streams.forget(id);
        await mounts.replayLog(id);
        return { ...(await snapshots.make(id, name)), mark: marks.taken(id) };
      }),
    snapshots: (id) =>
      within(async () => (await snapshots.all(pathOf(id))).filter(({ artifact }) => !artifact).map(toContract)),
    destroySnapshot: (id, name) =>
      within(async () => {
        // Before and after: a look meanwhile may see either.
        marks.forget(id);
        await snapshots.destroy(id, name);
        marks.forget(id);
      }),
    hold: (id, name, tag) => within(() => snapshots.hold(id, name, tag)),
    release: (id, name, tag) => within(() => snapshots.release(id, name, tag)),
    rollback: (id, name, aside, options) =>
      within(async () => {
        marks.forget(id);
        await lineage.rollback(id, name, aside, options);
        await setRoot(id, options);
      }),
    rename: (id, to) =>
      within(() => {
        streams.forget(id);
        marks.forget(id);
        return lineage.rename(id, to);
      }),
    clone: (source, target, options) =>
      within(async () => {
        if (source.snapshot === null) streams.forget(source.id);
        await lineage.clone(source, target, options);
        await setRoot(target, options);
      }),
    promote: (id) =>
      within(() => {
        // Snapshots change their owner.
        marks.forget(id);
        return lineage.promote(id);
      }),
    contentMarks: (ids) => within(() => marks.of(ids)),
    estimate: (request) => within(() => resuming.estimate(request)),
    send: (request, sink, signal) => within(() => streams.send(request, sink, signal)),
    receive: (request, source, signal) =>
      within(() => {
        marks.forget(request.id);
        return streams.receive(request, source, signal);
      }),
    resumeToken: (id) => within(() => resuming.tokenOf(id)),
    abandonReceive: (id) => within(() => resuming.abandon(id)),
    applyOptions: (id, options) => within(() => applyOptions(id, options)),
    makePool: (sizeBytes) => pool.make(sizeBytes),
    async close() {
      pool.close();
    },
  };
}

/** zfs-fuse may refuse this; the unmount that follows writes everything out too. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync().catch(() => undefined);
  } finally {
    await directory.close();
  }
}
