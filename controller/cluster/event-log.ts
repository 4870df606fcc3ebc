import { byWriting, type EventDoc, type EventKind, encodeEvent, eventKeys, eventsMax } from '../model/events.ts';
import type { NodeName } from '../model/names.ts';
import type { Store } from '../store/store.ts';
import { listBelow } from './entries.ts';

/** Where a program says what happened. Never waits and never fails: what can't be stored now is stored when the store is back. */
export type EventLog = {
  tell(kind: EventKind, subject: string, text: string): void;
  /** Writes what was told until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type EventLogParts = {
  readonly store: Store;
  readonly node: NodeName;
  readonly clock: {
    nowMs(): number;
    randomHex(bytes: number): string;
    /** Resolves after the time or when the signal fires; never rejects. */
    sleep(ms: number, signal: AbortSignal): Promise<void>;
  };
};

/** Told while the store is away; then the oldest are forgotten. */
const waitingMax = 200;
const retryMs = 2_000;
const pruneEvery = 50;
/** Of a transaction of the store. */
const deletionsMax = 30;

export function createEventLog({ store, node, clock }: EventLogParts): EventLog {
  let waiting: readonly { readonly key: string; readonly value: string }[] = [];
  let written = 0;
  let wakeUp: () => void = () => undefined;

  async function write(signal: AbortSignal): Promise<void> {
    for (let first = waiting[0]; first !== undefined; first = waiting[0]) {
      // Written once: where an answer was lost it is there already, and a new index would make it new again for those who follow.
      await store.transact([{ kind: 'compare-and-set', ...first, index: null }]);
      waiting = waiting.filter((one) => one !== first);
      written += 1;
      // Each program at another time.
      if (written % pruneEvery === 0) await prune(signal);
    }
  }

  /** By their times, a late event would be gone before anybody has seen it, and one of a clock that is ahead would stay for ever. */
  async function prune(signal: AbortSignal): Promise<void> {
    const entries = byWriting(await listBelow(store, eventKeys.events));
    const old = entries.slice(0, Math.max(0, entries.length - eventsMax));
    for (let from = 0; from < old.length && !signal.aborted; from += deletionsMax) {
      const part = old.slice(from, from + deletionsMax);
      await store.transact(part.map(({ key }) => ({ kind: 'delete', key }) as const));
    }
  }

  return {
    tell(kind, subject, text) {
      const event: EventDoc = { atMs: Math.round(clock.nowMs()), node, kind, subject, text };
      const one = { key: eventKeys.event(event.atMs, node, clock.randomHex(4)), value: encodeEvent(event) };
      waiting = [...waiting, one].slice(-waitingMax);
      wakeUp();
    },
    async run(signal) {
      // Beside the first events. Else programs that end before they have written many would never prune, and the log grow with each of them.
      const pruned = prune(signal).catch(() => undefined);
      while (!signal.aborted) {
        const isDone = await write(signal).then(
          () => true,
          () => false,
        );
        if (isDone && waiting.length > 0) continue;
        const woken = new AbortController();
        // While the store is away nothing that is told hurries the next attempt.
        if (isDone) wakeUp = () => woken.abort();
        await clock.sleep(isDone ? idleMs : retryMs, AbortSignal.any([signal, woken.signal]));
        wakeUp = () => undefined;
      }
      await pruned;
    },
  };
}

/** Nothing is to be done; a wake ends it. */
const idleMs = 3_600_000;
