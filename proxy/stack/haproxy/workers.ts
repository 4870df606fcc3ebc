import { setTimeout as sleep } from 'node:timers/promises';
import { FlockError } from '../../../controller/model/errors.ts';
import type { Had } from './changes.ts';
import {
  commandsOf,
  type Info,
  outcomeOf,
  type Processes,
  parseBackends,
  parseInfo,
  parseMap,
  parseMapFiles,
  parseProcesses,
  parseServers,
  parseSessionIds,
  parseSessions,
} from './commands.ts';
import type { Layout } from './layout.ts';
import type { Master } from './master.ts';
import { slotKindNames } from './slots.ts';

/** One object for as long as the process lives. */
export type Worker = {
  readonly pid: number;
  isOld: boolean;
  info: Info;
  /** What it has: read once, then kept up to date by whoever changes it. */
  had: Had;
};

/**
 * HAProxy's processes: the current one, and those from before reloads whose connections have not ended yet. Calls must not overlap, but
 * for `sessions` and `cut`.
 */
export type Workers = {
  /** Throws `not-ready` while HAProxy is away. */
  observe(): Promise<readonly Worker[]>;
  /** Sends changes, each of which must be done. After a failure the worker is read anew. */
  change(worker: Worker, commands: readonly string[], after: Had): Promise<void>;
  /** Takes HAProxy to the configuration on disk. Resolves when its new worker runs and the old ones listen no more. */
  reload(): Promise<void>;
  /** Removes disabled servers that have no connections any more. */
  sweep(worker: Worker): Promise<void>;
  /** Sessions of these backends, in all workers. */
  sessions(backends: readonly string[]): Promise<number>;
  /** Ends all sessions of these backends; answers how many there were. */
  cut(backends: readonly string[]): Promise<number>;
};

const reloadMsMax = 30_000;
const stopMsMax = 5_000;
const endMsMax = 500;
const pollMs = 25;
/** Removals of servers per sweep: each stops all threads for a moment. */
const sweepMax = 100;

const slotPattern = new RegExp(`^(${slotKindNames.join('|')})\\d+u?$`);

