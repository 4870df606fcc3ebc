import { setTimeout as sleep } from 'node:timers/promises';

/**
 * The limit of all streams that a node sends: a bucket that holds a tenth of a second. Whoever takes pays at once, into debt where there
 * is nothing left, and then waits until the debt of all is paid; so several streams share the rate, and none is starved.
 */
export type Pacer = {
  /** Null: there is no limit. Reads it anew. */
  pieceBytes(): number | null;
  /** Null: go on at once. The limit may change meanwhile. */
  take(bytes: number, signal: AbortSignal): Promise<void> | null;
};

const burstMs = 100;
/** So soon a changed limit holds for those who wait. */
const sliceMsMax = 100;
const pieceBytesMin = 1024;
const pieceBytesMax = 64 * 1024;

/** `limit`: bytes a second; null: as fast as it goes. */
export function createPacer(limit: () => number | null, nowMs: () => number = () => performance.now()): Pacer {
  let tokens = 0;
  let filledMs = nowMs();

  /** Answers bytes a millisecond. */
  function fill(): number | null {
    const now = nowMs();
    const passedMs = now - filledMs;
    filledMs = now;
    const perSecond = limit();
    if (perSecond === null) {
      tokens = 0;
      return null;
    }
    const rate = perSecond / 1000;
    tokens = Math.min(rate * burstMs, tokens + rate * passedMs);
    return rate;
  }

  async function wait(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const rate = fill();
      if (rate === null || tokens >= 0) return;
      await sleep(Math.min(sliceMsMax, Math.ceil(-tokens / rate)), undefined, { signal });
    }
  }

  return {
    pieceBytes() {
      const perSecond = limit();
      if (perSecond === null) return null;
      return Math.max(pieceBytesMin, Math.min(pieceBytesMax, Math.floor((perSecond / 1000) * burstMs)));
    },
    take(bytes, signal) {
      if (fill() === null) return null;
      tokens -= bytes;
      return tokens >= 0 ? null : wait(signal);
    },
  };
}
