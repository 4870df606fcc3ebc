import type { DatasetId, HoldTag, SnapshotName } from '../../controller/model/names.ts';

/**
 * One pool of one backend on one host. The contract is written here and checked by test/contract/storage.ts against every
 * implementation.
 *
 * - Flat: one dataset per volume, named by its id, all below a prefix that belongs to flock. Nothing outside is ever touched.
 * - Idempotent: `create`, `clone`, `rollback`, `rename` and `receive` may be repeated after a crash at any point and then finish the work;
 *   `destroy`, `unmount`, `release` and `destroySnapshot` of what is not there do nothing.
 * - Durable: when a call has returned, its effect survives a power cut.
 * - Errors are FlockErrors: `dataset-missing`, `snapshot-not-found`, `snapshot-exists`, `snapshot-held`, `quota-below-usage`,
 *   `no-common-snapshot`, `stream-invalid`, `invalid-option`, `not-supported`, `volume-busy`, `pool-missing`, `pool-full`,
 *   `pool-read-only`, `pool-unusable`, `storage-daemon-down`, or `storage-failed` with the command's own text.
 * - Calls for one dataset are made one at a time (the caller holds that volume's lock); calls for different ones in parallel.
 */
export interface Storage {
  readonly kind: 'zfs' | 'btrfs' | 'memory';

  /** Found by probing once, when first asked while the backend answers. */
  capabilities(): Promise<Capabilities>;
  /** The state of the pool now. Never throws: what is wrong is in the answer. */
  pool(): Promise<PoolStatus>;
  /** All datasets below the prefix, in one or two commands however many there are. */
  list(): Promise<readonly Dataset[]>;
  /** Whether this dataset is there; cheaper than list. */
  exists(id: DatasetId): Promise<boolean>;

  create(id: DatasetId, options: DatasetOptions): Promise<void>;
  /**
   * Destroys the dataset with its snapshots, held or not. Clones made from it keep their data (where the backend ties a clone to
   * its origin it is promoted first) and do not gain snapshots by it. Refused with `volume-busy` while it is mounted somewhere.
   */
  destroy(id: DatasetId): Promise<void>;
  /** Sets or lifts (null) the limit on live data; snapshots do not count. A smaller one than before is refused below what is used: `quota-below-usage`. */
  resize(id: DatasetId, quotaBytes: number | null): Promise<void>;
  /** Replaces the text that `list` gives back; at most `stampBytesMax` bytes of UTF-8. */
  stamp(id: DatasetId, text: string): Promise<void>;

  /** Mounts read-write at `mountPath(id)`; does nothing if it is already mounted there and alive. Answers the path. */
  mount(id: DatasetId): Promise<string>;
  /** Unmounts and removes the empty mount point, so that nobody can write into a bare directory by mistake. */
  unmount(id: DatasetId): Promise<void>;
  mountPath(id: DatasetId): string;
  /** Whether an entry of some process's mount table shows this dataset (in any container or on the host). Pure. */
  isMountOf(entry: MountEntry, id: DatasetId): boolean;

  /** Every write that had completed before the call is in the snapshot. `snapshot-exists` if the name is taken. */
  snapshot(id: DatasetId, name: SnapshotName): Promise<TakenSnapshot>;
  /** Oldest first. */
  snapshots(id: DatasetId): Promise<readonly Snapshot[]>;
  destroySnapshot(id: DatasetId, name: SnapshotName): Promise<void>;
  /** A held snapshot can't be destroyed alone (`snapshot-held`). Holds are a set of tags. */
  hold(id: DatasetId, name: SnapshotName, tag: HoldTag): Promise<void>;
  release(id: DatasetId, name: SnapshotName, tag: HoldTag): Promise<void>;

