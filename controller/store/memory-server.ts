/**
 * The data of a store in memory: entries, sessions and locks, with the clock and the dice of a simulation. It is what Consul's leader
 * is to a cluster; memory.ts makes the way to it. Everything here is done at once: nothing waits but a session's end.
 */
import { createHistory } from './memory-history.ts';
import { judge } from './rules.ts';
import type { Entry, Operation, Outcome, SessionId, SessionRequest } from './store.ts';

export type MemoryClock = {
  nowMs(): number;
  /** Resolves when the time is over, or at once when the signal fires (or rejects then: both will do). */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
};

/** From 0 to below 1. */
export type Random = () => number;

export type MemoryData = {
  get(key: string): Entry | null;
  list(prefix: string): readonly Entry[];
  /** As it was at that time. */
  listAt(prefix: string, atMs: number): readonly Entry[];
  getAt(key: string, atMs: number): Entry | null;
  transact(operations: readonly Operation[]): Outcome;
  createSession(request: SessionRequest): SessionId;
  renewSession(id: SessionId): boolean;
  endSession(id: SessionId): void;
  sessions(): readonly SessionId[];
  /** What a new leader does: every session gets a full time to live again; lock delays may be forgotten. */
  takeOver(forgetsLockDelays: boolean): void;
  close(): void;
};

type Session = { readonly request: SessionRequest; readonly locks: Set<string>; endsAtMs: number };

export type MemoryDataOptions = {
  readonly clock: MemoryClock;
  readonly random: Random;
  /** How far back `getAt` and `listAt` reach. */
  readonly historyMsMax: number;
  /** No session ends by its time while there is none. */
  hasLeader(): boolean;
  /** Called after every change. */
  changed(keys: ReadonlySet<string>): void;
};

export function createMemoryData({ clock, random, historyMsMax, hasLeader, changed }: MemoryDataOptions): MemoryData {
  const entries = new Map<string, Entry>();
  const history = createHistory(clock, historyMsMax);
  const sessions = new Map<SessionId, Session>();
  const delayedUntilMs = new Map<string, number>();
  const closing = new AbortController();
  /** Of all entries, in order. */
  const keys: string[] = [];
  let index = 0;

  const guards = {
    isAlive: (session: SessionId) => sessions.has(session),
    isDelayed(key: string) {
      const untilMs = delayedUntilMs.get(key);
      if (untilMs === undefined) return false;
      if (clock.nowMs() < untilMs) return true;
      delayedUntilMs.delete(key);
      return false;
    },
  };

  function commit(changes: ReadonlyMap<string, Entry | null>): void {
    for (const [key, after] of changes) {
      const before = entries.get(key) ?? null;
      history.note(key, before);
      if (before?.session != null) sessions.get(before.session)?.locks.delete(key);
      if (after?.session != null) sessions.get(after.session)?.locks.add(key);
      if (before === null && after !== null) keys.splice(positionOf(keys, key), 0, key);
      if (before !== null && after === null) keys.splice(positionOf(keys, key), 1);
      if (after === null) entries.delete(key);
      else entries.set(key, after);
    }
    if (changes.size > 0) changed(new Set(changes.keys()));
  }

  function list(prefix: string): Entry[] {
    const found: Entry[] = [];
    for (let position = positionOf(keys, prefix); position < keys.length; position += 1) {
      const key = keys[position];
      if (key === undefined || !key.startsWith(prefix)) break;
      const entry = entries.get(key);
      if (entry !== undefined) found.push(entry);
    }
    return found;
  }

  function endSession(id: SessionId): void {
    const session = sessions.get(id);
    if (session === undefined) return;
    sessions.delete(id);
    index += 1;
    const released = new Map<string, Entry>();
    for (const key of session.locks) {
      const entry = entries.get(key);
      if (entry !== undefined) released.set(key, { ...entry, session: null, index: String(index) });
      if (session.request.lockDelayMs > 0) delayedUntilMs.set(key, clock.nowMs() + session.request.lockDelayMs);
    }
    commit(released);
  }

  /** Consul's rule: at the earliest after the time to live, here at the latest after twice that. */
  function endOf(request: SessionRequest): number {
    return clock.nowMs() + request.ttlMs * (1 + random());
  }

  async function expire(id: SessionId, session: Session): Promise<void> {
    while (sessions.get(id) === session && !closing.signal.aborted) {
      const leftMs = session.endsAtMs - clock.nowMs();
      if (leftMs <= 0 && hasLeader()) return endSession(id);
      // Without a leader the end is put off anyway when there is one again.
      await clock.sleep(leftMs > 0 ? leftMs : session.request.ttlMs, closing.signal).catch(() => {});
    }
  }

  return {
    get: (key) => entries.get(key) ?? null,
    list,
    getAt(key, atMs) {
      const old = history.before(atMs, key);
      return old === null ? (entries.get(key) ?? null) : old.entry;
    },
    listAt: (prefix, atMs) => history.undo(list(prefix), prefix, atMs),

    transact(operations) {
      const changes = new Map<string, Entry | null>();
      const next = String(index + 1);
      for (const [position, operation] of operations.entries()) {
        const { key } = operation;
        const changed = changes.get(key);
        const current = changed === undefined ? (entries.get(key) ?? null) : changed;
        const verdict = judge(operation, current, guards);
        if (verdict.kind === 'conflict') return { kind: 'conflict', operation: position, reason: verdict.reason };
        if (verdict.kind === 'delete') changes.set(key, null);
        if (verdict.kind === 'write') {
          changes.set(key, { key, value: verdict.value, session: verdict.session, index: next });
        }
      }
      if (changes.size > 0) index += 1;
      commit(changes);
      return { kind: 'done', indexes: indexesOf(operations, (key) => entries.get(key)?.index) };
    },

    createSession(request) {
      const id = uuid(random) as SessionId;
      const session = { request, locks: new Set<string>(), endsAtMs: endOf(request) };
      sessions.set(id, session);
      void expire(id, session);
      return id;
    },
    renewSession(id) {
      const session = sessions.get(id);
      if (session === undefined) return false;
      session.endsAtMs = endOf(session.request);
      return true;
    },
    endSession,
    sessions: () => [...sessions.keys()],
    takeOver(forgetsLockDelays) {
      for (const session of sessions.values()) session.endsAtMs = endOf(session.request);
      if (forgetsLockDelays) delayedUntilMs.clear();
    },
    close: () => closing.abort(),
  };
}

/** The answer of a transaction that was done: the indexes of what its operations wrote. Pure. */
export function indexesOf(
  operations: readonly Operation[],
  indexOf: (key: string) => string | undefined,
): ReadonlyMap<string, string> {
  const indexes = new Map<string, string>();
  for (const operation of operations) {
    const index = 'value' in operation ? indexOf(operation.key) : undefined;
    if (index !== undefined) indexes.set(operation.key, index);
  }
  return indexes;
}

/** The first position whose key is not below this text. */
function positionOf(keys: readonly string[], text: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] ?? '') < text) low = middle + 1;
    else high = middle;
  }
  return low;
}

function uuid(random: Random): string {
  const digits = (count: number) =>
    Array.from({ length: count }, () => Math.floor(random() * 16).toString(16)).join('');
  return [8, 4, 4, 4, 12].map(digits).join('-');
}
