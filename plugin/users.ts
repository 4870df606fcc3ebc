import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError } from '../controller/model/errors.ts';
import type { DatasetId } from '../controller/model/names.ts';
import type { Users } from './cluster/ports.ts';
import { containersIn, findOwnPlaces, isOwnMount, type Place } from './holders.ts';
import { parseMountInfo } from './mount-table.ts';
import { hostProcesses, type Processes, type ProcessName } from './processes.ts';
import { isRootOf } from './storage/btrfs/arguments.ts';
import type { MountEntry } from './storage/storage.ts';

/**
 * The processes that use volumes, found in the kernel's mount tables and stopped by signals: no Docker is asked, which may hang or be
 * dead when this matters. Needs the host's process ids.
 *
 * A container is a user as a whole: the table of a process that has only a part of the container as its root (chroot, as file servers
 * give to each of their users) leaves out what is mounted above that, and a container inside of it shows a file system of its own.
 */
export function createUsers(ownFolders: readonly string[], processes: Processes = hostProcesses): Users {
  /** Each process as soon as it is looked at, but for those with one of these roots, see rootMountOf. */
  async function* look(ids: readonly DatasetId[], without: readonly string[]): AsyncGenerator<Seen> {
    const judged = new Map<string, readonly DatasetId[]>();
    const ownPlaces = await findOwnPlaces(ownFolders);
    const outer = (await Promise.all(hosts.map((host) => processes.cgroup(host)))).flatMap(containersIn);
    const isKnown = (root: string) => without.includes(root) || judged.has(root);
    for (const pid of await processes.all()) {
      // One table is enough for all that share it: where there are a thousand mounts, it takes milliseconds.
      const text = await processes.mountInfo(pid, (part) => rootMountsOf(part).some(isKnown));
      const root = rootMountsOf(text).find(isKnown) ?? rootMountOf(text);
      if (without.includes(root)) continue;
      const used = judged.get(root) ?? usedIn(text, ids, ownPlaces);
      judged.set(root, used);
      const container = containersIn(await processes.cgroup(pid)).find((id) => !outer.includes(id)) ?? null;
      yield { pid, used, container };
    }
  }

  /** Without those that share the mount table of the host or of the plugin: one of them at work on a volume would take all along. */
  async function* lookContained(ids: readonly DatasetId[]): AsyncGenerator<Seen> {
    const tables = await Promise.all(hosts.map((host) => processes.mountInfo(host, () => false)));
    yield* look(ids, tables.filter((text) => text !== '').map(rootMountOf));
  }

  /** A container at a time, beside the looking, which takes long where there are many. `containers`: known to use one; is added to. */
  async function signalAll(
    ids: readonly DatasetId[],
    signal: 'SIGSTOP' | 'SIGKILL',
    containers: Set<string>,
  ): Promise<readonly number[]> {
    const found: number[] = [];
    const usersOf = byContainer(containers);
    for await (const seen of lookContained(ids)) {
      for (const pid of usersOf(seen)) {
        processes.send(pid, signal);
        found.push(pid);
      }
    }
    return found;
  }

  return {
    async using(ids) {
      const found = new Set<DatasetId>();
      for await (const { used } of look(ids, [])) for (const id of used) found.add(id);
      return found;
    },
    async freeze(ids) {
      const containers = new Set<string>();
      let known: ReadonlySet<number> = new Set();
      // A process may start another one just before it is stopped, so once more until there is no new one and all stand.
      for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
        const found = await signalAll(ids, 'SIGSTOP', containers);
        const states = await Promise.all(found.map((pid) => processes.state(pid)));
        const isWaiting = (state: string) => state === uninterruptible && attempt >= waitingAttempts;
        const stand = states.every((state) => standing.has(state) || isWaiting(state));
        if (stand && found.every((pid) => known.has(pid))) return;
        known = new Set(found);
        await sleep(pauseMs);
      }
      throw new FlockError(
        'volume-in-use',
        `not all users of ${ids.join(', ')} could be stopped within ${(attemptsMax * pauseMs) / 1000} s`,
      );
    },
    async thaw(ids, guarded, mayWrite) {
      const seen: Seen[] = [];
      for await (const one of lookContained(guarded)) seen.push(one);
      const found = asContainers(seen).filter(({ used }) => used.some((id) => ids.includes(id)));
      // Nothing is awaited between the question and the signal.
      for (const { pid, used } of found) if (used.every(mayWrite)) processes.send(pid, 'SIGCONT');
    },
    async stop(ids) {
      // What shows the volume may end before the others of its container.
      const containers = new Set<string>();
      let known: ReadonlySet<number> = new Set();
      for (let attempt = 0; attempt < killAttemptsMax; attempt += 1) {
        const found = await signalAll(ids, 'SIGKILL', containers);
        const states = await Promise.all(found.map((pid) => processes.state(pid)));
        const left = states.filter((state) => !ended.has(state));
        if (left.length === 0 && found.every((pid) => known.has(pid))) return;
        known = new Set(found);
        // They end when the disk answers, or never.
        if (attempt >= stuckAttempts && left.length > 0 && left.every((state) => state === uninterruptible)) break;
        await sleep(pauseMs);
      }
      throw new FlockError('volume-in-use', `the users of ${ids.join(', ')} do not end: do they wait for a disk?`);
    },
  };
}

/** `container`: the outermost one of those that flock's host is not in itself. */
export type Seen = { readonly pid: number; readonly used: readonly DatasetId[]; readonly container: string | null };

/** Of the host, and of this process. */
const hosts: readonly ProcessName[] = [1, 'self'];

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
const ended: ReadonlySet<string> = new Set(['Z', 'X', 'x', '']);
const standing: ReadonlySet<string> = new Set(['T', 't', ...ended]);

/**
 * Is told of processes one after the other, and answers each time which of those so far are now known to be users. `containers`: those
 * that are users already; is added to.
 */
export function byContainer(containers: Set<string>): (seen: Seen) => readonly number[] {
  /** Processes of containers that are not known to be users yet. */
  const passed = new Map<string, number[]>();
  return ({ pid, used, container }) => {
    if (container === null) return used.length > 0 ? [pid] : [];
    const pids = passed.get(container) ?? [];
    pids.push(pid);
    if (used.length > 0) containers.add(container);
    passed.set(container, containers.has(container) ? [] : pids);
    return containers.has(container) ? pids : [];
  };
}

/** Each process with all that its container uses. Pure. */
export function asContainers(seen: readonly Seen[]): readonly Seen[] {
  const usedBy = new Map<string, Set<DatasetId>>();
  for (const { container, used } of seen) {
    if (container === null) continue;
    const all = usedBy.get(container) ?? new Set();
    for (const id of used) all.add(id);
    usedBy.set(container, all);
  }
  return seen.map((one) => (one.container === null ? one : { ...one, used: [...(usedBy.get(one.container) ?? [])] }));
}

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
  return rootMountsOf(mountInfo).at(-1) ?? mountInfo;
}

/** From below to the one on top. Pure. */
function rootMountsOf(mountInfo: string): readonly string[] {
  const fields = mountInfo.split('\n').map((line) => line.split(' ', mountPointField + 1));
  return fields.flatMap(([id = '', ...others]) => (others[mountPointField - 1] === '/' ? [id] : []));
}

const mountPointField = 4;

/** Docker binds a directory of a volume, too (volume-subpath): on btrfs only the root tells, on ZFS only the source. */
function shows({ root, source }: MountEntry, id: DatasetId): boolean {
  return root.endsWith(`/${id}`) || source.endsWith(`/${id}`) || isRootOf(root, id);
}