  /**
   * Makes the snapshot's content the live content of `id`. Nothing is lost: the content it had and the snapshots younger than
   * `name` are afterwards the dataset `aside` (live content and snapshots). `name` and older snapshots stay with `id`.
   * The dataset must not be mounted (`volume-busy`). Refused with `quota-below-usage` where the snapshot holds more than the quota. What
   * refuses does so before anything changes, and the first change of all is that `aside` is there.
   */
  rollback(id: DatasetId, name: SnapshotName, aside: DatasetId, options: DatasetOptions): Promise<void>;
  /**
   * The dataset is `to` from now on, with all that it is: live content, stamp, options, snapshots with their holds, what clones have
   * from it. `id` is free then. Does nothing where `id` is not there, or `to` is already: that was done before, as `to` is an id that
   * is never used twice. Refused with `volume-busy` while it is mounted.
   */
  rename(id: DatasetId, to: DatasetId): Promise<void>;
  /**
   * For each of these datasets that is there a mark of its live content. A mark that is the same as an earlier one means that nothing
   * has changed in between: writes that completed before the call count, synced or not. It may also differ without a change:
   * a loop that takes a snapshot whenever the mark is another than the last snapshot's comes to rest, on an idle dataset
   * after one or two snapshots more. zfs gives a new mark each time until there is a snapshot of this process; destroying a
   * snapshot may change a mark too. Marks are compared within one process only. One or two commands however many ids:
   *
   * - btrfs: `filesystem sync`, then the list of subvolumes if anything was committed since (7 microseconds each, snapshots
   *   included), or for a few ids a look at each (3 ms). Measured with 1,000 datasets: 14 ms, 11 ms of these CPU, when idle, thus about
   *   1 % of a core once a second; 30 and 24 ms when one of them is written to. Each call commits what is dirty in the whole pool.
   * - OpenZFS: `zpool sync`, then `zfs get` of four numbers.
   * - zfs-fuse: setting a property of the prefix, which waits for the disk as `zpool sync` would (35 ms, 5 ms of these the daemon's CPU),
   *   then `zfs get` (0.3 ms of CPU for each dataset): 1,000 each second would be a third of a core (`cheapContentMarks` is false).
   */
  contentMarks(ids: readonly DatasetId[]): Promise<ReadonlyMap<DatasetId, string>>;

  /**
   * A new dataset with the content of a snapshot, or of `source` as it is now where `snapshot` is null. Costs no space.
   * `quota-below-usage` where that holds more than the quota.
   */
  clone(
    source: { readonly id: DatasetId; readonly snapshot: SnapshotName | null },
    target: DatasetId,
    options: DatasetOptions,
  ): Promise<void>;
  /** Makes a clone independent of its origin; `clone` and `destroy` need no call of it. Nothing to do where clones always are. */
  promote(id: DatasetId): Promise<void>;

  /**
   * Writes the stream of a snapshot to a file descriptor (a file, pipe or socket; never through JavaScript): complete, or the
   * difference from an older snapshot of the same dataset, or what is left of a stream according to its receiver's token
   * (`stream-invalid` if that is not a token for this dataset). The descriptor stays open, so the reader sees no end of file: a
   * stream has its own end mark. A pipe's or socket's descriptor is blocking afterwards, for this process too; sockets are lent by
   * `lendSocket` (lend-socket.ts), which keeps Node from reading ahead and says what may be done with them then.
   * Who aborts it also closes the reading end: OpenZFS waits for a reader where no signal ends it (openzfs/zfs#12500), and the abort
   * is over when the command is.
   */
  send(request: SendRequest | ResumedSend, sink: number, signal: AbortSignal): Promise<void>;
  /**
   * About how many bytes `send` would write, null where that can't be told at a small cost. OpenZFS: as `zfs send -nP` says. btrfs and
   * zfs-fuse: for a complete stream what the snapshot refers to (above it for sparse metadata, below it for compressed data).
   */
  estimate(request: SendRequest): Promise<number | null>;
  /**
   * Receives what `send` wrote. A complete stream makes the dataset `id` (not mounted; `storage-failed` if it exists); an
   * incremental one adds a snapshot and moves the live content to it. It is refused with `no-common-snapshot` unless the newest
   * snapshot here is the one it starts from and nothing was written since (facts.reason is `modified` then: `rollback` to the
   * snapshot keeps that aside), so the same increment a second time is refused, too. Refused with `volume-busy` while it is mounted; having been mounted, read-write or not, without a
   * change does no harm. A stream that is cut short or damaged leaves what was there before (`stream-invalid`), except as
   * `resumable` says. Answers the new snapshot: same name and identity as the sender's.
   */
  receive(request: ReceiveRequest, source: number, signal: AbortSignal): Promise<Snapshot>;
  /** The token for the `send` that continues a `resumable` receive which was cut short; null if there is none to continue. */
  resumeToken(id: DatasetId): Promise<string | null>;
  /** Throws away what a `resumable` receive has left; of a complete stream the whole dataset. Nothing to do where nothing is. */
  abandonReceive(id: DatasetId): Promise<void>;
  /**
   * Gives a dataset, mounted or not, the options it would have been made with, for what is written from now on. Raw properties that
   * are not named stay as they are. `quota-below-usage` as `resize`. Does not count as a change of a replica's content.
   */
  applyOptions(id: DatasetId, options: ReplicaOptions): Promise<void>;

  /** Gives back what the open pool holds (not the mounts of volumes). */
  close(): Promise<void>;
}

/**
 * A backend's factory opens nothing and never throws: the pool is opened (imported, mounted) when it is first needed, and again
 * after it was missing. Making a new pool is a separate, explicit act, because an empty pool in place of a lost one would hide the loss.
 */
export type PoolMaker = {
  /** Makes the pool and its prefix; refuses (`pool-unusable`) where there is anything already that could be somebody's data. */
  makePool(sizeBytes: number): Promise<void>;
};

