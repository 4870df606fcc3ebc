/**
 * The store of a cluster: Consul 1.8 or newer, through the agent of this host. Only this file uses the package "consul", and only
 * its kv.get, transaction and session calls:
 *
 * - It never gives up by itself when an answer is cut short: every call has a time limit, above the wait of a blocking query.
 * - It decodes JSON numbers with loss and takes an event emitter to abort: both are replaced here.
 * - Its `watch` has no limit on churn and ends for ever on an error: the loop is our own.
 * - It answers undefined for "not found", but for an empty or foreign answer, too: so the response itself is looked at.
 * - Conflicts of a transaction come as errors with status 409.
 *
 * Sessions keep Consul's default health check (the node's, by gossip) and release their keys. Consul keeps an ended session's lock
 * delay in memory only.
 */
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import Consul from 'consul';
import { FlockError } from '../model/errors.ts';
import * as format from './consul-format.ts';
import { checkKey, checkOperations, checkPrefix, checkSessionRequest } from './requests.ts';
import { sameEntries } from './snapshots.ts';
import type { Entry, Store } from './store.ts';

export type ConsulOptions = {
  /** Of the agent's HTTP API, such as "http://127.0.0.1:8500". */
  readonly address: string;
  /** Before every key, with a slash at its end. */
  readonly prefix: string;
  readonly token?: string;
  /** How long a call may take. */
  readonly timeoutMs?: number;
  /** How long a blocking query waits for a change. A server that is silent is noticed only after this. */
  readonly watchWaitMs?: number;
};

const defaultTimeoutMs = 5_000;
const defaultWatchWaitMs = 30_000;
/** A blocking query takes up to a sixteenth longer than it was told, so that clients don't come back together. */
const waitFactor = 17 / 16;
/** At most four lists a second while keys change all the time; the first two changes are told at once. */
const watchBurst = 2;
const watchPeriodMs = 250;
const retryMsMin = 100;
const retryMsMax = 5_000;

/** Common options that the package takes and its types don't have. */
type CallOptions = {
  readonly ctx: EventEmitter;
  readonly timeout: number;
  readonly consistent?: boolean;
  readonly index?: string;
  readonly wait?: string;
};

/** The calls as they are. */
type Client = {
  readonly kv: {
    get(options: CallOptions & { readonly key: string; readonly recurse?: boolean }): Promise<unknown>;
  };
  readonly transaction: {
    create(operations: readonly format.ConsulOperation[], options: CallOptions): Promise<unknown>;
  };
  readonly session: {
    create(options: CallOptions & SessionOptions): Promise<unknown>;
    renew(options: CallOptions & { readonly id: string }): Promise<unknown>;
    destroy(options: CallOptions & { readonly id: string }): Promise<unknown>;
  };
  destroy(): void;
};

type SessionOptions = {
  readonly name: string;
  readonly ttl: string;
  readonly lockdelay: string;
  readonly behavior: 'release';
};

