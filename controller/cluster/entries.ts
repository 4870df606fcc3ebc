import type { Entry, Store } from '../store/store.ts';

/** Everything below a key, as the newest transaction left it. */
export function listBelow(store: Store, key: string): Promise<readonly Entry[]> {
  return store.list(`${key}/`, { fresh: true });
}

/** By the last part of their keys. */
export function byName(entries: readonly Entry[]): ReadonlyMap<string, Entry> {
  return new Map(entries.map((entry) => [entry.key.slice(entry.key.lastIndexOf('/') + 1), entry]));
}

export function isLocked(entry: Entry | undefined): boolean {
  return entry !== undefined && entry.session !== null;
}
