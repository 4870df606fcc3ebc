import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Settings } from '../../controller/model/settings.ts';
import type { Holder } from '../../plugin/holders.ts';
import { createLocks } from '../../plugin/locks.ts';
import { openState, type State } from '../../plugin/state.ts';
import { createMemory } from '../../plugin/storage/memory.ts';
import { createMemoryDisk } from '../../plugin/storage/memory-disk.ts';
import type { PoolMaker, Storage } from '../../plugin/storage/storage.ts';
import type { Context } from '../../plugin/volumes/context.ts';
import { soleOwnership } from '../../plugin/volumes/ownership.ts';
import { createUsage } from '../../plugin/volumes/usage.ts';

/** The use cases on a real state file, with everything else in the test's hands. */
export type PluginFixture<S extends Storage> = {
  readonly context: Context;
  readonly storage: S;
  readonly holders: Map<DatasetId, readonly Holder[]>;
  settings: Settings;
  nowMs: number;
  /** The process dies and a new one starts on the same disk: the same state file. */
  restart(): Promise<void>;
  dispose(): Promise<void>;
};

export const never = new AbortController().signal;

export type Wrap<S> = { readonly storage: (storage: S) => S; readonly state: (state: State) => State };

export async function createFixture<S extends Storage>(
  makeStorage: () => S | Promise<S>,
  wrap: () => Wrap<S> = () => ({ storage: (same) => same, state: (same) => same }),
): Promise<PluginFixture<S>> {
  const folder = await mkdtemp(join(tmpdir(), 'flock-context-'));
  const holders = new Map<DatasetId, readonly Holder[]>();
  let random = 0;
  let state: State | null = null;

  async function start(fixture: {
    settings: Settings;
    nowMs: number;
  }): Promise<{ readonly context: Context; readonly storage: S }> {
    const { storage: wrapStorage, state: wrapState } = wrap();
    state = await openState(join(folder, 'state.db'), 0, { id: 'boot', nowMs: () => fixture.nowMs });
    const storage = wrapStorage(await makeStorage());
    const clock = {
      bootMs: () => fixture.nowMs,
      nowMs: () => fixture.nowMs,
      randomHex: (bytes: number) => {
        random += 1;
        return random.toString(16).padStart(bytes * 2, '0');
      },
      sleep: (ms: number) => sleep(ms),
    };
    const context: Context = {
      state: wrapState(state),
      storage,
      locks: createLocks(),
      usage: createUsage(storage, clock),
      ownership: soleOwnership,
      settings: () => fixture.settings,
      clock,
      dockerShows: () => Promise.resolve(true),
      beginAnew: () => {},
      findHolders: (ids) => Promise.resolve(new Map([...holders].filter(([id]) => ids.includes(id)))),
      describeHolder: (holder) => Promise.resolve(`container ${holder.containerId}`),
      log: pino({ level: 'silent' }),
    };
    return { context, storage };
  }

  const settings: Settings = {
    backend: 'btrfs',
    pool: '/pool',
    poolSizeBytes: 1024 ** 3,
    trashMs: 86_400_000,
    stashMs: 86_400_000,
    transferBytesPerSecond: null,
    encryption: 'on',
  };
  const values = { settings, nowMs: 1_800_000_000_000 };
  let current = await start(values);
  return {
    get context() {
      return current.context;
    },
    get storage() {
      return current.storage;
    },
    holders,
    get settings() {
      return values.settings;
    },
    set settings(next) {
      values.settings = next;
    },
    get nowMs() {
      return values.nowMs;
    },
    set nowMs(next) {
      values.nowMs = next;
    },
    async restart() {
      current.context.usage.stop();
      state?.close();
      current = await start(values);
    },
    async dispose() {
      current.context.usage.stop();
      state?.close();
      await rm(folder, { recursive: true });
    },
  };
}

/** A maker of memory storages that share one disk, as processes on one host do. */
export function memoryHost(): () => Promise<ReturnType<typeof createMemory> & PoolMaker> {
  const disk = createMemoryDisk();
  let random = 0;
  const randomHex = (digits: number) => {
    random += 1;
    return random.toString(16).padStart(digits, '0');
  };
  return async () => {
    const storage = createMemory({ nowMs: () => 1_800_000_000_000, randomHex, disk });
    if ((await storage.pool()).state === 'missing') await storage.makePool(1024 ** 3);
    return storage;
  };
}
