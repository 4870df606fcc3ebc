/** The rows of the embedded store. Each function runs inside a transaction of the caller. */
import type { DatabaseSync } from 'node:sqlite';
import type { BootClock } from './embedded.ts';
import { judge } from './rules.ts';
import type { Entry, Operation, Outcome, SessionId, SessionRequest } from './store.ts';

export type Rows = {
  get(key: string): Entry | null;
  list(prefix: string): Entry[];
  /** Leaves nothing behind when it answers a conflict. */
  transact(operations: readonly Operation[]): Outcome;
  createSession(id: SessionId, request: SessionRequest): void;
  renewSession(id: SessionId): boolean;
  endSession(id: SessionId): void;
  hasOldSessions(): boolean;
  endOldSessions(): void;
};

type Row = Readonly<Record<string, unknown>>;

export function openRows(database: DatabaseSync, clock: BootClock): Rows {
  const { bootId } = clock;
  const getEntry = database.prepare('SELECT key, value, idx, session FROM entries WHERE key = ?');
  const listEntries = database.prepare(
    'SELECT key, value, idx, session FROM entries WHERE key >= ? AND key < ? ORDER BY key',
  );
  const putEntry = database.prepare(
    'INSERT INTO entries (key, value, idx, session) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, idx = excluded.idx, session = excluded.session',
  );
  const deleteEntry = database.prepare('DELETE FROM entries WHERE key = ?');
  const nextIndex = database.prepare('UPDATE counter SET idx = idx + 1 RETURNING idx');
  const putSession = database.prepare(
    'INSERT INTO sessions (id, name, ttl_ms, lock_delay_ms, boot, ends_at_ms) VALUES (?, ?, ?, ?, ?, ?)',
  );
  const renew = database.prepare('UPDATE sessions SET ends_at_ms = ? + ttl_ms WHERE id = ?');
  const getSession = database.prepare('SELECT lock_delay_ms FROM sessions WHERE id = ?');
  const deleteSession = database.prepare('DELETE FROM sessions WHERE id = ?');
  const oldSessions = database.prepare('SELECT id FROM sessions WHERE boot <> ? OR ends_at_ms <= ?');
  const delayLocks = database.prepare(
    'INSERT OR REPLACE INTO lock_delays (key, boot, until_ms) SELECT key, ?, ? FROM entries WHERE session = ?',
  );
  const releaseLocks = database.prepare('UPDATE entries SET session = NULL, idx = ? WHERE session = ?');
  const getDelay = database.prepare('SELECT 1 FROM lock_delays WHERE key = ? AND boot = ? AND until_ms > ?');
  const endDelays = database.prepare('DELETE FROM lock_delays WHERE boot <> ? OR until_ms <= ?');

  const get = (key: string) => entryOf(getEntry.get(key));
  const takeIndex = () => Number(nextIndex.get()?.['idx']);

  function endSession(id: SessionId): void {
    const session = getSession.get(id);
    if (session === undefined) return;
    const lockDelayMs = Number(session['lock_delay_ms']);
    if (lockDelayMs > 0) delayLocks.run(bootId, clock.nowMs() + lockDelayMs, id);
    releaseLocks.run(takeIndex(), id);
    deleteSession.run(id);
  }

  return {
    get,
    list(prefix) {
      // Keys are ASCII: every key below "a/" is below "a0", and "{" is above all of them.
      const end = prefix === '' ? '{' : `${prefix.slice(0, -1)}0`;
      return listEntries.all(prefix, end).flatMap((row) => entryOf(row) ?? []);
    },

    transact(operations) {
      const nowMs = clock.nowMs();
      const guards = {
        isAlive: (session: SessionId) => getSession.get(session) !== undefined,
        isDelayed: (key: string) => getDelay.get(key, bootId, nowMs) !== undefined,
      };
      const changes = new Map<string, Entry | null>();
      let index: string | null = null;
      for (const [position, operation] of operations.entries()) {
        const { key } = operation;
        const changed = changes.get(key);
        const current = changed === undefined ? get(key) : changed;
        const verdict = judge(operation, current, guards);
        if (verdict.kind === 'conflict') return { kind: 'conflict', operation: position, reason: verdict.reason };
        if (verdict.kind === 'delete') changes.set(key, null);
        if (verdict.kind === 'write') {
          index ??= String(Number(database.prepare('SELECT idx FROM counter').get()?.['idx']) + 1);
          changes.set(key, { key, value: verdict.value, session: verdict.session, index });
        }
      }
      if (changes.size > 0) takeIndex();
      for (const [key, entry] of changes) {
        if (entry === null) deleteEntry.run(key);
        else putEntry.run(key, entry.value, Number(entry.index), entry.session);
      }
      const indexes = new Map<string, string>();
      for (const operation of operations) {
        const after = 'value' in operation ? get(operation.key) : null;
        if (after !== null) indexes.set(operation.key, after.index);
      }
      return { kind: 'done', indexes };
    },

    createSession(id, { name, ttlMs, lockDelayMs }) {
      putSession.run(id, name, ttlMs, lockDelayMs, bootId, clock.nowMs() + ttlMs);
    },
    renewSession: (id) => Number(renew.run(clock.nowMs(), id).changes) > 0,
    endSession,
    hasOldSessions: () => oldSessions.get(bootId, clock.nowMs()) !== undefined,
    endOldSessions() {
      const nowMs = clock.nowMs();
      for (const row of oldSessions.all(bootId, nowMs)) endSession(String(row['id']) as SessionId);
      endDelays.run(bootId, nowMs);
    },
  };
}

function entryOf(row: Row | undefined): Entry | null {
  if (row === undefined) return null;
  const session = row['session'];
  return {
    key: String(row['key']),
    value: String(row['value']),
    index: String(row['idx']),
    session: typeof session === 'string' ? (session as SessionId) : null,
  };
}
