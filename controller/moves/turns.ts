import { holdsServices, type MoveDoc, type MoveId, type MoveStep } from '../model/move.ts';
import type { NodeName } from '../model/names.ts';

/**
 * Which of the moves that leave this node may make people wait now. All at once would share the processors and the network, and each
 * pause would take nearly as long as all of them together; one after the other each is short, and all of them take no longer.
 */
export type Turns = {
  /** Resolves when it is this move's turn, in the order of asking. Rejects when the signal fires. */
  wait(doc: MoveDoc, signal: AbortSignal): Promise<void>;
  /** What the store says now of all moves. To be called now and then also when nothing has changed. */
  seen(moves: ReadonlyMap<MoveId, MoveDoc>): void;
};

/** A move that stands still for so long, as its controller is gone or there is much to send, holds up nobody else. */
const stuckMs = 180_000;

type Waiting = { readonly go: () => void };

/** `atOnce`: so many of them hold their services at a time. */
export function createTurns(node: NodeName, atOnce: number, nowMs: () => number): Turns {
  let moves: ReadonlyMap<MoveId, MoveDoc> = new Map();
  let waiting: readonly Waiting[] = [];
  /** Who was let go and is not yet seen to have gone on, and when. */
  const granted = new Map<MoveId, { readonly step: MoveStep; readonly atMs: number }>();

  function held(): number {
    const holding = [...moves.values()].filter(
      ({ from, step, stepSinceMs }) => from === node && holdsServices(step) && nowMs() - stepSinceMs < stuckMs,
    );
    const going = [...granted].flatMap(([id, { atMs }]) => (nowMs() - atMs < stuckMs ? [id] : []));
    return new Set([...holding.map(({ id }) => id), ...going]).size;
  }

  function grant(): void {
    while (waiting.length > 0 && held() < atOnce) {
      const [first, ...rest] = waiting;
      waiting = rest;
      first?.go();
    }
  }

  return {
    wait: (doc, signal) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const entry: Waiting = {
          go() {
            signal.removeEventListener('abort', leave);
            granted.set(doc.id, { step: doc.step, atMs: nowMs() });
            resolve();
          },
        };
        const leave = () => {
          waiting = waiting.filter((one) => one !== entry);
          reject(signal.reason);
        };
        signal.addEventListener('abort', leave, { once: true });
        waiting = [...waiting, entry];
        grant();
      }),
    seen(next) {
      moves = next;
      for (const [id, { step }] of granted) if (moves.get(id)?.step !== step) granted.delete(id);
      grant();
    },
  };
}
