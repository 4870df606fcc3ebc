import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId } from '../../../controller/model/names.ts';
import type { Commands } from '../../exec.ts';
import type { Capabilities, PoolMaker, Storage } from '../storage.ts';
import {
  applyOptions,
  cloneDataset,
  createDataset,
  destroyDataset,
  listDatasets,
  resizeDataset,
  resolveOptions,
  resolveReplicaOptions,
} from './datasets.ts';
import { translated } from './errors.ts';
import { type BtrfsConfig, checkStamp, createHost } from './host.ts';
import { createMarks } from './marks.ts';
import { isMountOf, mountPathOf, mountVolume, unmountVolume } from './mounts.ts';
import { createPool } from './pool.ts';
import { renameDataset, rollbackDataset } from './rollback.ts';
import { createSnapshots, destroySnapshot, hold, release } from './snapshots.ts';
import { kernelFeatures } from './sysfs.ts';
import { estimateSend, receiveSnapshot, sendSnapshot } from './transfer.ts';

export type { BtrfsConfig, BtrfsTools } from './host.ts';

/** Storage on a btrfs in a file or on a block device; see storage.ts for the contract and arguments.ts for the layout. */
export function createBtrfs(config: BtrfsConfig, commands: Commands): Storage & PoolMaker {
  const host = createHost(config, commands);
  const pool = createPool(host);
  const snapshots = createSnapshots(host);
  const marks = createMarks(host);
  let probed: Promise<Capabilities> | null = null;

  const opened = <T>(work: (device: string) => Promise<T>): Promise<T> =>
    translated(async () => work(await pool.open()));

  function capabilities(): Promise<Capabilities> {
    probed ??= opened(probe).catch((error: unknown) => {
      probed = null;
      throw error;
    });
    return probed;
  }

  /** The file system has to be in the kernel for this, so the pool is opened first. */
  async function probe(): Promise<Capabilities> {
    const features = await kernelFeatures();
    // Without sysfs the kernel is taken to be 4.14 or later.
    const optional = ['zstd', 'lzo'].filter((name) => features?.includes(`compress_${name}`) !== false);
    const help = await host.btrfs(['send', '--help']);
    return {
      compression: [...optional, 'zlib'],
      recordSizeBytesMax: null,
      resumableReceive: false,
      bookmarks: false,
      // Version 2 of the stream needs Linux 6.0 to send; to receive, the tools are enough.
      compressedSend: features?.includes('send_stream_version') === true && help.includes('--compressed-data'),
      clonesDependOnOrigin: false,
      cheapContentMarks: true,
    };
  }

  const mountPath = (id: DatasetId) => mountPathOf(host, id);

  return {
    kind: 'btrfs',
    capabilities,
    pool: pool.status,
    makePool: (sizeBytes) => translated(() => pool.make(sizeBytes), 'pool-unusable'),
    close: () => translated(pool.close),

    list: () => opened((device) => listDatasets(host, device)),
    exists: (id) => opened(() => host.isLive(id)),
    create: (id, options) => opened(async () => createDataset(host, id, resolveOptions(options, await capabilities()))),
    destroy: (id) => opened(() => destroyDataset(host, id)),
    resize: (id, quotaBytes) => opened(() => resizeDataset(host, id, quotaBytes)),
    stamp: (id, text) =>
      opened(async () => {
        checkStamp(text);
        await host.requireLive(id);
        await host.writeStamp(id, text);
        await host.sync();
      }),

    mount: (id) => opened((device) => mountVolume(host, device, id)),
    // Needs no pool: a volume has to be unmounted above all when its pool is lost.
    unmount: (id) => translated(() => unmountVolume(host, id)),
    mountPath,
    isMountOf,

    snapshot: (id, name) => opened(() => snapshots.make(id, name)),
    snapshots: (id) => opened(() => snapshots.list(id)),
    destroySnapshot: (id, name) => opened(() => destroySnapshot(host, id, name)),
    hold: (id, name, tag) => opened(() => hold(host, id, name, tag)),
    release: (id, name, tag) => opened(() => release(host, id, name, tag)),

    rollback: (id, name, aside, options) =>
      opened(async () =>
        rollbackDataset(host, { id, name, aside, options: resolveOptions(options, await capabilities()) }),
      ),
    rename: (id, to) => opened(() => renameDataset(host, id, to)),
    clone: (source, target, options) =>
      opened(async () => cloneDataset(host, source, target, resolveOptions(options, await capabilities()))),
    promote: (id) => opened(() => host.requireLive(id)),

    contentMarks: (ids) => opened((device) => marks(device, ids)),
    estimate: (request) => opened(() => estimateSend(host, request)),
    send: (request, sink, signal) =>
      opened(async () => {
        if ('token' in request) throw new FlockError('not-supported', 'btrfs can not resume a stream: send it anew');
        const { compressedSend } = await capabilities();
        await sendSnapshot(host, request, { descriptor: sink, signal }, compressedSend);
      }),
    receive: (request, source, signal) =>
      opened(async () => {
        const { options } = request;
        const resolved = options === undefined ? null : resolveReplicaOptions(options, await capabilities());
        await receiveSnapshot(host, request, resolved, { descriptor: source, signal });
        return await snapshots.one(request.id, request.to);
      }),
    resumeToken: async () => null,
    abandonReceive: async () => {},
    applyOptions: (id, options) =>
      opened(async () => applyOptions(host, id, resolveReplicaOptions(options, await capabilities()))),
  };
}
