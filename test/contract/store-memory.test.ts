import { setTimeout as sleep } from 'node:timers/promises';
import { createMemoryStore } from '../../controller/store/memory.ts';
import { storeContract } from './store.ts';

const clock = {
  nowMs: () => performance.now(),
  sleep: (ms: number, signal?: AbortSignal) => sleep(ms, undefined, signal === undefined ? {} : { signal }),
};

const open =
  (quirks: Parameters<typeof createMemoryStore>[0]['quirks'] = {}) =>
  async () => {
    const server = createMemoryStore({ clock, random: Math.random, quirks, timeoutMs: 500 });
    return {
      here: server.connect('here'),
      there: server.connect('there'),
      ttlMs: 200,
      async fail() {
        server.loseLeader();
      },
      async mend() {
        server.electLeader();
      },
      faultMsMax: 5_000,
      readsFail: true,
      dispose: async () => server.close(),
    };
  };

storeContract('memory', open());
storeContract(
  'memory with quirks',
  open({ latencyMsMax: 5, watchDelayMsMax: 40, staleMsMax: 50, lateShare: 0.5, lateMsMax: 100 }),
);