/** Opens nothing: an agent that is not there shows in the calls. Throws only for an address that is no URL, or a bad prefix. */
export function createConsulStore(options: ConsulOptions): Store {
  const { address, prefix, timeoutMs = defaultTimeoutMs, watchWaitMs = defaultWatchWaitMs } = options;
  checkPrefix(prefix);
  const client = connect(options);
  const closing = new AbortController();

  /** Runs one request with a time limit, and ends it when the signal fires. Answers the response and the decoded body. */
  async function call<T>(
    request: (options: CallOptions) => Promise<T>,
    { signal = closing.signal, limitMs = timeoutMs } = {},
  ): Promise<T> {
    if (signal.aborted) throw new FlockError('store-unavailable', `the connection to Consul at ${address} was closed`);
    const ctx = Object.assign(new EventEmitter(), { includeResponse: true });
    const cancel = () => void ctx.emit('cancel');
    signal.addEventListener('abort', cancel, { once: true });
    try {
      return await request({ ctx, timeout: limitMs });
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }

  /** Also for answers that are not Consul's: something else listens there. */
  async function translated<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw format.toFlockError(error, address);
    }
  }

  async function read(key: string, recurse: boolean, fresh: boolean): Promise<readonly Entry[]> {
    // Without `consistent` a leader that was just replaced may answer with what it has.
    const mode = fresh ? { consistent: true } : {};
    return await translated(async () => {
      const query = (common: CallOptions) => client.kv.get({ ...common, ...mode, key: prefix + key, recurse });
      return format.readingOf(await call(query), prefix).entries;
    });
  }

  /** One blocking query: waits until something below the prefix is newer than the index, or for `watchWaitMs`. */
  async function readAfter(below: string, index: string, signal: AbortSignal) {
    const wait = index === '0' ? {} : { index, wait: `${watchWaitMs}ms` };
    const limitMs = timeoutMs + (index === '0' ? 0 : Math.ceil(watchWaitMs * waitFactor));
    return await translated(async () => {
      const query = (common: CallOptions) => client.kv.get({ ...common, ...wait, key: prefix + below, recurse: true });
      return format.readingOf(await call(query, { signal, limitMs }), prefix);
    });
  }

  async function* watch(
    below: string,
    signal: AbortSignal,
    onFault?: (error: unknown) => void,
  ): AsyncGenerator<readonly Entry[]> {
    const ended = AbortSignal.any([signal, closing.signal]);
    const pause = (ms: number) => sleep(ms, undefined, { signal: ended }).catch(() => {});
    const pace = createPace();
    let last: readonly Entry[] | null = null;
    let index = '0';
    let faults = 0;
    while (!ended.aborted) {
      try {
        await pause(pace.waitMs());
        const seen = await readAfter(below, index, ended);
        if (ended.aborted) return;
        index = nextIndex(index, seen.index);
        faults = 0;
        if (sameEntries(last, seen.entries)) continue;
        last = seen.entries;
        yield seen.entries;
      } catch (error) {
        if (ended.aborted) return;
        onFault?.(error);
        // The server that answers next may have been set back to an older state.
        index = '0';
        await pause(Math.min(retryMsMin * 2 ** faults, retryMsMax) * (0.5 + Math.random() / 2));
        faults = Math.min(faults + 1, 10);
      }
    }
  }

  return {
    kind: 'consul',
    async get(key, { fresh = false } = {}) {
      checkKey(key);
      return (await read(key, false, fresh))[0] ?? null;
    },
    async list(below, { fresh = false } = {}) {
      checkPrefix(below);
      return await read(below, true, fresh);
    },
    async transact(operations) {
      checkOperations(operations);
      const body = format.toConsul(operations, prefix);
      return await translated(async () => {
        // Consul takes a transaction that only checks for a read, which could be stale.
        const query = (common: CallOptions) => client.transaction.create(body, { ...common, consistent: true });
        try {
          return format.outcomeOf(format.bodyOf(await call(query)), operations, prefix);
        } catch (error) {
          const response = format.responseOf(error);
          if (response?.status === 409) return format.conflictOf(response.body, operations);
          throw error;
        }
      });
    },
    watch(below, signal, onFault) {
      checkPrefix(below);
      return watch(below, signal, onFault);
    },

    async createSession(request) {
      checkSessionRequest(request);
      const session: SessionOptions = {
        name: request.name,
        // As texts: the package leaves a lock delay of 0 out, and Consul takes numbers for other units.
        ttl: `${request.ttlMs}ms`,
        lockdelay: `${request.lockDelayMs}ms`,
        behavior: 'release',
      };
      return await translated(async () => {
        const answer = await call((common) => client.session.create({ ...common, ...session }));
        return format.sessionOf(format.bodyOf(answer));
      });
    },
    async renewSession(id) {
      if (!uuid.test(id)) return false;
      return await translated(async () => {
        try {
          const answer = await call((common) => client.session.renew({ ...common, id }));
          format.checkRenewed(format.bodyOf(answer), id);
          return true;
        } catch (error) {
          if (format.isNoSuchSession(error, id)) return false;
          throw error;
        }
      });
    },
    async destroySession(id) {
      if (uuid.test(id)) await translated(() => call((common) => client.session.destroy({ ...common, id })));
    },
    async close() {
      closing.abort();
      client.destroy();
    },
  };
}

/** What is not a UUID is a fault to Consul, not a session that is gone. */
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Where to go on: from the start if the index went backwards; 0, which would not block, is taken for 1. Pure. */
export function nextIndex(last: string, given: string): string {
  if (BigInt(given) < BigInt(last)) return '0';
  return given === '0' ? '1' : given;
}

/** Says how long to wait before the next of `watchBurst` queries in `watchBurst * watchPeriodMs`. */
function createPace(): { waitMs(): number } {
  const startsMs: number[] = [];
  return {
    waitMs() {
      const nowMs = performance.now();
      const oldest = startsMs.length < watchBurst ? undefined : startsMs.shift();
      const startMs = oldest === undefined ? nowMs : Math.max(nowMs, oldest + watchBurst * watchPeriodMs);
      startsMs.push(startMs);
      return startMs - nowMs;
    },
  };
}

function connect({ address, token }: ConsulOptions): Client {
  const settings = {
    baseUrl: `${address.replace(/\/+$/, '')}/v1`,
    defaults: token === undefined ? {} : { token },
    decoders: { 'application/json': (body: Buffer) => format.parseJson(body.toString()) },
  };
  // Its types lack base URL and decoders, and describe other requests than it makes.
  return new Consul(settings) as unknown as Client;
}
