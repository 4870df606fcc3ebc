import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../model/errors.ts';
import { CliError } from './client.ts';

/** Watching what goes on for a while, over controllers that are killed and stores without a leader. */

const againMs = 1_000;
const unseenMsMax = 120_000;
const passing: readonly (string | null)[] = [null, 'not-ready', 'store-unavailable', 'deadline-exceeded'];

/** The answer, asked for again while it can't be had for reasons that may pass. */
export async function insist<T>(ask: () => Promise<T>): Promise<T> {
  const endMs = performance.now() + unseenMsMax;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof CliError) || !passing.includes(error.code) || performance.now() > endMs) throw error;
    }
    await sleep(againMs);
  }
}

/** Calls `first` at the first Ctrl-C, and ends flockctl at the second. Answers how to stop listening. */
export function onInterrupt(first: () => Promise<void>): () => void {
  let count = 0;
  const listener = () => {
    count += 1;
    if (count > 1) process.exit(interruptedStatus);
    first().catch((error: unknown) => process.stderr.write(`flockctl: ${messageOf(error)}\n`));
  };
  process.on('SIGINT', listener);
  return () => void process.off('SIGINT', listener);
}

export const interruptedStatus = 130;

/** One line that is written over again and again, on a terminal only. */
export function createStatusLine(): { show(text: string): void; clear(): void } {
  let isShown = false;
  const clear = () => {
    if (isShown) process.stderr.write('\r\x1b[K');
    isShown = false;
  };
  return {
    show(text) {
      if (!process.stderr.isTTY) return;
      // 0: a terminal that does not know, as over a serial line.
      const width = Math.max(20, (process.stderr.columns || 80) - 1);
      process.stderr.write(`\r\x1b[K${text.slice(0, width)}`);
      isShown = true;
    },
    clear,
  };
}
