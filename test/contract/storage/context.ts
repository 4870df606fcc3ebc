import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, FlockError } from '../../../controller/model/errors.ts';
import {
  type DatasetId,
  type HoldTag,
  parseDatasetId,
  parseHoldTag,
  parseSnapshotName,
  type SnapshotName,
} from '../../../controller/model/names.ts';
import { mountedAt, readMountTable } from '../../../plugin/mount-table.ts';
import type { DatasetOptions, MountEntry, PoolMaker, PoolStatus, Storage } from '../../../plugin/storage/storage.ts';

/** Reads and writes live content; mounts the dataset for as long as that takes unless it is mounted already. */
export type Content = {
  /** Does not sync. Fails with EDQUOT or ENOSPC (as `code` or `errno`) when there is no room. */
  write(id: DatasetId, path: string, data: string | Buffer): Promise<void>;
  read(id: DatasetId, path: string): Promise<Buffer | null>;
  remove(id: DatasetId, path: string): Promise<void>;
  root(id: DatasetId): Promise<{ readonly mode: number; readonly uid: number; readonly gid: number }>;
};

/** What a backend gives the suite. `content` and `mountTable` are for a backend without real mounts. */
export type Made = {
  readonly storage: Storage & PoolMaker;
  dispose(): Promise<void>;
  readonly content?: Content;
  readonly mountTable?: () => Promise<readonly MountEntry[]>;
};

export type Traits = {
  /** Size of each pool; default 512 MiB. */
  readonly poolBytes?: number;
  /** How many datasets make a long list; default 100. */
  readonly datasets?: number;
  /** For each test and hook; default 60 s. */
  readonly timeoutMs?: number;
  /** Test title → why this backend can't pass it. */
  readonly skip?: Readonly<Record<string, string>>;
};

export type Bench = {
  readonly storage: Storage & PoolMaker;
  readonly content: Content;
  readonly mountTable: () => Promise<readonly MountEntry[]>;
  readonly directory: string;
  /** What the storage answered before its pool was made. */
  readonly beforeMade: { readonly status: PoolStatus; readonly exists: unknown };
  readonly hasRealMounts: boolean;
  dispose(): Promise<void>;
};

export type Context = {
  readonly traits: Traits;
  here(): Bench;
  /** The second host. */
  there(): Bench;
  readonly test: (title: string, work: () => Promise<void>) => void;
};

export const mebi = 1024 * 1024;

export async function openBench(made: Made, traits: Traits): Promise<Bench> {
  const { storage } = made;
  const directory = await mkdtemp(join(tmpdir(), 'flock-contract-'));
  const dispose = async () => {
    await made.dispose();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const status = await storage.pool();
    const exists = await storage.exists(newId('early')).catch((error: unknown) => error);
    await storage.makePool(traits.poolBytes ?? 512 * mebi);
    return {
      storage,
      content: made.content ?? mountedContent(storage),
      mountTable: made.mountTable ?? readMountTable,
      directory,
      beforeMade: { status, exists },
      hasRealMounts: made.content === undefined,
      dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

let lastId = 0;

/** An id that no other test uses. */
export function newId(label = 'v'): DatasetId {
  lastId += 1;
  return parseDatasetId(`${label}.${lastId.toString(16).padStart(8, '0')}`);
}

export const snap = (text: string): SnapshotName => parseSnapshotName(text);
export const tag = (text: string): HoldTag => parseHoldTag(text);
export const bytes = (size: number): Buffer => randomBytes(size);
export const never = (): AbortSignal => new AbortController().signal;

export function options(changes: Partial<DatasetOptions> = {}): DatasetOptions {
  return {
    quotaBytes: null,
    compression: null,
    recordSizeBytes: null,
    mode: null,
    uid: null,
    gid: null,
    properties: {},
    stamp: 'made by the contract suite',
    ...changes,
  };
}

/** A fresh dataset. */
export async function created(bench: Bench, changes: Partial<DatasetOptions> = {}): Promise<DatasetId> {
  const id = newId();
  await bench.storage.create(id, options(changes));
  return id;
}

export async function datasetOf(bench: Bench, id: DatasetId) {
  const found = (await bench.storage.list()).find((dataset) => dataset.id === id);
  assert.ok(found, `${id} is listed`);
  return found;
}

export async function namesOf(bench: Bench, id: DatasetId): Promise<readonly string[]> {
  return (await bench.storage.snapshots(id)).map((snapshot) => snapshot.name);
}

export async function snapshotOf(bench: Bench, id: DatasetId, name: SnapshotName) {
  const found = (await bench.storage.snapshots(id)).find((snapshot) => snapshot.name === name);
  assert.ok(found, `${id} has the snapshot ${name}`);
  return found;
}

export async function assertText(bench: Bench, id: DatasetId, path: string, expected: string | null): Promise<void> {
  const data = await bench.content.read(id, path);
  assert.equal(data === null ? null : data.toString(), expected);
}

/** What a file is in a snapshot: seen through a clone, so that the dataset itself stays unmounted, as a replica must. */
export async function readInSnapshot(bench: Bench, id: DatasetId, snapshot: SnapshotName, path: string) {
  const view = newId('view');
  await bench.storage.clone({ id, snapshot }, view, options());
  try {
    return (await bench.content.read(view, path))?.toString() ?? null;
  } finally {
    await bench.storage.destroy(view);
  }
}

export async function rejectsWith(work: Promise<unknown>, ...codes: readonly ErrorCode[]): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof FlockError, `expected a FlockError, not ${String(error)}`);
    assert.ok(codes.includes(error.code), `expected ${codes.join(' or ')}, not ${error.code}: ${error.message}`);
    return true;
  });
}

/** Space is accounted with a delay by every real backend. */
export async function eventually<T>(read: () => Promise<T>, holds: (value: T) => boolean, text: string): Promise<T> {
  const triesMax = 40;
  for (let tries = 1; ; tries += 1) {
    const value = await read();
    if (holds(value)) return value;
    assert.ok(tries < triesMax, `${text}: ${JSON.stringify(value)}`);
    await sleep(tries < 5 ? 50 : 500);
  }
}

function mountedContent(storage: Storage): Content {
  const inside = async <T>(id: DatasetId, work: (root: string) => Promise<T>): Promise<T> => {
    const path = storage.mountPath(id);
    const wasMounted = mountedAt(await readMountTable(), path) !== null;
    await storage.mount(id);
    try {
      return await work(path);
    } finally {
      if (!wasMounted) await storage.unmount(id);
    }
  };
  return {
    write: (id, path, data) => inside(id, (root) => writeFile(join(root, path), data)),
    read: (id, path) => inside(id, (root) => readFile(join(root, path)).catch(nullIfMissing)),
    remove: (id, path) => inside(id, (root) => rm(join(root, path))),
    root: (id) =>
      inside(id, async (root) => {
        const { mode, uid, gid } = await stat(root);
        return { mode: mode & 0o7777, uid, gid };
      }),
  };
}

function nullIfMissing(error: unknown): null {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
  throw error;
}
