import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId, SnapshotName } from '../../controller/model/names.ts';
import { type Live, liveOf, type MemoryDisk, type Saved } from './memory-disk.ts';
import { type Capabilities, type DatasetOptions, type ReplicaOptions, stampBytesMax } from './storage.ts';

export const capabilities: Capabilities = {
  compression: ['zstd'],
  recordSizeBytesMax: null,
  resumableReceive: false,
  bookmarks: false,
  compressedSend: false,
  clonesDependOnOrigin: false,
  cheapContentMarks: true,
};

/** Where an increment has to start: the newest snapshot. Null for a complete stream. */
export function baseFor(
  disk: MemoryDisk,
  id: DatasetId,
  from: SnapshotName | null,
): { live: Live; saved: Saved } | null {
  if (from === null) {
    if (disk.datasets.has(id)) throw new FlockError('storage-failed', `the dataset ${id} is there already`, { id });
    return null;
  }
  const live = liveOf(disk, id);
  const saved = live.snapshots.at(-1);
  if (saved?.name !== from) throw noCommon(id, from);
  if (disk.mounted.has(id)) throw new FlockError('volume-busy', `the dataset ${id} is mounted: unmount it first`);
  if (live.tree !== live.pristine)
    throw new FlockError(
      'no-common-snapshot',
      `${id} was written to after its newest snapshot ${from}; keep that with a rollback to ${from} first`,
      { id, from, reason: 'modified' },
    );
  return { live, saved };
}

export function check(options: DatasetOptions): void {
  checkStamp(options.stamp);
  checkOptions(options);
}

export function checkOptions(options: ReplicaOptions): void {
  const known = [null, 'on', 'off', ...capabilities.compression];
  if (!known.includes(options.compression))
    throw new FlockError('invalid-option', `unknown compression ${options.compression}`);
  if (options.recordSizeBytes !== null) throw new FlockError('not-supported', 'the memory backend has no record size');
  if (Object.keys(options.properties).length > 0)
    throw new FlockError('not-supported', 'the memory backend has no properties');
}

export function checkStamp(text: string): void {
  if (Buffer.byteLength(text) > stampBytesMax)
    throw new FlockError('invalid-option', `a stamp has at most ${stampBytesMax} bytes`);
}

export function noCommon(id: DatasetId, from: SnapshotName | null): FlockError {
  return new FlockError('no-common-snapshot', `the newest snapshot of ${id} is not the ${from} of the stream`, { id });
}