/** What this host's tools can do, found by probing once, not by version strings. */
export type Capabilities = {
  /** `zfs` only: values of `compression`; for btrfs likewise. The first one is what `on` means. */
  readonly compression: readonly string[];
  /** Largest `recordsize` in bytes; null where there is no such thing. */
  readonly recordSizeBytesMax: number | null;
  /** Interrupted streams can be resumed from a token. */
  readonly resumableReceive: boolean;
  /** An incremental stream may start from a bookmark after its snapshot is gone. */
  readonly bookmarks: boolean;
  /** Blocks are sent as they are on disk (compressed). */
  readonly compressedSend: boolean;
  /** A clone depends on the snapshot it was made from. */
  readonly clonesDependOnOrigin: boolean;
  /** `contentMarks` of a thousand idle datasets may be asked for every second. */
  readonly cheapContentMarks: boolean;
};

export type PoolStatus =
  | {
      readonly state: 'online' | 'read-only';
      /** What an operator calls it: a dataset prefix, a file or a device. */
      readonly name: string;
      readonly sizeBytes: number;
      readonly freeBytes: number;
      /** Set where the pool works but wants attention, such as a degraded mirror. */
      readonly warning: string | null;
    }
  /** `failed`: the pool itself, or the daemon without which there is none, says that it does not work; `unusable`: it can't be told why. */
  | { readonly state: 'missing' | 'failed' | 'unusable'; readonly name: string; readonly reason: string };

export type Dataset = {
  readonly id: DatasetId;
  /** Live data, as the quota counts it. */
  readonly usedBytes: number;
  /** Live data and what only its snapshots hold. */
  readonly totalBytes: number;
  readonly quotaBytes: number | null;
  readonly stamp: string | null;
};

export type Snapshot = {
  readonly name: SnapshotName;
  /** The same on every host that holds this snapshot, and on no other snapshot. */
  readonly identity: string;
  readonly createdAtMs: number;
  /** Data that this snapshot alone holds: what removing it would free, as far as the backend can tell. */
  readonly uniqueBytes: number;
  readonly holds: readonly HoldTag[];
};

/** `mark` is what `contentMarks` answers as long as the live content is that of the snapshot. */
export type TakenSnapshot = Snapshot & { readonly mark: string };

export type DatasetOptions = {
  readonly quotaBytes: number | null;
  /** A value of `capabilities.compression`, `on`, `off`, or null for the pool's default. */
  readonly compression: string | null;
  readonly recordSizeBytes: number | null;
  /** Owner and permission bits of the root directory; null: the backend's default (root, 0755), or as they are in a clone. */
  readonly mode: number | null;
  readonly uid: number | null;
  readonly gid: number | null;
  /** Raw properties of this backend, already checked against `rawProperty` rules. */
  readonly properties: Readonly<Record<string, string>>;
  readonly stamp: string;
};

/** What does not come with the data of a stream, as owner and mode do. */
export type ReplicaOptions = Pick<DatasetOptions, 'quotaBytes' | 'compression' | 'recordSizeBytes' | 'properties'>;

export type SendRequest = { readonly id: DatasetId; readonly to: SnapshotName; readonly from: SnapshotName | null };

/** Goes on where the receiver's `resumeToken` says; only where `capabilities.resumableReceive`. */
export type ResumedSend = { readonly id: DatasetId; readonly token: string };

export type ReceiveRequest = {
  readonly id: DatasetId;
  /** The snapshot that the stream ends with; another one in the stream is `stream-invalid`. */
  readonly to: SnapshotName;
  readonly from: SnapshotName | null;
  readonly stamp: string;
  /**
   * For a complete stream: so that a promoted replica is like its owner's dataset. Without it the pool's defaults. A quota below what
   * arrived is left out, which `list` shows; refused options leave no dataset. An increment leaves everything as it is: see `applyOptions`.
   */
  readonly options?: ReplicaOptions;
  /**
   * Where `capabilities.resumableReceive`, else without effect: what arrived of a stream that was cut short is kept for `resumeToken`.
   * Where there is a token the stream has to be the rest that it stands for. Such a beginning of a complete stream is a dataset without
   * stamp in `list`; a receive that is not resumable abandons it.
   */
  readonly resumable?: boolean;
};

/** One line of /proc/PID/mountinfo. */
export type MountEntry = {
  readonly device: string;
  /** The part of the file system that is mounted: `/` or a subvolume or directory. */
  readonly root: string;
  readonly mountPoint: string;
  readonly fsType: string;
  readonly source: string;
  readonly readOnly: boolean;
  /** What is mounted or unmounted here shows in other namespaces too. */
  readonly shared: boolean;
};

/** ZFS pool version 23 (zfs-fuse) holds user properties of up to 1024 bytes. */
export const stampBytesMax = 1000;
