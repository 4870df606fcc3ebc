import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Asks again until there is an answer other than undefined; fails with what was waited for when the time is up. It rests as long as an
 * answer takes: many of them are programs that are started, on processors that what is tested needs as well.
 */
export async function until<T>(
  what: string,
  limitMs: number,
  ask: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const askedMs = performance.now();
    const answer = await ask();
    if (answer !== undefined) return answer;
    const nowMs = performance.now();
    if (nowMs > deadline) throw new Error(`waited ${limitMs} ms in vain until ${what}`);
    await sleep(Math.min(restMsMax, Math.max(restMsMin, nowMs - askedMs)));
  }
}

const restMsMin = 50;
const restMsMax = 400;
