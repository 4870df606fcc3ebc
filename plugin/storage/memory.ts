import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import { baseFor, capabilities, check, checkOptions, checkStamp, noCommon } from './memory-checks.ts';
import {
  createMemoryDisk,
  liveOf,
  type MemoryDisk,
  markOf,
  type Root,
  type Saved,
  savedOf,
  sizeOf,
  type Tree,
  totalOf,
  uniqueOf,
  usedOf,
  writeFiles,
} from './memory-disk.ts';
import { readStream, sizeOfStream, streamOf, writeStream } from './memory-stream.ts';
import type { DatasetOptions, MountEntry, PoolMaker, Snapshot, Storage } from './storage.ts';

export type MemoryOptions = {
  readonly nowMs: () => number;
  /** So many random hex digits; identities are made of them. */
  readonly randomHex: (digits: number) => string;
  /** What an earlier process on the same host left; default a new one. */
  readonly disk?: MemoryDisk;
  /** How streams go through descriptors; a simulation, which has none, gives others. */
  readonly streams?: { readonly read: typeof readStream; readonly write: typeof writeStream };
};

const descriptorStreams = { read: readStream, write: writeStream };

/** Live content without a file system, for whoever tests with this backend. */
export type MemoryContent = {
  write(id: DatasetId, path: string, data: string | Buffer): Promise<void>;
  read(id: DatasetId, path: string): Promise<Buffer | null>;
  remove(id: DatasetId, path: string): Promise<void>;
  root(id: DatasetId): Promise<Root>;
};

export type MemoryStorage = Storage &
  PoolMaker & { readonly content: MemoryContent; mountTable(): Promise<readonly MountEntry[]> };

const fileSystem = 'memory';
const defaultRoot: Root = { mode: 0o755, uid: 0, gid: 0 };

/**
 * A complete backend in this process: for unit tests and for the simulation. It takes time and randomness from outside, sets no
 * timers, and changes its state only between two awaits, so a run can be repeated exactly.
 */
