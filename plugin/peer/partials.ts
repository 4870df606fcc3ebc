import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type DatasetId, isDatasetId, parseSnapshotName } from '../../controller/model/names.ts';
import type { PartialCopy } from '../cluster/ports.ts';
import { spareBytes } from './free-space.ts';
import { openSpool, type Spool, spoolRoomMin } from './spool.ts';

/**
 * What this node has of streams that broke off. Where the storage keeps it there is only a note of which stream it was (`ID.json`), else
 * the bytes are beside it (`ID.spool`). Both go when the stream has arrived, when another one comes, and after a day.
 */
export type Partials = {
  /** Of which stream there is a beginning; null: none. */
  find(id: DatasetId): Promise<PartialCopy | null>;
  /** Remembers which stream comes now. */
  begin(id: DatasetId, stream: PartialCopy): Promise<void>;
  /** Bytes of the stream that are in the spool. */
  spooled(id: DatasetId): Promise<number>;
  /** To add to the spool, or to begin one: note and file are made when there is a first megabyte. Null: there is no room. */
  spool(id: DatasetId, stream: PartialCopy, isContinued: boolean): Promise<Spool | null>;
  /** An empty file for a carrier to add to; null: there is no room, or it can't be made. `file`: its descriptor. */
  emptySpool(id: DatasetId, stream: PartialCopy): Promise<EmptySpool | null>;
  spoolPath(id: DatasetId): string;
  remove(id: DatasetId): Promise<void>;
  /** What is older than a day. */
  sweep(nowMs: number): Promise<void>;
};

export type EmptySpool = { readonly file: number; readonly folder: string; close(): Promise<void> };

const keptMs = 24 * 3600 * 1000;
const noteSchema = z.object({ toIdentity: z.string(), from: z.string().transform(parseSnapshotName).nullable() });

export type PartialsOptions = { readonly freeBytes?: (folder: string) => Promise<number> };

export function createPartials(folder: string, { freeBytes = spareBytes }: PartialsOptions = {}): Partials {
  const notePath = (id: DatasetId) => join(folder, `${id}.json`);
  const spoolPath = (id: DatasetId) => join(folder, `${id}.spool`);

  async function find(id: DatasetId): Promise<PartialCopy | null> {
    try {
      return noteSchema.parse(JSON.parse(await readFile(notePath(id), 'utf8')));
    } catch {
      // Damaged ones are as none: the stream begins anew.
      return null;
    }
  }

  async function remove(id: DatasetId): Promise<void> {
    await Promise.all([notePath(id), spoolPath(id)].map((path) => rm(path, { force: true })));
  }

  async function begin(id: DatasetId, { toIdentity, from }: PartialCopy): Promise<void> {
    const fresh = `${notePath(id)}.new`;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeFile(fresh, JSON.stringify({ toIdentity, from } satisfies PartialCopy), { mode: 0o600 });
    await rename(fresh, notePath(id));
  }

  return {
    find,
    spoolPath,
    remove,
    begin,
    async spooled(id) {
      const found = await stat(spoolPath(id)).catch(() => null);
      return found?.size ?? 0;
    },
    async spool(id, stream, isContinued) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const onBegin = () => begin(id, stream);
      return await openSpool({ path: spoolPath(id), isContinued, onBegin, spareBytes: () => freeBytes(folder) });
    },
    async emptySpool(id, stream) {
      let file: FileHandle | null = null;
      try {
        await mkdir(folder, { recursive: true, mode: 0o700 });
        if ((await freeBytes(folder)) < spoolRoomMin) return null;
        file = await open(spoolPath(id), 'w', 0o600);
        // The note comes last: what was in the file was of another stream.
        await begin(id, stream);
        const opened = file;
        return { file: opened.fd, folder, close: () => opened.close() };
      } catch {
        await file?.close();
        return null;
      }
    },
    async sweep(nowMs) {
      for (const name of await readdir(folder).catch(() => [])) {
        const id = name.replace(/\.(json|json\.new|spool)$/, '');
        if (id === name || !isDatasetId(id)) continue;
        const path = join(folder, name);
        const found = await stat(path).catch(() => null);
        if (found !== null && nowMs - found.mtimeMs > keptMs) await rm(path, { force: true });
      }
    },
  };
}
