import type { Clock } from './ports.ts';

/** What the work answers, or null if it takes longer than that or the signal fires; it goes on then. */
export async function within<T>(clock: Clock, ms: number, signal: AbortSignal, work: Promise<T>): Promise<T | null> {
  const waited = new AbortController();
  const late = clock.sleep(Math.max(0, ms), AbortSignal.any([signal, waited.signal])).then(() => null);
  try {
    return await Promise.race([work, late]);
  } finally {
    waited.abort();
  }
}

/** What the work answers, unless the signal fires before; the work goes on then. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
