/**
 * A store in memory for simulations: one server, one client for each node, and the faults that Consul has in real life. Nothing here
 * asks the real clock or the real dice, and no timer runs unless a session lives, a call hangs or a quirk asks for it.
 */
import { FlockError } from '../model/errors.ts';
import { createLatch, type Latch } from './latch.ts';
import { createMemoryData, type MemoryClock, type Random } from './memory-server.ts';
import { checkKey, checkOperations, checkPrefix, checkSessionRequest } from './requests.ts';
import { sameEntries } from './snapshots.ts';
import type { Entry, SessionId, Store } from './store.ts';

export type { MemoryClock } from './memory-server.ts';

/** What a real store does that a program must live with. All are 0 unless given. */
export type MemoryQuirks = {
  /** How long a call's way to the server, and the answer's way back, may each take. */
  readonly latencyMsMax: number;
  /** How long after a change a watch tells of it at the latest; changes meanwhile become one. */
  readonly watchDelayMsMax: number;
  /** How old the answer of a read may be that is not `fresh`. */
  readonly staleMsMax: number;
  /** The share (0 to 1) of writes without an answer that reach the server all the same, some time later. */
  readonly lateShare: number;
  /** How much later. May be longer than a call waits. */
  readonly lateMsMax: number;
};

export type MemoryStore = {
  /** Nodes are told apart by name only: clients of one node are cut off together. */
  connect(node: string): Store;
  /** `answers`: calls get there and are done, but no answer comes back. */
  cut(node: string, which?: 'both' | 'answers'): void;
  heal(node: string): void;
  /** The next write of the node gets no answer, and gets to the server so much later. */
  loseNext(node: string, lateMs: number): void;
  /** As by a health check or a node's removal: for no reason that its holder could know. */
  endSession(id: SessionId): void;
  sessions(): readonly SessionId[];
  /** Until there is a leader again, no call is answered and no session ends. */
  loseLeader(): void;
  /** All times to live start anew; lock delays may be forgotten. */
  electLeader(): void;
  /** Everything there is, whatever is cut. */
  entries(): readonly Entry[];
  /** Ends every timer. */
  close(): void;
};

export type MemoryStoreOptions = {
  readonly clock: MemoryClock;
  readonly random: Random;
  readonly quirks?: Partial<MemoryQuirks>;
  /** How long a call waits for its answer. */
  readonly timeoutMs?: number;
  /** Told of every change as it is made, with all its keys. */
  readonly onChange?: (keys: ReadonlySet<string>) => void;
};

const defaultTimeoutMs = 5_000;
const watchRetryMs = 1_000;
const noQuirks: MemoryQuirks = { latencyMsMax: 0, watchDelayMsMax: 0, staleMsMax: 0, lateShare: 0, lateMsMax: 0 };

type Watcher = { readonly prefix: string; readonly node: string; readonly latch: Latch };

