import type { MoveDoc, MoveId } from '../model/move.ts';
import { existingMove } from './aborting.ts';
import type { Mover } from './mover.ts';
import type { MoveTools } from './ports.ts';

export type WaitingParts = {
  readonly tools: Pick<MoveTools, 'store' | 'clock'>;
  readonly mover: Pick<Mover, 'moves' | 'onChange'>;
};

/** The record once its revision is above `after`, or as it is when the time is over. Throws `move-not-found`. */
export async function waitForChange(
  { tools: { store, clock }, mover }: WaitingParts,
  { id, after, waitMs }: { readonly id: string; readonly after: number; readonly waitMs: number },
  signal: AbortSignal,
): Promise<MoveDoc> {
  const endMs = clock.bootMs() + waitMs;
  for (;;) {
    const changed = new AbortController();
    // Before the look: what changes while that is on its way is told once only.
    const stop = mover.onChange(() => {
      const seen = mover.moves().get(id as MoveId);
      if (seen === undefined || seen.revision > after) changed.abort();
    });
    try {
      const { doc } = await existingMove(store, id);
      const leftMs = endMs - clock.bootMs();
      if (doc.revision > after || leftMs <= 0) return doc;
      await clock.sleep(leftMs, AbortSignal.any([signal, changed.signal]));
    } finally {
      stop();
    }
    signal.throwIfAborted();
  }
}
