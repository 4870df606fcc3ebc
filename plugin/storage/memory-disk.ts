import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId, HoldTag, SnapshotName } from '../../controller/model/names.ts';

/** What survives the process that uses a memory backend. A power cut is simulated by emptying `mounted`. */
export type MemoryDisk = {
  sizeBytes: number | null;
  /** Set while it does not work; `read-only`: but for reading. */
  fault: 'failed' | 'read-only' | null;
  readonly datasets: Map<DatasetId, Live>;
  readonly mounted: Set<DatasetId>;
  /** Each content that was ever live has a mark of its own. */
  readonly marks: WeakMap<Tree, string>;
  lastMark: number;
};

export type Root = { readonly mode: number; readonly uid: number; readonly gid: number };
/** Buffers are never changed in place, so trees share them and one buffer is one piece of data on the disk. */
export type Tree = { readonly files: ReadonlyMap<string, Buffer>; readonly root: Root };

export type Live = {
  tree: Tree;
  /** As the newest snapshot has it: what `tree` is if nothing was written since that, or since this was made from it. */
  pristine: Tree;
  stamp: string;
  quotaBytes: number | null;
  /** Oldest first. */
  snapshots: readonly Saved[];
};

export type Saved = {
  readonly name: SnapshotName;
  readonly identity: string;
  readonly createdAtMs: number;
  readonly tree: Tree;
  readonly holds: Set<HoldTag>;
};

export function createMemoryDisk(): MemoryDisk {
  return { sizeBytes: null, fault: null, datasets: new Map(), mounted: new Set(), marks: new WeakMap(), lastMark: 0 };
}

export function markOf(disk: MemoryDisk, tree: Tree): string {
  const known = disk.marks.get(tree);
  if (known !== undefined) return known;
  disk.lastMark += 1;
  const mark = `m${disk.lastMark}`;
  disk.marks.set(tree, mark);
  return mark;
}

/** The dataset, or `dataset-missing`. */
export function liveOf(disk: MemoryDisk, id: DatasetId): Live {
  const live = disk.datasets.get(id);
  if (live === undefined) throw new FlockError('dataset-missing', `the dataset ${id} is not in the pool`, { id });
  return live;
}

/** The snapshot, or `snapshot-not-found`. */
export function savedOf(disk: MemoryDisk, id: DatasetId, name: SnapshotName): Saved {
  const saved = liveOf(disk, id).snapshots.find((snapshot) => snapshot.name === name);
  if (saved === undefined)
    throw new FlockError('snapshot-not-found', `the dataset ${id} has no snapshot ${name}`, { id, name });
  return saved;
}

/** Bytes of these trees, what they share counted once. */
export function sizeOf(trees: readonly Tree[]): number {
  const pieces = new Set(trees.flatMap((tree) => [...tree.files.values()]));
  return sum(pieces);
}

export function totalOf(live: Live): number {
  return sizeOf([live.tree, ...live.snapshots.map((snapshot) => snapshot.tree)]);
}

export function usedOf(disk: MemoryDisk): number {
  return sizeOf(treesOf(disk));
}

/** Bytes of a snapshot that nothing else on the disk holds. */
export function uniqueOf(disk: MemoryDisk, saved: Saved): number {
  const others = new Set(
    treesOf(disk)
      .filter((tree) => tree !== saved.tree)
      .flatMap((tree) => [...tree.files.values()]),
  );
  return sum(new Set([...saved.tree.files.values()].filter((data) => !others.has(data))));
}

/** The live content with these files; fails as a write does: EDQUOT above the quota, ENOSPC above the pool. */
export function writeFiles(disk: MemoryDisk, id: DatasetId, files: ReadonlyMap<string, Buffer>): void {
  const live = liveOf(disk, id);
  const before = live.tree;
  live.tree = { ...before, files };
  const code =
    live.quotaBytes !== null && sizeOf([live.tree]) > live.quotaBytes
      ? 'EDQUOT'
      : usedOf(disk) > (disk.sizeBytes ?? 0)
        ? 'ENOSPC'
        : null;
  if (code === null) return;
  live.tree = before;
  throw Object.assign(new Error(`${code}: no room in ${id}`), { code });
}

function treesOf(disk: MemoryDisk): readonly Tree[] {
  return [...disk.datasets.values()].flatMap((live) => [live.tree, ...live.snapshots.map((saved) => saved.tree)]);
}

function sum(pieces: ReadonlySet<Buffer>): number {
  return [...pieces].reduce((bytes, data) => bytes + data.length, 0);
}
