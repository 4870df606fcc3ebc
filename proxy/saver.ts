import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { messageOf } from '../controller/model/errors.ts';
import { createLatch } from '../controller/store/latch.ts';
import { type Saved, writeSaved } from './saved.ts';

/** Keeps the newest of what it is given on the disk, one write at a time and at most one each `gapMs`. */
export type Saver = {
  save(saved: Saved): void;
  /** Saves until the signal fires, and then what is left. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

const gapMsDefault = 1_000;

export function createSaver(path: string, log: Logger, gapMs = gapMsDefault): Saver {
  const latch = createLatch();
  let next: Saved | null = null;
  let problem: string | null = null;

  async function write(): Promise<void> {
    const saved = next;
    if (saved === null) return;
    next = null;
    try {
      await writeSaved(path, saved);
      problem = null;
    } catch (error) {
      if (problem === null)
        log.error(
          { event: 'saved.not-written', path, reason: messageOf(error) },
          'a start without a store serves an older table',
        );
      problem = messageOf(error);
      next ??= saved;
      latch.open();
    }
  }

  return {
    save(saved) {
      next = saved;
      latch.open();
    },
    async run(signal) {
      while (await latch.pass(signal)) {
        await write();
        await sleep(gapMs, undefined, { signal }).catch(() => {});
      }
      await write();
    },
  };
}
