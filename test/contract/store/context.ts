import assert from 'node:assert/strict';
import type { Entry, Operation, Outcome, SessionId, Store } from '../../../controller/store/store.ts';

/** One store, as two programs see it. */
export type StoreBench = {
  readonly here: Store;
  readonly there: Store;
  /** The shortest time to live that the store takes, in ms. */
  readonly ttlMs: number;
  /** Nothing can be written until `mend`. Calls of both clients then fail within `faultMsMax`. */
  fail(): Promise<void>;
  mend(): Promise<void>;
  readonly faultMsMax: number;
  /** Whether reads and watches notice it, too. */
  readonly readsFail: boolean;
  dispose(): Promise<void>;
};

export type StoreContext = {
  bench(): StoreBench;
  here(): Store;
  there(): Store;
  /** A prefix that no other test uses, with a slash at its end. */
  prefix(): string;
  /** A session of `here` with the shortest time to live, or with one that no test outlasts; destroyed after the test. */
  session(options?: { readonly ttlMs?: number; readonly lockDelayMs?: number }): Promise<SessionId>;
  /** The watch of a prefix that ends with the test. */
  watched(store: Store, prefix: string, onFault?: (error: unknown) => void): Watched;
};

/** What a watch has told. */
export type Watched = {
  readonly lists: (readonly Entry[])[];
  /** Resolves with the newest list for which this holds. */
  until(what: string, holds: (entries: readonly Entry[]) => boolean): Promise<readonly Entry[]>;
  /** Ends the watch and waits until it has ended. */
  end(): Promise<void>;
};

export const set = (key: string, value: string): Operation => ({ kind: 'set', key, value });
export const create = (key: string, value: string): Operation => ({ kind: 'compare-and-set', key, value, index: null });
export const lock = (key: string, session: SessionId, value = ''): Operation => ({ kind: 'lock', key, value, session });
export const unlock = (key: string, session: SessionId, value = ''): Operation => ({
  kind: 'unlock',
  key,
  value,
  session,
});
export const checkSession = (key: string, session: SessionId): Operation => ({ kind: 'check-session', key, session });

export async function done(outcome: Promise<Outcome>): Promise<ReadonlyMap<string, string>> {
  const answer = await outcome;
  assert.equal(answer.kind, 'done', JSON.stringify(answer));
  return answer.kind === 'done' ? answer.indexes : new Map();
}

export async function conflicts(outcome: Promise<Outcome>, operation = 0): Promise<void> {
  const answer = await outcome;
  assert.equal(answer.kind, 'conflict');
  if (answer.kind !== 'conflict') return;
  assert.equal(answer.operation, operation, answer.reason);
  assert.notEqual(answer.reason, '');
}

export async function entryOf(store: Store, key: string): Promise<Entry> {
  const entry = await store.get(key, { fresh: true });
  assert.ok(entry !== null, `${key} is missing`);
  return entry;
}

export function valuesOf(entries: readonly Entry[]): Record<string, string> {
  return Object.fromEntries(entries.map(({ key, value }) => [key, value]));
}
