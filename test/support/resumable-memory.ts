import { read, write } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { MemoryStorage } from '../../plugin/storage/memory.ts';
import type { SendRequest, Storage } from '../../plugin/storage/storage.ts';

/** A storage that keeps what came of a stream which was cut short, as OpenZFS does. Tokens: what is sent, and how much of it is there. */
export function makeResumable(
  memory: MemoryStorage,
): Storage & { readonly content: MemoryStorage['content']; resumed: number } {
  const kept = new Map<DatasetId, { readonly data: Buffer; readonly request: SendRequest }>();
  const inFile = async <T>(work: (path: string) => Promise<T>): Promise<T> => {
    const folder = await mkdtemp(join(tmpdir(), 'flock-token-'));
    try {
      return await work(join(folder, 'stream'));
    } finally {
      await rm(folder, { recursive: true });
    }
  };
  const made = {
    ...memory,
    resumed: 0,
    capabilities: async () => ({ ...(await memory.capabilities()), resumableReceive: true }),
    async send(request, sink, signal) {
      if (!('token' in request)) return await memory.send(request, sink, signal);
      const { offset, ...whole } = JSON.parse(request.token) as SendRequest & { offset: number };
      const there = await memory.snapshots(request.id);
      if (!there.some(({ name }) => name === whole.to)) throw new FlockError('stream-invalid', 'no such token');
      made.resumed += 1;
      const rest = await inFile(async (path) => {
        const file = await open(path, 'w');
        await memory.send(whole, file.fd, signal);
        await file.close();
        return (await readFile(path)).subarray(offset);
      });
      for (let at = 0; at < rest.length; ) {
        at += await writeSome(sink, rest.subarray(at, at + 65_536), signal);
      }
    },
    async receive(request, source, signal) {
      const { id, to, from } = request;
      const parts = [kept.get(id)?.data ?? Buffer.alloc(0)];
      kept.delete(id);
      try {
        for (;;) {
          const chunk = await readSome(source, signal);
          if (chunk.length === 0) break;
          parts.push(chunk);
        }
      } catch {
        // What came counts.
      }
      const data = Buffer.concat(parts);
      try {
        return await inFile(async (path) => {
          await writeFile(path, data);
          const file = await open(path);
          try {
            return await memory.receive(request, file.fd, new AbortController().signal);
          } finally {
            await file.close();
          }
        });
      } catch (error) {
        if (data.length > 0) kept.set(id, { data, request: { id, to, from } });
        throw error;
      }
    },
    async resumeToken(id) {
      const found = kept.get(id);
      return found === undefined ? null : JSON.stringify({ ...found.request, offset: found.data.length });
    },
    async abandonReceive(id) {
      kept.delete(id);
    },
  } satisfies Storage & { content: unknown; resumed: number };
  return made;
}

async function readSome(descriptor: number, signal: AbortSignal): Promise<Buffer> {
  const data = Buffer.alloc(65_536);
  const { bytesRead } = await whenReady(() => promisify(read)(descriptor, data, 0, data.length, null), signal);
  return data.subarray(0, bytesRead);
}

async function writeSome(descriptor: number, data: Buffer, signal: AbortSignal): Promise<number> {
  return (await whenReady(() => promisify(write)(descriptor, data, 0, data.length, null), signal)).bytesWritten;
}

/** Sockets of this process do not block. */
async function whenReady<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (;;) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
    }
    await sleep(2);
  }
}
