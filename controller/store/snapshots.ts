import type { Entry } from './store.ts';

/** Whether two lists by key say the same. Every change gives a new index, so the values need not be compared. Pure. */
export function sameEntries(one: readonly Entry[] | null, other: readonly Entry[]): boolean {
  if (one === null || one.length !== other.length) return false;
  return one.every((entry, position) => entry.key === other[position]?.key && entry.index === other[position]?.index);
}
