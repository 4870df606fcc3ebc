import { setFlagsFromString } from 'node:v8';

/**
 * The one time of a simulated run: events in the order of their times, and between two events everything that they have set going
 * runs until no promise is left that could go on. V8 is told to do that at once, for a turn of the event loop costs more than an event;
 * so nothing under test may use real timers, `process.nextTick`, or real input and output.
 */
export type Timer = { cancel(): void };

export type Scheduler = {
  /** Virtual milliseconds since the start; may have fractions. */
  nowMs(): number;
  after(ms: number, run: () => void): Timer;
  events(): number;
  /** Runs events until `isOver` says so (asked before each) or none is left. Rejects with what an event or anything it began threw. */
  run(isOver: () => boolean): Promise<void>;
};

type Event = { readonly atMs: number; readonly order: number; run: (() => void) | null };

/** An unhandled rejection is noticed only in a turn of the event loop. */
const eventsOfTurn = 64;

setFlagsFromString('--allow-natives-syntax');
const runPromises: () => void = new Function('%PerformMicrotaskCheckpoint()') as () => void;

const earlier = (one: Event, other: Event) =>
  one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);

export function createScheduler(): Scheduler {
  const heap: Event[] = [];
  let nowMs = 0;
  let order = 0;
  let count = 0;

  function push(event: Event): void {
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Event;
      if (!earlier(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  function pop(): Event | undefined {
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && earlier(heap[child + 1] as Event, heap[child] as Event)) child += 1;
      const below = heap[child] as Event;
      if (!earlier(below, last)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
    return first;
  }

  return {
    nowMs: () => nowMs,
    after(ms, run) {
      order += 1;
      const event: Event = { atMs: nowMs + Math.max(0, ms), order, run };
      push(event);
      return {
        cancel() {
          event.run = null;
        },
      };
    },
    events: () => count,
    run: (isOver) =>
      new Promise<void>((resolve, reject) => {
        let hasEnded = false;
        const fail = (error: unknown) => end(() => reject(error));
        const end = (settle: () => void) => {
          hasEnded = true;
          process.off('unhandledRejection', fail);
          settle();
        };
        process.on('unhandledRejection', fail);
        const turn = () => {
          if (hasEnded) return;
          try {
            for (let left = eventsOfTurn; left > 0; left -= 1) {
              if (isOver()) return end(resolve);
              let event = pop();
              while (event !== undefined && event.run === null) event = pop();
              if (event === undefined) return end(resolve);
              count += 1;
              nowMs = event.atMs;
              event.run?.();
              runPromises();
            }
          } catch (error) {
            return end(() => reject(error));
          }
          setImmediate(turn);
        };
        // Called while promises run, which can't be run within each other.
        setImmediate(turn);
      }),
  };
}

/** A clock's `sleep`, by whatever calls back after a time. `deliver`: how that gets to who sleeps. */
export function sleepBy(after: Scheduler['after'], deliver: (run: () => void) => void = (run) => run()) {
  return (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      if (signal?.aborted === true) return resolve();
      const done = () => {
        timer.cancel();
        signal?.removeEventListener('abort', done);
        deliver(resolve);
      };
      const timer = after(ms, done);
      signal?.addEventListener('abort', done);
    });
}
