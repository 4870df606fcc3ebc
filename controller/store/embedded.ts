/**
 * The store of a single host: one SQLite file that the programs of this host open together.
 *
 * - Every transaction is on the disk before it is answered (write-ahead log, fsync each time).
 * - Programs exclude each other by the kernel's file locks, which end with their process, whatever namespaces they are in. The file
 *   must be on a local file system.
 * - Sessions end by the boot clock, which goes on in suspend and is the same for all, and never outlive a boot. Whoever comes next
 *   after a session's end releases its locks; a lock delay starts then.
 * - Watches: SQLite's `data_version`, a number in shared memory, tells that another process has committed. It is read every
 *   `pollMs` while there are watches, for some microseconds each time: no other way (file system events on the log) was as sure.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError, hasCode } from '../model/errors.ts';
import { openStoreFile } from './embedded-file.ts';
import { openRows } from './embedded-rows.ts';
import { createLatch, type Latch } from './latch.ts';
import { checkKey, checkOperations, checkPrefix, checkSessionRequest } from './requests.ts';
import { sameEntries } from './snapshots.ts';
import type { Entry, SessionId, Store } from './store.ts';

export type BootClock = {
  /** Changes with each start of the host. */
  readonly bootId: string;
  nowMs(): number;
};

export type EmbeddedOptions = {
  readonly clock?: BootClock;
  /** How long a call waits for other processes' transactions. */
  readonly timeoutMs?: number;
};

const defaultTimeoutMs = 5_000;
const pollMs = 20;
/** How late a watch sees that a session has ended with nobody writing. */
const expiryPollMs = 200;
const watchRetryMs = 500;
/** How long a read waits for other processes to release an ended session's locks first. */
const sweepMsMax = 100;

/** Opens the file, and makes it if there is none (its folder must be there). Throws `store-unavailable`. */
export async function openEmbeddedStore(path: string, options: EmbeddedOptions = {}): Promise<Store> {
  const { clock = hostClock(), timeoutMs = defaultTimeoutMs } = options;
  const file = await openStoreFile(path, timeoutMs);
  const rows = await file.read(() => openRows(file.database, clock));
  const dataVersion = file.database.prepare('PRAGMA data_version');
  const closing = new AbortController();
  const latches = new Set<Latch>();
  let polling: Promise<void> | null = null;

  function assertOpen(): void {
    if (closing.signal.aborted) throw new FlockError('store-unavailable', `the store ${path} was closed`);
  }

  async function write<T>(work: () => T): Promise<T> {
    assertOpen();
    const result = await file.write(() => {
      assertOpen();
      rows.endOldSessions();
      return work();
    });
    for (const latch of latches) latch.open();
    return result;
  }

  async function read<T>(work: () => T): Promise<T> {
    assertOpen();
    if (await file.read(rows.hasOldSessions)) await sweep();
    return await file.read(() => {
      assertOpen();
      return work();
    });
  }

  /** Ends sessions whose time is over. Not done while nothing can be written: reading works then, too. */
  async function sweep(): Promise<void> {
    try {
      await file.write(rows.endOldSessions, sweepMsMax);
      for (const latch of latches) latch.open();
    } catch (error) {
      if (!hasCode(error, 'store-unavailable')) throw error;
    }
  }

  /** Runs while there are watches. */
  async function poll(): Promise<void> {
    let version: unknown = null;
    let expiryAtMs = clock.nowMs();
    while (latches.size > 0 && !closing.signal.aborted) {
      if (changedElsewhere()) for (const latch of latches) latch.open();
      await sleep(pollMs);
    }
    polling = null;

    function changedElsewhere(): boolean {
      try {
        const now = dataVersion.get()?.['data_version'];
        const isDue = clock.nowMs() >= expiryAtMs;
        if (isDue) expiryAtMs = clock.nowMs() + expiryPollMs;
        const changed = version !== null && now !== version;
        version = now;
        return changed || (isDue && rows.hasOldSessions());
      } catch {
        // The watches find out what is wrong themselves.
        return true;
      }
    }
  }

  async function* watch(
    prefix: string,
    signal: AbortSignal,
    onFault?: (error: unknown) => void,
  ): AsyncGenerator<readonly Entry[]> {
    const ended = AbortSignal.any([signal, closing.signal]);
    const latch = createLatch();
    latches.add(latch);
    latch.open();
    polling ??= poll();
    let last: readonly Entry[] | null = null;
    try {
      while (await latch.pass(ended)) {
        try {
          const entries = await read(() => rows.list(prefix));
          if (ended.aborted) return;
          if (sameEntries(last, entries)) continue;
          last = entries;
          yield entries;
        } catch (error) {
          if (ended.aborted) return;
          onFault?.(error);
          await sleep(watchRetryMs, undefined, { signal: ended }).catch(() => {});
          latch.open();
        }
      }
    } finally {
      latches.delete(latch);
    }
  }

  return {
    kind: 'embedded',
    async get(key) {
      checkKey(key);
      return await read(() => rows.get(key));
    },
    async list(prefix) {
      checkPrefix(prefix);
      return await read(() => rows.list(prefix));
    },
    async transact(operations) {
      checkOperations(operations);
      return await write(() => rows.transact(operations));
    },
    watch(prefix, signal, onFault) {
      checkPrefix(prefix);
      return watch(prefix, signal, onFault);
    },
    async createSession(request) {
      checkSessionRequest(request);
      const id = randomUUID() as string as SessionId;
      await write(() => rows.createSession(id, request));
      return id;
    },
    renewSession: (id) => write(() => rows.renewSession(id)),
    destroySession: (id) => write(() => rows.endSession(id)),
    async close() {
      if (closing.signal.aborted) return;
      closing.abort();
      await polling;
      file.close();
    },
  };
}

/** The time since boot, suspend included, as every container of the host sees it. */
export function hostClock(): BootClock {
  return {
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    // In seconds, with two digits after the point.
    nowMs: () => Math.round(Number.parseFloat(readFileSync('/proc/uptime', 'utf8')) * 1000),
  };
}
