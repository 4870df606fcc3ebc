import type { MemoryClock } from './memory-server.ts';
import type { Entry } from './store.ts';

/** What keys were before their latest changes, so that reads can be answered late. */
export type History = {
  note(key: string, before: Entry | null): void;
  /** What the key was at that time; null if it has not changed since. */
  before(atMs: number, key: string): { readonly entry: Entry | null } | null;
  /** The entries below a prefix as they were at that time. */
  undo(entries: readonly Entry[], prefix: string, atMs: number): readonly Entry[];
};

type Change = { readonly atMs: number; readonly key: string; readonly before: Entry | null };

/** Remembers as much as needed to go back `spanMsMax`; with 0 nothing at all. */
export function createHistory(clock: MemoryClock, spanMsMax: number): History {
  let changes: Change[] = [];

  /** The oldest change after that time says what was before it. */
  function firstAfter(atMs: number): ReadonlyMap<string, Entry | null> {
    const found = new Map<string, Entry | null>();
    for (const { atMs: changedAtMs, key, before } of changes) {
      if (changedAtMs > atMs && !found.has(key)) found.set(key, before);
    }
    return found;
  }

  return {
    note(key, before) {
      if (spanMsMax <= 0) return;
      const nowMs = clock.nowMs();
      const oldest = changes[0];
      // Twice the span, so that not every change copies the list.
      if (oldest !== undefined && oldest.atMs < nowMs - 2 * spanMsMax) {
        changes = changes.filter((change) => change.atMs >= nowMs - spanMsMax);
      }
      changes.push({ atMs: nowMs, key, before });
    },
    before(atMs, key) {
      const found = changes.find((change) => change.key === key && change.atMs > atMs);
      return found === undefined ? null : { entry: found.before };
    },
    undo(entries, prefix, atMs) {
      const old = firstAfter(atMs);
      if (old.size === 0) return entries;
      const kept = entries.filter((entry) => !old.has(entry.key));
      for (const [key, entry] of old) if (entry !== null && key.startsWith(prefix)) kept.push(entry);
      return kept.sort((one, other) => (one.key < other.key ? -1 : 1));
    },
  };
}
