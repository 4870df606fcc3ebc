import { setTimeout as sleep } from 'node:timers/promises';

/** Between two looks. */
const pollMs = 50;

/** Asks until there is an answer other than null, at least once; null when the time is over. Rejects with the signal's reason. */
export async function poll<T>(
  limitMs: number,
  signal: AbortSignal,
  ask: () => Promise<T | null> | T | null,
): Promise<T | null> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    signal.throwIfAborted();
    const answer = await ask();
    if (answer !== null) return answer;
    const leftMs = endMs - performance.now();
    if (leftMs <= 0) return null;
    // A caller that leaves ends the sleep; the next turn says why.
    await sleep(Math.min(pollMs, leftMs), undefined, { signal }).catch(() => undefined);
  }
}
