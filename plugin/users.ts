import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError } from '../controller/model/errors.ts';
import type { DatasetId } from '../controller/model/names.ts';
import type { Users } from './cluster/ports.ts';
import { findOwnPlaces, isOwnMount, type Place } from './holders.ts';
import { parseMountInfo } from './mount-table.ts';
import { isRootOf } from './storage/btrfs/arguments.ts';
import type { MountEntry } from './storage/storage.ts';

/**
 * The processes that use volumes, found in the kernel's mount tables and stopped by signals: no Docker is asked, which may hang or be
 * dead when this matters. A container's processes share its mount table, so all of them are found. Needs the host's process ids.
 */
export function createUsers(ownFolders: readonly string[]): Users {
  async function find(ids: readonly DatasetId[]): Promise<readonly Found[]> {
    const found: Found[] = [];
    const judged = new Map<string, readonly DatasetId[]>();
    const ownPlaces = await findOwnPlaces(ownFolders);
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      const text = await mountInfoOf(name);
      const used = judged.get(text) ?? usedIn(text, ids, ownPlaces);
      judged.set(text, used);
      if (used.length > 0) found.push({ pid: Number(name), used, mountInfo: text });
    }
    return found;
  }

  /** Without those that share the mount table of the host or of the plugin: one of them at work on a volume would take all along. */
  async function findContained(ids: readonly DatasetId[]): Promise<readonly Found[]> {
    const shared = (await Promise.all(['1', 'self'].map((name) => mountInfoOf(name)))).map(rootMountOf);
    return (await find(ids)).filter(({ mountInfo }) => !shared.includes(rootMountOf(mountInfo)));
  }

  async function signalAll(ids: readonly DatasetId[], signal: 'SIGSTOP' | 'SIGKILL'): Promise<readonly Found[]> {
    const found = await findContained(ids);
    for (const { pid } of found) send(pid, signal);
    return found;
  }

  return {
    using: async (ids) => new Set((await find(ids)).flatMap(({ used }) => used)),
    async freeze(ids) {
      // A process may start another one just before it is stopped, so once more until all stand.
      for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
        const found = await signalAll(ids, 'SIGSTOP');
        const states = await Promise.all(found.map(({ pid }) => stateOf(pid)));
        const isWaiting = (state: string) => state === uninterruptible && attempt >= waitingAttempts;
        if (states.every((state) => standing.has(state) || isWaiting(state))) return;
        await sleep(pauseMs);
      }
      throw new FlockError(
        'volume-in-use',
        `not all users of ${ids.join(', ')} could be stopped within ${(attemptsMax * pauseMs) / 1000} s`,
      );
    },
    async thaw(ids, guarded, mayWrite) {
      const found = (await findContained(guarded)).filter(({ used }) => used.some((id) => ids.includes(id)));
      // Nothing is awaited between the question and the signal.
      for (const { pid, used } of found) if (used.every(mayWrite)) send(pid, 'SIGCONT');
    },
    async stop(ids) {
      for (let attempt = 0; attempt < killAttemptsMax; attempt += 1) {
        const found = await signalAll(ids, 'SIGKILL');
        if (found.length === 0) return;
        const states = await Promise.all(found.map(({ pid }) => stateOf(pid)));
        // They end when the disk answers, or never.
        if (attempt >= stuckAttempts && states.every((state) => state === uninterruptible)) break;
        await sleep(pauseMs);
      }
      throw new FlockError('volume-in-use', `the users of ${ids.join(', ')} do not end: do they wait for a disk?`);
    },
  };
}

type Found = { readonly pid: number; readonly used: readonly DatasetId[]; readonly mountInfo: string };

const pauseMs = 20;
const attemptsMax = 50;
const killAttemptsMax = 500;
/** A slow disk is waited for at first. */
const stuckAttempts = 100;
/** Waits for a disk or a server that does not answer. It has the signal, and stands before it does anything else. */
const uninterruptible = 'D';
/** Most of them only wait for a moment. */
const waitingAttempts = 5;
/** Stopped, traced, zombie, dead: proc_pid_stat(5). */
const standing: ReadonlySet<string> = new Set(['T', 't', 'Z', 'X', 'x', '']);

/** Ids are unique for ever, so a mount of one is known by its last part on every backend. Pure. */
export function usedIn(
  mountInfo: string,
  ids: readonly DatasetId[],
  ownPlaces: readonly Place[],
): readonly DatasetId[] {
  const table = parseMountInfo(mountInfo);
  return ids.filter((id) => table.some((entry) => shows(entry, id) && !isOwnMount(table, entry, id, ownPlaces)));
}

/**
 * Tells whose mount table it is: of all that are there, only those of the same mount namespace have a root with this id. Not the whole text,
 * which is another as soon as anything is mounted between two looks: all processes of the host would be taken for a container's. Pure.
 */
export function rootMountOf(mountInfo: string): string {
  const root = mountInfo.split('\n').findLast((line) => line.split(' ', mountPointField + 1)[mountPointField] === '/');
  return root?.split(' ', 1)[0] ?? mountInfo;
}

const mountPointField = 4;

/** Empty where the process has ended meanwhile. */
async function mountInfoOf(process: string): Promise<string> {
  return await readFile(`/proc/${process}/mountinfo`, 'utf8').catch(() => '');
}

/** Docker binds a directory of a volume, too (volume-subpath): on btrfs only the root tells, on ZFS only the source. */
function shows({ root, source }: MountEntry, id: DatasetId): boolean {
  return root.endsWith(`/${id}`) || source.endsWith(`/${id}`) || isRootOf(root, id);
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    // It has just ended.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

async function stateOf(pid: number): Promise<string> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return /\) (\S)/.exec(text)?.[1] ?? '';
}
