import { access, mkdir, readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { FlockError, hasCode, messageOf } from '../../../controller/model/errors.ts';
import { CommandError } from '../../exec.ts';
import type { PoolStatus } from '../storage.ts';
import { createPoolArguments, createPrefixArguments, importArguments } from './arguments.ts';
import { poolOf } from './config.ts';
import { reasonOf, toFlockError } from './errors.ts';
import { exactNumber, type PoolLine } from './parse.ts';
import type { Runner } from './runner.ts';

export type Pool = {
  /** Imports the pool if it is not there, runs work, and both again if the pool went in between (its daemon was restarted). */
  within<T>(work: () => Promise<T>): Promise<T>;
  status(): Promise<PoolStatus>;
  make(sizeBytes: number): Promise<void>;
  close(): void;
};

const importMs = 300_000;
/** Writing out a file where the host's file system can't reserve it at once. */
const allocateMs = 3_600_000;

export function createPool(runner: Runner): Pool {
  const { config } = runner;
  const pool = poolOf(config);
  let opening: Promise<void> | null = null;

  async function bringIn(): Promise<void> {
    if ((await runner.look()) !== null) return;
    const { poolFile } = config;
    if (poolFile === null) {
      throw new FlockError(
        'pool-missing',
        `the zpool ${pool} is not imported on this host: run "zpool import ${pool}", or make one with "zpool create ${pool} ..."`,
      );
    }
    if (!(await isThere(poolFile))) {
      throw new FlockError('pool-missing', `there is no zpool ${pool} and no file ${poolFile} to import it from`);
    }
    try {
      const folder = dirname(poolFile);
      await runner.zpool(
        importArguments(await runner.support(), pool, folder, config.variant === 'zfs-fuse'),
        importMs,
      );
    } catch (error) {
      if ((await runner.look()) !== null) return;
      if (!(error instanceof FlockError) || error.code === 'storage-daemon-down') throw error;
      const code = reasonOf(error) === 'no-pool' ? 'pool-missing' : 'pool-unusable';
      throw new FlockError(
        code,
        `the zpool ${pool} can't be imported from ${poolFile}; see "zpool import -d ${dirname(poolFile)}": ${error.message}`,
        error.facts,
        { cause: error },
      );
    }
  }

  function open(): Promise<void> {
    opening ??= bringIn().catch((error: unknown) => {
      opening = null;
      throw error;
    });
    return opening;
  }

  async function within<T>(work: () => Promise<T>): Promise<T> {
    await open();
    try {
      return await work();
    } catch (error) {
      if (reasonOf(error) !== 'no-pool') throw error;
      opening = null;
      await open();
      return work();
    }
  }

  async function state(): Promise<PoolLine> {
    const line = await runner.look();
    if (line !== null) return line;
    throw new FlockError('pool-missing', `the zpool ${pool} is not imported`, { reason: 'no-pool' });
  }

  /** Asked of the kernel, for on a suspended pool some commands wait until it works again (zfsprops(7), failmode=wait). */
  async function isSuspended(): Promise<boolean> {
    if (config.variant !== 'openzfs') return false;
    const text = await readFile(`/proc/spl/kstat/zfs/${pool}/state`, 'utf8').catch(() => '');
    return text.trim() === 'SUSPENDED';
  }

  /** Silence is taken for a daemon that is down where somebody waits for an answer; here it may be a busy disk. */
  function stateBy(error: unknown): 'missing' | 'failed' | 'unusable' {
    if (hasCode(error, 'pool-missing')) return 'missing';
    const said = error instanceof Error && error.cause instanceof CommandError && !error.cause.timedOut;
    return hasCode(error, 'storage-daemon-down') && said ? 'failed' : 'unusable';
  }

  const describeHealth = (health: string) => `the zpool ${pool} is ${health}: see "zpool status ${pool}"`;

  return {
    within,

    async status() {
      const name = config.prefix;
      if (await isSuspended()) return { state: 'failed', name, reason: describeHealth('SUSPENDED') };
      try {
        const line = await within(state);
        const { health, readOnly } = line;
        if (health !== 'ONLINE' && health !== 'DEGRADED') {
          return { state: 'failed', name, reason: describeHealth(health) };
        }
        const table = await runner.get(['used', 'available'], [pool, config.prefix]);
        const bytes = (path: string, property: string) =>
          Number(exactNumber(path, table.get(path) ?? new Map(), property));
        const sizeBytes = bytes(pool, 'used') + bytes(pool, 'available');
        const freeBytes = bytes(config.prefix, 'available');
        const warning = health === 'ONLINE' ? null : describeHealth(health);
        return { state: readOnly ? 'read-only' : 'online', name, sizeBytes, freeBytes, warning };
      } catch (error) {
        return { state: stateBy(error), name, reason: messageOf(error) };
      }
    },

    async make(sizeBytes) {
      const { poolFile } = config;
      if (poolFile === null) await open();
      else if ((await runner.look()) === null) await makeFile(poolFile, sizeBytes);
      else if (!(await isUnfinished(poolFile))) throw occupied(`there is a zpool ${pool} already`);
      if (await runner.hasPrefix()) throw occupied(`there is a dataset ${config.prefix} already`);
      await runner.zfs(createPrefixArguments(config.prefix));
      opening = null;
      await open();
    },

    close() {
      opening = null;
    },
  };

  async function makeFile(file: string, sizeBytes: number): Promise<void> {
    if (await isThere(file)) {
      throw occupied(`the file ${file} is there already; it may hold a pool that can't be imported now`);
    }
    const support = await runner.support();
    await mkdir(dirname(file), { recursive: true });
    try {
      // All of it at once: a host disk that runs full later would make writes fail inside the pool, which it can't survive.
      await runner.commands.run('fallocate', ['-x', '-l', String(sizeBytes), '--', file], { timeoutMs: allocateMs });
      await runner.zpool(createPoolArguments(support, pool, file), importMs);
    } catch (error) {
      await rm(file, { force: true });
      throw toFlockError(error, config);
    }
  }

  /** A crash between the making of the pool and of its prefix: it is on our file and has nothing in it. */
  async function isUnfinished(file: string): Promise<boolean> {
    const datasets = (await runner.zfs(['list', '-H', '-r', '-o', 'name', '--', pool])).trim().split('\n');
    const status = await runner.zpool(['status', '--', pool]);
    return datasets.length === 1 && status.split('\n').some((line) => line.trim().split(/\s+/)[0] === file);
  }

  function occupied(what: string): FlockError {
    return new FlockError('pool-unusable', `${what}: flock makes no pool over what could be somebody's data`);
  }
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
