/**
 * Where the programs of all nodes meet: a small transactional store of text values with sessions, locks and watches. Consul in a
 * cluster, a file on a single host, memory in the simulation. The contract is written here and checked by test/contract/store.ts
 * against every implementation.
 *
 * - A transaction is all or nothing, and everyone sees transactions in one order.
 * - Every key that exists has an index that grows with each change of it and is never used twice, also not after the key was
 *   deleted and made again. Writing the same value again may be no change: nobody may depend on being woken by it. What a later
 *   transaction has changed has a larger index than all that earlier ones did, whatever the key; a store that was restored from a
 *   backup, or replaced, may have begun anew.
 * - Locks are advisory: only operations that check a session or an index are guarded.
 * - A session ends when it is destroyed, when it was not renewed for its time to live (at the earliest then, up to several times
 *   later), or at any moment for the store's own reasons (a health check, a node's removal). Its locks are released, the keys stay.
 *   For `lockDelayMs` after it was ended nobody gets them (not after an `unlock`); this is a help, no promise.
 * - Locking, unlocking and the release of an ended session's lock change the key: its index grows, watches see it.
 * - Errors are FlockErrors: `store-unavailable` for whatever may pass (no leader, no answer in time, connection refused), and
 *   `invalid-request` for calls beyond the limits below. A conflict is an answer, not an error.
 * - After `store-unavailable` a write may have been done, or may still be done some seconds later, also after writes that came after
 *   it. So what must not be overwritten is written with a guard: an index, or a session's lock.
 * - A prefix is empty (everything) or a key with a slash after it.
 */
export type Store = {
  readonly kind: 'consul' | 'embedded' | 'memory';

  /** `fresh`: what the newest transaction left, whoever asks; else possibly what was true a moment ago, also of one's own writes. */
  get(key: string, options?: { readonly fresh?: boolean }): Promise<Entry | null>;
  /** All entries below a prefix, by key, as they were at one moment. */
  list(prefix: string, options?: { readonly fresh?: boolean }): Promise<readonly Entry[]>;
  transact(operations: readonly Operation[]): Promise<Outcome>;
  /**
   * What is below a prefix, complete each time: at once, and again after changes. Changes that follow each other closely are seen as
   * one; a list may be as stale as one from `list`, the last one is right. An unreachable store makes it wait and try again, never end:
   * `onFault` is told each time. Ends, without an error, when the signal fires or the store is closed.
   */
  watch(prefix: string, signal: AbortSignal, onFault?: (error: unknown) => void): AsyncIterable<readonly Entry[]>;

  createSession(request: SessionRequest): Promise<SessionId>;
  /** false: the session is gone for good, or never was. */
  renewSession(id: SessionId): Promise<boolean>;
  /** Does nothing to a session that is gone. */
  destroySession(id: SessionId): Promise<void>;

  /** Ends watches and calls that run; later calls are `store-unavailable`. Sessions live on until their time is over. */
  close(): Promise<void>;
};

export type SessionId = string & { readonly session: unique symbol };

export type Entry = {
  readonly key: string;
  readonly value: string;
  /** Of its last change. Text, because Consul's is a 64-bit number: compare for equality, or as BigInt for which was changed later. */
  readonly index: string;
  /** The session that has it locked. */
  readonly session: SessionId | null;
};

export type SessionRequest = {
  /** Shown to operators. */
  readonly name: string;
  /** Consul takes 10 s or more, unless its `session_ttl_min` says less: `invalid-request`. */
  readonly ttlMs: number;
  /** 0: none. */
  readonly lockDelayMs: number;
};

/** In a transaction all are checked and done in order; a later one sees what an earlier one did. */
export type Operation =
  /** Makes or replaces the value, whoever has the key locked. */
  | { readonly kind: 'set'; readonly key: string; readonly value: string }
  /** As set, if the key has this index; null: if there is no such key. */
  | { readonly kind: 'compare-and-set'; readonly key: string; readonly value: string; readonly index: string | null }
  /** Does nothing if there is no such key. A lock on it is gone, too. */
  | { readonly kind: 'delete'; readonly key: string }
  /** As delete, if the key is there and has this index. Counts as two operations. */
  | { readonly kind: 'compare-and-delete'; readonly key: string; readonly index: string }
  /** The key is there and has this index. */
  | { readonly kind: 'check-index'; readonly key: string; readonly index: string }
  /** The key is locked by this session. */
  | { readonly kind: 'check-session'; readonly key: string; readonly session: SessionId }
  /**
   * Sets the value and locks the key, which need not be there; a key that the session has locked already is fine. Conflict if another
   * one has it, the session is gone, or a lock delay runs.
   */
  | { readonly kind: 'lock'; readonly key: string; readonly value: string; readonly session: SessionId }
  /** Sets the value and unlocks the key. Conflict unless the session has it. */
  | { readonly kind: 'unlock'; readonly key: string; readonly value: string; readonly session: SessionId };

export type Outcome =
  /** The index of every key that was written and is there afterwards. */
  | { readonly kind: 'done'; readonly indexes: ReadonlyMap<string, string> }
  /** Nothing was done. `operation`: the position of the first one that did not fit; `reason`: the store's words. */
  | { readonly kind: 'conflict'; readonly operation: number; readonly reason: string };

/**
 * Consul 1.8 takes 64 operations in a request of 512 KiB, where values are base64 (4/3 of their size) and each operation has up to
 * 200 bytes around it; values are kept well below that.
 */
export const storeLimits = {
  /** A transaction has at least one. */
  operationsMax: 64,
  valueBytesMax: 128 * 1024,
  /** Keys and values of a transaction, as UTF-8. */
  transactionBytesMax: 352 * 1024,
  keyBytesMax: 512,
  sessionNameBytesMax: 256,
  ttlMsMax: 24 * 3600 * 1000,
  lockDelayMsMax: 60_000,
  /** What a key looks like: parts of letters, digits, dots, underscores and hyphens (but not "." or ".."), joined by slashes. */
  key: /^(?!\.{1,2}(?:\/|$))[A-Za-z0-9_.-]+(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9_.-]+)*$/,
} as const;
