import type { Logger } from 'pino';
import { messageOf } from '../model/errors.ts';

/** Work that takes long, at most one piece for each key, so many at once; what finds no room is asked for again by the next look. */
export type Jobs = {
  /** Begins it, unless the key's is running or there is no room. A failure is logged, and told by `onEnd`. */
  begin(key: string, work: (signal: AbortSignal) => Promise<void>): void;
  isRunning(key: string): boolean;
  /** Resolves when all have ended: they do soon after the signal of the program. */
  ended(): Promise<void>;
};

export function createJobs(parts: {
  readonly signal: AbortSignal;
  readonly max: number;
  readonly onEnd: (key: string, error: unknown) => void;
  readonly log: Logger;
}): Jobs {
  const { signal, max, onEnd, log } = parts;
  const running = new Map<string, Promise<void>>();

  async function run(key: string, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    let problem: unknown = null;
    try {
      await work(signal);
    } catch (error) {
      problem = error;
      if (!signal.aborted) log.debug({ event: 'job.failed', key, reason: messageOf(error) }, 'tried again later');
    }
    running.delete(key);
    if (!signal.aborted) onEnd(key, problem);
  }

  return {
    begin(key, work) {
      if (signal.aborted || running.has(key) || running.size >= max) return;
      // Not before it is known to run: it may end at once.
      running.set(key, Promise.resolve());
      running.set(key, run(key, work));
    },
    isRunning: (key) => running.has(key),
    async ended() {
      while (running.size > 0) await Promise.all(running.values());
    },
  };
}