export function createWorkers(master: Master, layout: Layout): Workers {
  const known = new Map<number, Worker>();
  /** Old servers that were tried so far. */
  let swept = 0;

  async function processes(): Promise<Processes> {
    const found = parseProcesses(await master.processes());
    if (found !== null) return found;
    throw new FlockError('not-ready', 'HAProxy does not say which processes it has: it is just being started');
  }

  async function infoOf(pid: number): Promise<Info> {
    const [text = ''] = await master.ask(pid, ['show info']);
    return parseInfo(text);
  }

  async function read(pid: number): Promise<Had> {
    const [maps = '', backends = '', states = ''] = await master.ask(pid, [
      'show map',
      'show backend',
      commandsOf.showServers,
    ]);
    const prefix = layout.map('').slice(0, -'.map'.length);
    const files = parseMapFiles(maps).filter((file) => file.startsWith(prefix));
    const texts = await master.ask(pid, files.map(commandsOf.showMap));
    const servers = new Map<string, Map<string, { readonly isDisabled: boolean }>>();
    for (const backend of parseBackends(backends)) if (slotPattern.test(backend)) servers.set(backend, new Map());
    for (const { backend, name, isDisabled } of parseServers(states)) servers.get(backend)?.set(name, { isDisabled });
    return {
      maps: new Map(
        files.map((file, index) => [file.slice(prefix.length, -'.map'.length), parseMap(texts[index] ?? '')]),
      ),
      servers,
    };
  }

  async function observe(): Promise<readonly Worker[]> {
    const { workers } = await processes();
    const found: Worker[] = [];
    for (const { pid, isOld } of workers) {
      try {
        const info = await infoOf(pid);
        const before = known.get(pid);
        // A HAProxy that was started anew gives its processes the same numbers.
        if (before?.info.startedAtS === info.startedAtS) found.push(Object.assign(before, { isOld, info }));
        else found.push({ pid, isOld, info, had: await read(pid) });
      } catch (error) {
        // An old one that has ended meanwhile.
        if (!isOld || (await isThere(pid))) throw error;
      }
    }
    known.clear();
    for (const worker of found) known.set(worker.pid, worker);
    if (found.some(({ isOld }) => !isOld)) return found;
    throw new FlockError('not-ready', 'HAProxy has no worker: it is just being started');
  }

  /** An old worker ends with its last connection, and its master takes a moment to notice. */
  async function isThere(pid: number): Promise<boolean> {
    const deadline = performance.now() + endMsMax;
    for (;;) {
      if (!(await processes()).workers.some((worker) => worker.pid === pid)) return false;
      if (performance.now() > deadline) return true;
      await sleep(pollMs);
    }
  }

  /** In every worker that is there; what ends meanwhile has nothing any more. */
  async function inAll(ask: (pid: number) => Promise<number>): Promise<number> {
    let sum = 0;
    for (const { pid, isOld } of (await processes()).workers) {
      try {
        sum += await ask(pid);
      } catch (error) {
        if (!isOld || (await isThere(pid))) throw error;
      }
    }
    return sum;
  }

  async function sessionsOf(pid: number, backends: readonly string[]): Promise<number> {
    const texts = await master.ask(pid, backends.map(commandsOf.counts));
    return texts.reduce((sum, text) => sum + parseSessions(text), 0);
  }

  return {
    observe,
    async change(worker, commands, after) {
      try {
        const answers = await master.ask(worker.pid, commands);
        const failed = answers.findIndex((answer) => outcomeOf(answer) !== 'done');
        if (failed >= 0)
          throw new FlockError('not-ready', `HAProxy refuses "${commands[failed]}": ${answers[failed]?.trim()}`);
        worker.had = after;
      } catch (error) {
        known.delete(worker.pid);
        if (!worker.isOld || (await isThere(worker.pid))) throw error;
      }
    },
    async reload() {
      const before = await processes();
      await master.reload();
      const deadline = performance.now() + reloadMsMax;
      for (;;) {
        await sleep(pollMs);
        // The master is away for the moment in which it becomes itself again.
        const now = await processes().catch(() => null);
        if (now !== null && now.failed > before.failed) throw new FlockError('not-ready', refusal(layout));
        if (now !== null && now.reloads > before.reloads && now.workers.some(({ isOld }) => !isOld)) break;
        if (performance.now() > deadline)
          throw new FlockError('not-ready', `HAProxy has not taken its new configuration within ${reloadMsMax} ms`);
      }
      const stopBy = performance.now() + stopMsMax;
      for (;;) {
        const workers = await observe();
        if (workers.every(({ isOld, info }) => !isOld || info.isStopping) || performance.now() > stopBy) return;
        await sleep(pollMs);
      }
    },
    async sweep(worker) {
      if (worker.info.isStopping) return;
      const leaving = [...worker.had.servers].flatMap(([backend, servers]) =>
        [...servers].flatMap(([name, { isDisabled }]) => (isDisabled ? [{ backend, name }] : [])),
      );
      // In turn: those that are busy for long must not keep the others from their turn.
      const from = leaving.length === 0 ? 0 : swept % leaving.length;
      const some = [...leaving.slice(from), ...leaving.slice(0, from)].slice(0, sweepMax);
      swept += some.length;
      const answers = await master.ask(
        worker.pid,
        some.map(({ backend, name }) => commandsOf.removeServer(backend, name)),
      );
      const servers = new Map([...worker.had.servers].map(([backend, list]) => [backend, new Map(list)]));
      for (const [index, answer] of answers.entries()) {
        const server = some[index];
        if (server === undefined || outcomeOf(answer) !== 'done') continue;
        servers.get(server.backend)?.delete(server.name);
      }
      worker.had = { ...worker.had, servers };
    },
    sessions: (backends) => inAll((pid) => sessionsOf(pid, backends)),
    cut: (backends) =>
      inAll(async (pid) => {
        // One by one: a worker that is being stopped lets nobody touch its servers.
        const [text = ''] = await master.ask(pid, [commandsOf.sessions]);
        const ids = parseSessionIds(text, new Set(backends));
        try {
          await master.ask(pid, ids.map(commandsOf.cut));
        } catch (error) {
          // These may have been its last.
          if (await isThere(pid)) throw error;
        }
        return ids.length;
      }),
  };
}

function refusal({ configuration }: Layout): string {
  return `HAProxy refuses its new configuration and goes on with the old one: "docker logs flock-haproxy" says why, the configuration is ${configuration}`;
}
