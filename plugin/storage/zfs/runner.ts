import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError } from '../../../controller/model/errors.ts';
import { CommandError, type Commands } from '../../exec.ts';
import { getArguments, setArguments } from './arguments.ts';
import { poolOf, type ZfsConfig } from './config.ts';
import { reasonOf, toFlockError } from './errors.ts';
import { type PoolLine, type PropertyTable, parsePoolLine, parseProperties } from './parse.ts';
import { type Support, toSupport } from './probe.ts';

/** Commands with their errors translated; an answer "does not exist" is only given while the pool and the prefix are there. */
export type Runner = {
  readonly config: ZfsConfig;
  readonly commands: Commands;
  zfs(args: readonly string[], timeoutMs?: number): Promise<string>;
  zpool(args: readonly string[], timeoutMs?: number): Promise<string>;
  mount(args: readonly string[]): Promise<void>;
  umount(args: readonly string[]): Promise<void>;
  get(properties: readonly string[], paths: readonly string[], depth?: 'itself' | 'children'): Promise<PropertyTable>;
  /** zfs-fuse sets one property for each command. */
  set(path: string, properties: Readonly<Record<string, string>>): Promise<void>;
  /** Whether this dataset or snapshot is there. */
  isThere(path: string): Promise<boolean>;
  /** The pool as `zpool list` shows it, or null where it is not imported. */
  look(): Promise<PoolLine | null>;
  hasPrefix(): Promise<boolean>;
  support(): Promise<Support>;
};

/** Long enough for a pool that frees a lot at once, or writes out a gigabyte before a snapshot. */
const changeMs = 300_000;
const readMs = 30_000;
const listBytesMax = 256 * 1024 * 1024;
/** FUSE lets go of a mount some time after umount, on a loaded host seconds later; in all about 10 s. */
const busyPausesMs: readonly number[] = [10, 20, 40, 80, 150, 300, 300, 500, 700, 900, 1500, 2500, 3000];

const readers = new Set(['get', 'list']);

export function createRunner(config: ZfsConfig, commands: Commands): Runner {
  const { tools } = config;
  const pool = poolOf(config);
  let supported: Promise<Support> | null = null;

  async function run(file: string, args: readonly string[], timeoutMs: number): Promise<string> {
    try {
      return await commands.run(file, args, { timeoutMs, stdoutBytesMax: listBytesMax });
    } catch (error) {
      throw toFlockError(error, config);
    }
  }

  const zfs: Runner['zfs'] = async (args, timeoutMs) => {
    const limitMs = timeoutMs ?? (readers.has(args[0] ?? '') ? readMs : changeMs);
    try {
      return await whileBusy(() => run(tools.zfs, args, limitMs));
    } catch (error) {
      if (reasonOf(error) === 'missing') await requirePool();
      throw error;
    }
  };

  /** zfs says "dataset does not exist" also where the whole pool is missing; that must never pass for an absent volume. */
  async function requirePool(): Promise<void> {
    if ((await look()) === null) {
      throw new FlockError('pool-missing', `the zpool ${pool} is not imported`, { reason: 'no-pool' });
    }
    if (await hasPrefix()) return;
    throw new FlockError(
      'pool-missing',
      `the zpool ${pool} has no dataset ${config.prefix}: if it is the right pool, run "zfs create -p -o canmount=off -o mountpoint=none ${config.prefix}"`,
    );
  }

  async function look(): Promise<PoolLine | null> {
    const { poolReadOnly } = await support();
    const columns = poolReadOnly ? 'name,health,readonly' : 'name,health';
    try {
      return parsePoolLine(await run(tools.zpool, ['list', '-H', '-o', columns, '--', pool], readMs));
    } catch (error) {
      if (reasonOf(error) === 'no-pool') return null;
      throw error;
    }
  }

  async function hasPrefix(): Promise<boolean> {
    try {
      await run(tools.zfs, ['list', '-H', '-o', 'name', '--', config.prefix], readMs);
      return true;
    } catch (error) {
      if (reasonOf(error) === 'missing') return false;
      throw error;
    }
  }

  function support(): Promise<Support> {
    supported ??= probe().catch((error: unknown) => {
      supported = null;
      throw error;
    });
    return supported;
  }

  /** What a tool prints when called without what it needs; a daemon that is down is an error, not a capability. */
  async function usageOf(file: string, args: readonly string[]): Promise<string> {
    try {
      return await commands.run(file, args);
    } catch (error) {
      if (error instanceof CommandError && error.stderr.includes('usage:')) return error.stderr;
      throw toFlockError(error, config);
    }
  }

  async function probe(): Promise<Support> {
    const [zfsUsage, zfsGet, zpoolUsage, zpoolGet] = await Promise.all([
      usageOf(tools.zfs, []),
      usageOf(tools.zfs, ['get']),
      usageOf(tools.zpool, []),
      usageOf(tools.zpool, ['get']),
    ]);
    return toSupport({ zfs: zfsUsage, zfsGet, zpool: zpoolUsage, zpoolGet });
  }

  return {
    config,
    commands,
    zfs,
    zpool: (args, timeoutMs = readMs) => run(tools.zpool, args, timeoutMs),
    async mount(args) {
      await run(tools.mount, args, readMs);
    },
    async umount(args) {
      await run(tools.umount, args, readMs);
    },
    async get(properties, paths, depth = 'itself') {
      return parseProperties(await zfs(getArguments(properties, paths, depth)));
    },
    async set(path, properties) {
      for (const [property, value] of Object.entries(properties)) await zfs(setArguments(path, property, value));
    },
    async isThere(path) {
      try {
        await zfs(['list', '-H', '-o', 'name', '-t', path.includes('@') ? 'snapshot' : 'filesystem', '--', path]);
        return true;
      } catch (error) {
        if (reasonOf(error) === 'missing') return false;
        throw error;
      }
    },
    look,
    hasPrefix,
    support,
  };
}

/** Repeats what failed because the dataset is busy: nothing was changed by it. */
export async function whileBusy<T>(work: () => Promise<T>): Promise<T> {
  for (const pauseMs of busyPausesMs) {
    try {
      return await work();
    } catch (error) {
      if (reasonOf(error) !== 'busy') throw error;
    }
    await sleep(pauseMs);
  }
  return work();
}

export function busy(text: string, facts: Readonly<Record<string, unknown>>): FlockError {
  return new FlockError('volume-busy', text, { reason: 'busy', ...facts });
}