export function createMemory(options: MemoryOptions): MemoryStorage {
  const { nowMs, randomHex, disk = createMemoryDisk(), streams = descriptorStreams } = options;
  const mountPath = (id: DatasetId) => `/${fileSystem}/${id}`;

  function opened(): MemoryDisk {
    if (disk.sizeBytes === null) throw new FlockError('pool-missing', 'the memory pool was not made yet');
    return disk;
  }

  function describe(saved: Saved): Snapshot {
    const { name, identity, createdAtMs, holds } = saved;
    return { name, identity, createdAtMs, uniqueBytes: uniqueOf(disk, saved), holds: [...holds] };
  }

  function put(id: DatasetId, tree: Tree, options: DatasetOptions, snapshots: readonly Saved[] = []): void {
    const { mode, uid, gid } = options;
    const root = { mode: mode ?? tree.root.mode, uid: uid ?? tree.root.uid, gid: gid ?? tree.root.gid };
    const { quotaBytes, stamp } = options;
    const live = { files: tree.files, root };
    // With another root it differs from the snapshot, as other backends' replicas do not: it counts as made from it all the same.
    disk.datasets.set(id, { tree: live, pristine: live, stamp, quotaBytes, snapshots });
  }

  function requireRoom(id: DatasetId, tree: Tree, quotaBytes: number | null): void {
    const usedBytes = sizeOf([tree]);
    if (quotaBytes !== null && quotaBytes < usedBytes)
      throw new FlockError('quota-below-usage', `${id} uses ${usedBytes} bytes`, { usedBytes, quotaBytes });
  }

  function resize(id: DatasetId, quotaBytes: number | null): void {
    const live = liveOf(opened(), id);
    requireRoom(id, live.tree, quotaBytes);
    live.quotaBytes = quotaBytes;
  }

  function refuseIfMounted(id: DatasetId): void {
    if (disk.mounted.has(id)) throw new FlockError('volume-busy', `the dataset ${id} is mounted: unmount it first`);
  }

  return {
    kind: 'memory',
    async makePool(sizeBytes) {
      if (disk.sizeBytes !== null) throw new FlockError('pool-unusable', 'there is a memory pool already');
      disk.sizeBytes = sizeBytes;
    },
    async pool() {
      const name = fileSystem;
      if (disk.fault === 'failed') return { state: 'failed', name, reason: 'the memory pool has failed' };
      if (disk.sizeBytes === null) return { state: 'missing', name, reason: 'the memory pool was not made yet' };
      const { sizeBytes } = disk;
      return {
        state: disk.fault ?? 'online',
        name,
        sizeBytes,
        freeBytes: Math.max(0, sizeBytes - usedOf(disk)),
        warning: null,
      };
    },
    capabilities: async () => capabilities,
    list: async () =>
      [...opened().datasets].map(([id, live]) => ({
        id,
        usedBytes: sizeOf([live.tree]),
        totalBytes: totalOf(live),
        quotaBytes: live.quotaBytes,
        stamp: live.stamp,
      })),
    exists: async (id) => opened().datasets.has(id),

    async create(id, options) {
      check(options);
      if (!opened().datasets.has(id)) put(id, { files: new Map(), root: defaultRoot }, options);
    },
    async destroy(id) {
      opened();
      refuseIfMounted(id);
      disk.datasets.delete(id);
    },
    async resize(id, quotaBytes) {
      resize(id, quotaBytes);
    },
    async stamp(id, text) {
      checkStamp(text);
      liveOf(opened(), id).stamp = text;
    },

    async mount(id) {
      liveOf(opened(), id);
      disk.mounted.add(id);
      return mountPath(id);
    },
    async unmount(id) {
      disk.mounted.delete(id);
    },
    mountPath,
    isMountOf: (entry, id) => entry.fsType === fileSystem && entry.root === `/${id}`,
    mountTable: async () => [...disk.mounted].map((id) => entryOf(id, mountPath(id))),

    async snapshot(id, name) {
      const live = liveOf(opened(), id);
      if (live.snapshots.some((snapshot) => snapshot.name === name))
        throw new FlockError('snapshot-exists', `the dataset ${id} has a snapshot ${name} already`, { id, name });
      const saved: Saved = {
        name,
        identity: randomHex(32),
        createdAtMs: nowMs(),
        // A copy, because uniqueOf tells trees apart by identity.
        tree: { ...live.tree },
        holds: new Set(),
      };
      live.pristine = live.tree;
      live.snapshots = [...live.snapshots, saved];
      return { ...describe(saved), mark: markOf(disk, live.tree) };
    },
    snapshots: async (id) => liveOf(opened(), id).snapshots.map(describe),
    async destroySnapshot(id, name) {
      const live = opened().datasets.get(id);
      const saved = live?.snapshots.find((snapshot) => snapshot.name === name);
      if (live === undefined || saved === undefined) return;
      if (saved.holds.size > 0)
        throw new FlockError('snapshot-held', `${id}@${name} is held by ${[...saved.holds].join(', ')}`, { id, name });
      // What is live is no longer that of the newest snapshot.
      if (saved === live.snapshots.at(-1)) live.pristine = saved.tree;
      live.snapshots = live.snapshots.filter((snapshot) => snapshot !== saved);
    },
    async hold(id, name, tag) {
      savedOf(opened(), id, name).holds.add(tag);
    },
    async release(id, name, tag) {
      const saved = opened()
        .datasets.get(id)
        ?.snapshots.find((snapshot) => snapshot.name === name);
      saved?.holds.delete(tag);
    },

    async rollback(id, name, aside, options) {
      check(options);
      const live = liveOf(opened(), id);
      if (disk.datasets.has(aside)) return;
      const target = savedOf(disk, id, name);
      refuseIfMounted(id);
      requireRoom(id, target.tree, options.quotaBytes);
      const at = live.snapshots.indexOf(target) + 1;
      disk.datasets.set(aside, { ...live, snapshots: live.snapshots.slice(at) });
      put(id, target.tree, options, live.snapshots.slice(0, at));
    },
    async rename(id, to) {
      const live = opened().datasets.get(id);
      if (live === undefined || disk.datasets.has(to)) return;
      refuseIfMounted(id);
      disk.datasets.set(to, live);
      disk.datasets.delete(id);
    },
    async clone(source, target, options) {
      check(options);
      const { tree } =
        source.snapshot === null ? liveOf(opened(), source.id) : savedOf(opened(), source.id, source.snapshot);
      if (disk.datasets.has(target)) return;
      requireRoom(target, tree, options.quotaBytes);
      put(target, tree, options);
    },
    async promote(id) {
      liveOf(opened(), id);
    },

    async contentMarks(ids) {
      const { datasets } = opened();
      return new Map(
        ids.flatMap((id) => {
          const live = datasets.get(id);
          return live === undefined ? [] : [[id, markOf(disk, live.tree)]];
        }),
      );
    },
    async estimate(request) {
      return sizeOfStream(streamOf(opened(), request));
    },
    async send(request, sink, signal) {
      if ('token' in request) throw new FlockError('not-supported', 'the memory backend resumes no stream');
      await streams.write(streamOf(opened(), request), sink, signal);
    },
    async receive(request, source, signal) {
      const { id, to, from, stamp, options } = request;
      checkStamp(stamp);
      if (options !== undefined) checkOptions(options);
      const base = baseFor(opened(), id, from);
      const { header, files } = await streams.read(source, signal);
      if (header.name !== to) throw invalid(`it ends with the snapshot ${header.name}, not ${to}`);
      if ((header.from === null) !== (base === null)) throw invalid('it is not of the kind that was asked for');
      if (base !== null && header.from !== base.saved.identity) throw noCommon(id, from);
      const removed = new Set(header.removed);
      const kept = [...(base?.saved.tree.files ?? [])].filter(([path]) => !removed.has(path));
      const tree: Tree = { files: new Map([...kept, ...files]), root: header.root };
      const { identity, createdAtMs } = header;
      const saved: Saved = { name: to, identity, createdAtMs, tree, holds: new Set() };
      const snapshots = [...(base?.live.snapshots ?? []), saved];
      const live = { ...tree };
      const wanted = base === null ? (options?.quotaBytes ?? null) : base.live.quotaBytes;
      const quotaBytes = base === null && wanted !== null && sizeOf([live]) > wanted ? null : wanted;
      disk.datasets.set(id, { tree: live, pristine: live, stamp, quotaBytes, snapshots });
      return describe(saved);
    },
    resumeToken: async () => null,
    abandonReceive: async () => {},
    async applyOptions(id, options) {
      checkOptions(options);
      resize(id, options.quotaBytes);
    },
    close: async () => {},

    content: {
      write: async (id, path, data) =>
        writeFiles(disk, id, new Map([...liveOf(disk, id).tree.files, [path, Buffer.from(data)]])),
      read: async (id, path) => liveOf(disk, id).tree.files.get(path) ?? null,
      remove: async (id, path) => {
        const files = new Map(liveOf(disk, id).tree.files);
        files.delete(path);
        writeFiles(disk, id, files);
      },
      root: async (id) => liveOf(disk, id).tree.root,
    },
  };
}

function entryOf(id: DatasetId, mountPoint: string): MountEntry {
  return {
    device: '0:1',
    root: `/${id}`,
    mountPoint,
    fsType: fileSystem,
    source: fileSystem,
    readOnly: false,
    shared: false,
  };
}

function invalid(text: string): FlockError {
  return new FlockError('stream-invalid', `the stream can't be received: ${text}`);
}
