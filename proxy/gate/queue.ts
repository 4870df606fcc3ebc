import type { ServiceName } from '../model/names.ts';
import type { GateLimits } from './limits.ts';

/** Who wants to use a service. `go` and `refuse` are called synchronously or later. */
export type Visitor<P> = {
  readonly service: ServiceName;
  /** What it takes in memory while it is held. */
  readonly bytes: number;
  go(pass: P): void;
  refuse(refusal: Refusal): void;
};

/** `too-many`, `too-much`, `too-long`: a limit of the hold; the client may try again. */
export type Refusal = 'too-many' | 'too-much' | 'too-long' | 'no-service' | 'closing';

/**
 * The place where visitors of a paused service wait, first come first served. Open it and they leave one after the other, at most
 * `releasedMax` at a time; who comes meanwhile waits behind them.
 */
export type Queue<P> = {
  enter(visitor: Visitor<P>): { leave(): void };
  close(): void;
  open(): void;
  clear(refusal: Refusal): void;
  size(): number;
};

export type Settling = { onSettled: (() => void) | null };

/** `makePass`: counts the visitor in. Its `onSettled` is called when the visitor has been served or needs no more watching. */
export function createQueue<P extends object>(limits: GateLimits, makePass: () => P & Settling): Queue<P> {
  type Waiting = { readonly visitor: Visitor<P>; readonly untilMs: number };
  // A set keeps the order of its members and forgets any of them at once.
  const waiting = new Set<Waiting>();
  let isOpen = true;
  let bytes = 0;
  let running = 0;
  let timer: NodeJS.Timeout | null = null;

  const forget = (one: Waiting): boolean => {
    if (!waiting.delete(one)) return false;
    bytes -= one.visitor.bytes;
    if (waiting.size === 0 && timer !== null) {
      clearTimeout(timer);
      timer = null;
    }
    return true;
  };

  /** All wait equally long, so the first in the queue is the first whose time is up. */
  function watchTime(): void {
    if (timer !== null) return;
    const [first] = waiting;
    if (first === undefined) return;
    timer = setTimeout(
      () => {
        timer = null;
        const now = performance.now();
        for (const one of waiting) {
          if (one.untilMs > now) break;
          forget(one);
          one.visitor.refuse('too-long');
        }
        watchTime();
      },
      Math.max(1, Math.ceil(first.untilMs - performance.now())),
    );
  }

  function release(): void {
    for (const one of waiting) {
      if (!isOpen || running >= limits.releasedMax) return;
      forget(one);
      const pass = makePass();
      running += 1;
      const slot = setTimeout(() => pass.onSettled?.(), limits.releaseSlotMsMax);
      pass.onSettled = () => {
        pass.onSettled = null;
        clearTimeout(slot);
        running -= 1;
        if (waiting.size > 0) queueMicrotask(release);
      };
      one.visitor.go(pass);
    }
  }

  return {
    enter(visitor) {
      if (isOpen && waiting.size === 0) {
        visitor.go(makePass());
        return nowhere;
      }
      if (waiting.size >= limits.heldCountMax || bytes + visitor.bytes > limits.heldBytesMax) {
        visitor.refuse(waiting.size >= limits.heldCountMax ? 'too-many' : 'too-much');
        return nowhere;
      }
      const one: Waiting = { visitor, untilMs: performance.now() + limits.heldMsMax };
      waiting.add(one);
      bytes += visitor.bytes;
      watchTime();
      return {
        leave() {
          forget(one);
        },
      };
    },
    close() {
      isOpen = false;
    },
    open() {
      isOpen = true;
      release();
    },
    clear(refusal) {
      for (const one of waiting) {
        forget(one);
        one.visitor.refuse(refusal);
      }
    },
    size: () => waiting.size,
  };
}

const nowhere = { leave() {} };
