import type { Readable, Writable } from 'node:stream';
import { FlockError } from '../../controller/model/errors.ts';
import { lineBytesMax } from './protocol.ts';

/**
 * Reading and writing of sockets by hand. A pipeline destroys both ends with the first failure, so that the reason could not be told to
 * the other side; here nothing is destroyed, and what has to end does so by the signal.
 */

/** Null: there is room for more. Else it has to be waited for. */
export type Taking = Promise<unknown> | null;

/** Gives away every chunk until the end. Throws what `take` throws, the stream's error, and the signal's reason. Leaves the stream paused. */
export function pump(from: Readable, take: (chunk: Buffer) => Taking, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    let isOver = false;
    const finish = (end: () => void) => {
      if (isOver) return;
      isOver = true;
      from.off('data', data).off('end', ended).off('error', fail).off('close', closed).pause();
      signal.removeEventListener('abort', aborted);
      end();
    };
    const fail = (error: unknown) => finish(() => reject(error));
    const aborted = () => fail(signal.reason);
    const ended = () => finish(resolve);
    const closed = () => fail(cutShort());
    const data = (chunk: Buffer) => {
      const waiting = take(chunk);
      if (waiting === null) return;
      from.pause();
      waiting.then(() => {
        if (!isOver) from.resume();
      }, fail);
    };
    if (signal.aborted) return aborted();
    if (from.readableEnded) return ended();
    if (from.destroyed) return closed();
    signal.addEventListener('abort', aborted, { once: true });
    from.on('data', data).once('end', ended).once('error', fail).once('close', closed).resume();
  });
}

/** Writes with back-pressure. Whoever waits has to listen to the signal of whatever ends the socket too. */
export function createSink(to: Writable): { write(chunk: Buffer): Taking } {
  let drained: PromiseWithResolvers<void> | null = null;
  to.on('drain', () => {
    drained?.resolve();
    drained = null;
  });
  return {
    write(chunk) {
      if (to.write(chunk)) return null;
      drained ??= Promise.withResolvers<void>();
      return drained.promise;
    },
  };
}

/** The next line, without its end. What has come after it stays in the stream. Throws `stream-invalid` for one that is too long or cut short. */
export function readLine(from: Readable, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    const finish = (end: () => void) => {
      from.off('readable', take).off('end', closed).off('close', closed);
      signal.removeEventListener('abort', aborted);
      end();
    };
    const fail = (error: unknown) => finish(() => reject(error));
    const aborted = () => fail(signal.reason);
    const closed = () => fail(cutShort());
    const take = () => {
      for (let chunk: Buffer | null = from.read(); chunk !== null; chunk = from.read()) {
        const end = chunk.indexOf(lineEnd);
        parts.push(end < 0 ? chunk : chunk.subarray(0, end));
        bytes += chunk.length;
        if (end >= 0) {
          const rest = chunk.subarray(end + 1);
          finish(() => resolve(Buffer.concat(parts).toString('utf8')));
          // Last, because it says at once that there is something to read.
          if (rest.length > 0) from.unshift(rest);
          return;
        }
        if (bytes > lineBytesMax) return fail(new FlockError('stream-invalid', 'a line of the stream is too long'));
      }
    };
    if (signal.aborted) return aborted();
    if (from.readableEnded || from.destroyed) return closed();
    signal.addEventListener('abort', aborted, { once: true });
    from.on('readable', take).once('end', closed).once('close', closed);
  });
}

/** For what nobody can stop: its late result is dropped. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const aborted = () => reject(signal.reason);
    if (signal.aborted) return aborted();
    signal.addEventListener('abort', aborted, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  });
}

const lineEnd = '\n'.charCodeAt(0);

function cutShort(): FlockError {
  return new FlockError('stream-invalid', 'the connection was closed before the stream had ended');
}

/** Calls once when nobody has touched it for the time. */
export function createWatch(ms: number, onSilence: () => void): { touch(): void; stop(): void } {
  const timer = setTimeout(onSilence, ms);
  return { touch: () => void timer.refresh(), stop: () => clearTimeout(timer) };
}
