/**
 * The contract of controller/store/store.ts as tests. An implementation passes it by calling `storeContract` once; `open` gives two
 * clients of one store.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Entry, SessionId, Store } from '../../controller/store/store.ts';
import type { StoreBench, StoreContext, Watched } from './store/context.ts';
import { faultContract } from './store/faults.ts';
import { limitContract } from './store/limits.ts';
import { lockContract } from './store/locks.ts';
import { sessionContract } from './store/sessions.ts';
import { transactionContract } from './store/transactions.ts';
import { watchContract } from './store/watches.ts';

export type { StoreBench } from './store/context.ts';

const watchMsMax = 15_000;
const longTtlMs = 60_000;

export function storeContract(name: string, open: () => Promise<StoreBench>): void {
  describe(`store contract: ${name}`, function () {
    this.timeout(60_000);
    let opened: StoreBench | undefined;
    let prefixes = 0;
    let sessions: SessionId[] = [];
    let watches: Watched[] = [];

    const bench = () => {
      if (opened === undefined) throw new Error('the store was not opened');
      return opened;
    };
    before('open the store', async () => {
      opened = await open();
    });
    afterEach('end its watches and sessions', async () => {
      for (const watched of watches) await watched.end();
      watches = [];
      for (const session of sessions) await bench().here.destroySession(session);
      sessions = [];
    });
    after('remove the store', async () => {
      await opened?.dispose();
    });

    const context: StoreContext = {
      bench,
      here: () => bench().here,
      there: () => bench().there,
      prefix() {
        prefixes += 1;
        return `test-${prefixes}/`;
      },
      async session({ ttlMs = longTtlMs, lockDelayMs = 0 } = {}) {
        const session = await bench().here.createSession({ name: 'a test', ttlMs, lockDelayMs });
        sessions.push(session);
        return session;
      },
      watched(store, prefix, onFault) {
        const watched = collect(store, prefix, onFault);
        watches.push(watched);
        return watched;
      },
    };
    describe('transactions', () => transactionContract(context));
    describe('locks', () => lockContract(context));
    describe('sessions', () => sessionContract(context));
    describe('watches', () => watchContract(context));
    describe('limits', () => limitContract(context));
    describe('faults', () => faultContract(context));
  });
}

function collect(store: Store, prefix: string, onFault?: (error: unknown) => void): Watched {
  const ending = new AbortController();
  const lists: (readonly Entry[])[] = [];
  const run = async () => {
    for await (const entries of store.watch(prefix, ending.signal, onFault)) lists.push(entries);
  };
  const running = run();
  // Told by `end`.
  running.catch(() => {});
  return {
    lists,
    async until(what, holds) {
      const deadline = performance.now() + watchMsMax;
      for (;;) {
        const last = lists.at(-1);
        if (last !== undefined && holds(last)) return last;
        if (performance.now() > deadline) {
          throw new Error(`waited ${watchMsMax} ms in vain until ${what}; the watch told ${JSON.stringify(lists)}`);
        }
        await sleep(5);
      }
    },
    async end() {
      ending.abort();
      await running;
    },
  };
}
