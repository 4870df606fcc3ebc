import { FlockError } from '../controller/model/errors.ts';

/**
 * One piece of work at a time per key, in order of arrival; different keys don't wait for each other.
 *
 * INVARIANTS
 * - A key is in the map exactly while work for it runs.
 * - At most `waitersMax` wait per key; one more is refused with `too-many-requests`.
 * - A waiter whose signal fires leaves the queue with `caller-gone` or the signal's own reason.
 */
export type Locks = {
  with<T>(key: string, what: string, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
};

type Waiter = { readonly start: () => void };

const waitersMax = 256;

export function createLocks(): Locks {
  const running = new Map<string, { what: string; readonly waiting: Waiter[] }>();

  async function enter(key: string, what: string, signal: AbortSignal): Promise<void> {
    const current = running.get(key);
    if (current === undefined) {
      running.set(key, { what, waiting: [] });
      return;
    }
    if (current.waiting.length >= waitersMax) {
      throw new FlockError(
        'too-many-requests',
        `${key}: ${waitersMax} requests wait already while it is busy with ${current.what}; try again`,
      );
    }
    await new Promise<void>((resolve, reject) => {
      const waiter: Waiter = {
        start: () => {
          signal.removeEventListener('abort', leave);
          current.what = what;
          resolve();
        },
      };
      const leave = () => {
        current.waiting.splice(current.waiting.indexOf(waiter), 1);
        reject(
          new FlockError('volume-busy', `${key} is busy with ${current.what}; try again`, {}, { cause: signal.reason }),
        );
      };
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      signal.addEventListener('abort', leave, { once: true });
      current.waiting.push(waiter);
    });
  }

  function leave(key: string): void {
    const next = running.get(key)?.waiting.shift();
    if (next === undefined) running.delete(key);
    else next.start();
  }

  return {
    async with(key, what, signal, work) {
      await enter(key, what, signal);
      try {
        return await work();
      } finally {
        leave(key);
      }
    },
  };
}
