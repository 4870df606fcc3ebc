import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import type { Taking } from './pump.ts';

/**
 * The file that the bytes of a stream are added to on their way to the storage. It never holds the stream up for long, and its failure
 * never fails the stream: it only ends the spool, and what is in it stays a beginning.
 */
export type Spool = {
  /** Keeps the chunk until it is written. */
  add(chunk: Buffer): Taking;
  /** After what was added is written. Answers the file's size. */
  close(): Promise<number>;
};

/** Small streams come and go without a file. */
const lazyBytes = 1024 * 1024;
const queueBytesMax = 8 * 1024 * 1024;
const writeBuffersMax = 128;
/** How often the free space is looked at. */
const checkBytes = 64 * 1024 * 1024;
/** Or it is not begun. */
export const spoolRoomMin = checkBytes;

export type SpoolOptions = {
  readonly path: string;
  /** What is in the file is the beginning. */
  readonly isContinued: boolean;
  /** Before the file is made. */
  readonly onBegin: () => Promise<void>;
  /** That may be written now. */
  readonly spareBytes: () => Promise<number>;
};

/** Null if there is no room to begin with. */
export async function openSpool({ path, isContinued, onBegin, spareBytes }: SpoolOptions): Promise<Spool | null> {
  if ((await spareBytes()) < checkBytes) return null;
  let queue: Buffer[] = [];
  let queued = 0;
  let file: FileHandle | null = null;
  let written = 0;
  let checkAt = checkBytes;
  let isOver = false;
  let writing: Promise<void> | null = null;

  async function begin(): Promise<FileHandle> {
    // The note comes last: a file without one is nothing.
    const made = await open(path, isContinued ? 'a' : 'w', 0o600);
    if (!isContinued) await onBegin();
    return made;
  }

  async function flush(): Promise<void> {
    try {
      file ??= await begin();
      while (queued > 0 && !isOver) {
        const buffers = queue.slice(0, writeBuffersMax);
        queue = queue.slice(buffers.length);
        const bytes = buffers.reduce((sum, { length }) => sum + length, 0);
        const { bytesWritten } = await file.writev(buffers);
        queued -= bytes;
        written += bytesWritten;
        if (bytesWritten < bytes) isOver = true;
        if (written >= checkAt) {
          checkAt = written + checkBytes;
          if ((await spareBytes()) < checkBytes) isOver = true;
        }
      }
    } catch {
      isOver = true;
    }
    if (isOver) [queue, queued] = [[], 0];
  }

  function start(): Promise<void> {
    writing ??= flush().finally(() => {
      writing = null;
    });
    return writing;
  }

  return {
    add(chunk) {
      if (isOver) return null;
      queue.push(chunk);
      queued += chunk.length;
      if (file === null && !isContinued && queued < lazyBytes) return null;
      const flushing = start();
      return queued > queueBytesMax ? flushing : null;
    },
    async close() {
      // A few bytes without a file are not worth one.
      while (writing !== null) await writing;
      if (queued > 0 && (file !== null || isContinued)) await start();
      isOver = true;
      try {
        return file === null ? 0 : (await file.stat()).size;
      } finally {
        await file?.close();
      }
    },
  };
}

/** Gives the first bytes of a file to `take`, hashing them. Answers their SHA-256 in hex. */
export async function replaySpool(
  path: string,
  bytes: number,
  take: (chunk: Buffer) => Taking,
  signal: AbortSignal,
): Promise<string> {
  const hash = createHash('sha256');
  const file = await open(path, 'r');
  try {
    for (let offset = 0; offset < bytes; ) {
      signal.throwIfAborted();
      const size = Math.min(replayBytes, bytes - offset);
      // One buffer for each, because the taker keeps it until it is written.
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(size), 0, size, offset);
      if (bytesRead === 0) throw new Error(`${path} has become shorter`);
      const chunk = buffer.subarray(0, bytesRead);
      hash.update(chunk);
      offset += bytesRead;
      await take(chunk);
    }
  } finally {
    await file.close();
  }
  return hash.digest('hex');
}

const replayBytes = 256 * 1024;
