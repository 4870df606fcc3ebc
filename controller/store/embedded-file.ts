/** The SQLite file of the embedded store: its tables, and its faults as FlockErrors. */
import { closeSync, openSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError, messageOf } from '../model/errors.ts';

/** `idx`: of the last change. Times are of the boot clock, so rows of another boot are over. */
const schema = `
  CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, idx INTEGER NOT NULL, session TEXT) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS entries_session ON entries (session) WHERE session IS NOT NULL;
  CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, ttl_ms INTEGER NOT NULL, lock_delay_ms INTEGER NOT NULL,
    boot TEXT NOT NULL, ends_at_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS lock_delays (key TEXT PRIMARY KEY, boot TEXT NOT NULL, until_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), idx INTEGER NOT NULL) STRICT;
  INSERT OR IGNORE INTO counter VALUES (1, 0);
`;

/** SQLite's own wait blocks this whole process, so it is short and the rest is waited between tries. */
const busyMs = 20;
const retryMs = 10;
/** Bounds the time to recover after a crash, and the file itself after a burst. */
const walPages = 1_000;
const walBytesMax = 16 * 1024 * 1024;

export type StoreFile = {
  readonly database: DatabaseSync;
  /** Runs the work in one durable transaction, also when other processes write: waits for them up to the limit. */
  write<T>(work: () => T, limitMs?: number): Promise<T>;
  /** Runs the work on one state of the data. */
  read<T>(work: () => T): Promise<T>;
  close(): void;
};

export async function openStoreFile(path: string, timeoutMs: number): Promise<StoreFile> {
  const database = await retried(path, timeoutMs, () => {
    makePrivate(path);
    const opened = new DatabaseSync(path, { timeout: busyMs });
    try {
      opened.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = ${walPages};
        PRAGMA journal_size_limit = ${walBytesMax}; BEGIN IMMEDIATE;`);
      opened.exec(schema);
      opened.exec('COMMIT');
      return opened;
    } catch (error) {
      opened.close();
      throw error;
    }
  });

  function transaction<T>(begin: string, work: () => T): T {
    database.exec(begin);
    try {
      const result = work();
      database.exec('COMMIT');
      return result;
    } catch (error) {
      // A failed write or COMMIT may have rolled back already.
      if (database.isTransaction) database.exec('ROLLBACK');
      throw error;
    }
  }

  return {
    database,
    write: (work, limitMs = timeoutMs) => retried(path, limitMs, () => transaction('BEGIN IMMEDIATE', work)),
    read: (work) => retried(path, timeoutMs, () => transaction('BEGIN', work)),
    close: () => database.close(),
  };
}

/**
 * Makes the file for its owner only, if there is none; SQLite gives the log the same mode. An existing one must not be opened here:
 * closing it would end the locks that this process has on it.
 */
function makePrivate(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600));
  } catch {
    // It is there, or SQLite says what is wrong.
  }
}

async function retried<T>(path: string, timeoutMs: number, work: () => T): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    try {
      return work();
    } catch (error) {
      const code = resultCode(error);
      const wayOut = code === null ? undefined : waysOut[code];
      if (code === null || wayOut === undefined) throw error;
      if (!passing.includes(code) || performance.now() > deadline) throw unavailable(path, error, wayOut);
    }
    // Not in step with another process that waits, too.
    await sleep(retryMs * (0.5 + Math.random()));
  }
}

/** SQLITE_BUSY, and SQLITE_PROTOCOL: too many who wanted the log at once. */
const passing: readonly number[] = [5, 15];

/** By SQLite's result code. All others are mistakes of this program. */
const waysOut: Readonly<Record<number, string>> = {
  5: 'another process is writing: try again',
  8: 'it is read-only: make the file and its folder writable',
  10: 'the disk failed: see the kernel log',
  11: 'it is damaged: restore it, or move it away to start anew',
  13: 'the disk is full: make room',
  14: 'the file or its folder is missing: mount or restore it',
  15: 'other processes are opening it: try again',
  26: 'it is another kind of file: move it away',
};

/** The primary result code of SQLite, or null for any other error. */
function resultCode(error: unknown): number | null {
  const isResult = error instanceof Error && 'errcode' in error && typeof error.errcode === 'number';
  return isResult ? Number(error.errcode) & 0xff : null;
}

function unavailable(path: string, error: unknown, wayOut: string): FlockError {
  const text = `the store ${path} can't be used: ${messageOf(error)} (${wayOut})`;
  return new FlockError('store-unavailable', text, { path }, { cause: error });
}
