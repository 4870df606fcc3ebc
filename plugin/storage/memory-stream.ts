import { createHash } from 'node:crypto';
import { read, write } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { z } from 'zod';
import { FlockError } from '../../controller/model/errors.ts';
import { type MemoryDisk, savedOf } from './memory-disk.ts';
import type { SendRequest } from './storage.ts';

/** What the memory backend sends: magic, length of the header, header, files, checksum over all of it. */
export type MemoryStream = {
  readonly header: Header;
  /** The files that changed since `from`, or all. */
  readonly files: ReadonlyMap<string, Buffer>;
};

const headerSchema = z.object({
  name: z.string(),
  identity: z.string(),
  createdAtMs: z.number(),
  /** Identity of the snapshot that the difference starts from. */
  from: z.string().nullable(),
  root: z.object({ mode: z.number(), uid: z.number(), gid: z.number() }).readonly(),
  changed: z.array(z.object({ path: z.string(), size: z.number().int().min(0) })).readonly(),
  removed: z.array(z.string()).readonly(),
});
type Header = Readonly<z.infer<typeof headerSchema>>;

const magic = Buffer.from('flock memory stream 1\n');
const lengthBytes = 4;
const digestBytes = 32;
const headerBytesMax = 64 * 1024 * 1024;
const fileBytesMax = 2 ** 31;
const againMs = 2;
const chunkBytes = 64 * 1024;

/** The stream of a snapshot, or `snapshot-not-found`. */
export function streamOf(disk: MemoryDisk, { id, to, from }: SendRequest): MemoryStream {
  const target = savedOf(disk, id, to);
  const base = from === null ? null : savedOf(disk, id, from);
  const old = base?.tree.files ?? new Map<string, Buffer>();
  const files = new Map([...target.tree.files].filter(([path, data]) => old.get(path) !== data));
  const header = {
    name: to,
    identity: target.identity,
    createdAtMs: target.createdAtMs,
    from: base?.identity ?? null,
    root: target.tree.root,
    changed: [...files].map(([path, data]) => ({ path, size: data.length })),
    removed: [...old.keys()].filter((path) => !target.tree.files.has(path)),
  };
  return { header, files };
}

/** Bytes. */
export function sizeOfStream({ header, files }: MemoryStream): number {
  const data = [...files.values()].reduce((bytes, file) => bytes + file.length, 0);
  return magic.length + lengthBytes + Buffer.byteLength(JSON.stringify(header)) + data + digestBytes;
}

export async function writeStream(stream: MemoryStream, sink: number, signal: AbortSignal): Promise<void> {
  const header = Buffer.from(JSON.stringify(stream.header));
  const length = Buffer.alloc(lengthBytes);
  length.writeUInt32BE(header.length);
  const body = Buffer.concat([magic, length, header, ...stream.files.values()]);
  await writeAll(Buffer.concat([body, digestOf([body])]), sink, signal);
}

/** Throws `stream-invalid` for anything that `writeStream` did not write. Takes no byte beyond the end of the stream. */
export async function readStream(source: number, signal: AbortSignal): Promise<MemoryStream> {
  const parts: Buffer[] = [];
  const next = async (size: number): Promise<Buffer> => {
    const part = await readExactly(size, source, signal);
    parts.push(part);
    return part;
  };
  if (!(await next(magic.length)).equals(magic)) throw invalid('it is not a memory stream');
  const length = (await next(lengthBytes)).readUInt32BE();
  if (length > headerBytesMax) throw invalid('its header is damaged');
  const header = parseHeader((await next(length)).toString());
  const files = new Map<string, Buffer>();
  for (const { path, size } of header.changed) {
    if (size > fileBytesMax) throw invalid('its header is damaged');
    files.set(path, await next(size));
  }
  const digest = digestOf(parts);
  if (!(await readExactly(digest.length, source, signal)).equals(digest)) throw invalid('its checksum is wrong');
  return { header, files };
}

function parseHeader(text: string): Header {
  try {
    return headerSchema.parse(JSON.parse(text));
  } catch (error) {
    throw invalid('its header is damaged', error);
  }
}

function digestOf(parts: readonly Buffer[]): Buffer {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

async function writeAll(data: Buffer, sink: number, signal: AbortSignal): Promise<void> {
  for (let offset = 0; offset < data.length; ) {
    const size = Math.min(chunkBytes, data.length - offset);
    const writing = whenReady(() => promisify(write)(sink, data, offset, size, null), signal);
    offset += (await orAborted(writing, signal, 'storage-failed')).bytesWritten;
  }
}

async function readExactly(size: number, source: number, signal: AbortSignal): Promise<Buffer> {
  const data = Buffer.alloc(size);
  for (let offset = 0; offset < size; ) {
    const reading = whenReady(() => promisify(read)(source, data, offset, size - offset, null), signal);
    const { bytesRead } = await orAborted(reading, signal, 'stream-invalid');
    if (bytesRead === 0) throw invalid('it ends too early');
    offset += bytesRead;
  }
  return data;
}

/** A command gets a socket blocking; here it is as Node has made it. Only sockets come to the pause. */
async function whenReady<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (;;) {
    // Whoever has given up closes the descriptor, and what gets its number next is somebody else's.
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
    }
    await sleep(againMs);
  }
}

/** A read or write on a descriptor can't be cancelled; its late result is dropped. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal, code: 'stream-invalid' | 'storage-failed') {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(new FlockError(code, 'the transfer was cancelled'));
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort);
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

function invalid(text: string, cause?: unknown): FlockError {
  return new FlockError('stream-invalid', `the stream can't be received: ${text}`, {}, { cause });
}