export function createMemoryStore(options: MemoryStoreOptions): MemoryStore {
  const { clock, random, timeoutMs = defaultTimeoutMs } = options;
  const quirks = { ...noQuirks, ...options.quirks };
  const cuts = new Map<string, 'both' | 'answers'>();
  const losses = new Map<string, number>();
  const watchers = new Set<Watcher>();
  const closing = new AbortController();
  let hasLeader = true;

  const data = createMemoryData({
    clock,
    random,
    historyMsMax: quirks.staleMsMax,
    hasLeader: () => hasLeader,
    changed(keys) {
      options.onChange?.(keys);
      for (const { prefix, latch } of watchers) {
        for (const key of keys) {
          if (!key.startsWith(prefix)) continue;
          latch.open();
          break;
        }
      }
    },
  });

  const pause = (ms: number, signal: AbortSignal) => clock.sleep(ms, signal).catch(() => {});
  const wake = (which: (watcher: Watcher) => boolean) => {
    for (const watcher of watchers) if (which(watcher)) watcher.latch.open();
  };

  /** One call of a node: there, done, and back, unless something is in the way. */
  async function call<T>(node: string, closed: AbortSignal, kind: 'read' | 'write', work: () => T): Promise<T> {
    const startMs = clock.nowMs();
    const lateMs = kind === 'write' ? losses.get(node) : undefined;
    if (lateMs !== undefined) losses.delete(node);
    // A real client is never done in the turn it was called in either.
    await (quirks.latencyMsMax > 0 ? pause(random() * quirks.latencyMsMax, closed) : null);
    if (closed.aborted) throw unavailable('it was closed');
    if (lateMs !== undefined) void doLater(lateMs, work);
    else if (!hasLeader || cuts.get(node) === 'both') {
      if (kind === 'write' && random() < quirks.lateShare) void doLater(random() * quirks.lateMsMax, work);
    } else {
      const answer = work();
      if (quirks.latencyMsMax > 0) await pause(random() * quirks.latencyMsMax, closed);
      if (hasLeader && !cuts.has(node) && !closed.aborted) return answer;
    }
    await pause(Math.max(0, startMs + timeoutMs - clock.nowMs()), closed);
    throw unavailable(closed.aborted ? 'it was closed' : `it gave no answer in ${timeoutMs} ms`);
  }

  async function doLater(lateMs: number, work: () => unknown): Promise<void> {
    await pause(lateMs, closing.signal);
    if (hasLeader && !closing.signal.aborted) work();
  }

  function readList(prefix: string, fresh: boolean): readonly Entry[] {
    if (fresh || quirks.staleMsMax <= 0) return data.list(prefix);
    return data.listAt(prefix, clock.nowMs() - random() * quirks.staleMsMax);
  }

  async function* watch(
    client: { readonly node: string; readonly closed: AbortSignal },
    prefix: string,
    signal: AbortSignal,
    onFault?: (error: unknown) => void,
  ): AsyncGenerator<readonly Entry[]> {
    const ended = AbortSignal.any([signal, client.closed]);
    const watcher = { prefix, node: client.node, latch: createLatch() };
    watchers.add(watcher);
    watcher.latch.open();
    let last: readonly Entry[] | null = null;
    try {
      while (await watcher.latch.pass(ended)) {
        if (last !== null && quirks.watchDelayMsMax > 0) await pause(random() * quirks.watchDelayMsMax, ended);
        try {
          const entries = await call(client.node, ended, 'read', () => data.list(prefix));
          if (sameEntries(last, entries)) continue;
          last = entries;
          yield entries;
        } catch (error) {
          if (ended.aborted) return;
          onFault?.(error);
          await pause(watchRetryMs, ended);
          watcher.latch.open();
        }
      }
    } finally {
      watchers.delete(watcher);
    }
  }

  function connect(node: string): Store {
    const closer = new AbortController();
    const closed = AbortSignal.any([closer.signal, closing.signal]);
    const read = <T>(work: () => T) => call(node, closed, 'read', work);
    const write = <T>(work: () => T) => call(node, closed, 'write', work);
    return {
      kind: 'memory',
      async get(key, { fresh = false } = {}) {
        checkKey(key);
        return await read(() =>
          fresh || quirks.staleMsMax <= 0
            ? data.get(key)
            : data.getAt(key, clock.nowMs() - random() * quirks.staleMsMax),
        );
      },
      async list(prefix, { fresh = false } = {}) {
        checkPrefix(prefix);
        return await read(() => readList(prefix, fresh));
      },
      async transact(operations) {
        checkOperations(operations);
        return await write(() => data.transact(operations));
      },
      watch(prefix, signal, onFault) {
        checkPrefix(prefix);
        return watch({ node, closed }, prefix, signal, onFault);
      },
      async createSession(request) {
        checkSessionRequest(request);
        return await write(() => data.createSession(request));
      },
      renewSession: (id) => write(() => data.renewSession(id)),
      destroySession: (id) => write(() => data.endSession(id)),
      close: async () => closer.abort(),
    };
  }

  return {
    connect,
    cut(node, which = 'both') {
      cuts.set(node, which);
      wake((watcher) => watcher.node === node);
    },
    heal(node) {
      cuts.delete(node);
      wake((watcher) => watcher.node === node);
    },
    loseNext(node, lateMs) {
      losses.set(node, lateMs);
    },
    endSession: data.endSession,
    sessions: data.sessions,
    loseLeader() {
      hasLeader = false;
      wake(() => true);
    },
    electLeader() {
      if (hasLeader) return;
      hasLeader = true;
      data.takeOver(random() < 0.5);
      wake(() => true);
    },
    entries: () => data.list(''),
    close() {
      closing.abort();
      data.close();
    },
  };
}

function unavailable(reason: string): FlockError {
  return new FlockError('store-unavailable', `the store can't be used: ${reason}`);
}
