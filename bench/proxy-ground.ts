import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createNet, type HostName, type Net } from '../test/contract/proxy-kernel-net.ts';

/** Hosts in network namespaces of their own, and the processes on them that are measured. All of it ends with `dispose`. */
export type Ground = Pick<Net, 'folder' | 'hosts' | 'run'> & {
  /** A role of gate-parts.ts, in the network of a host and on one processor. Resolves when it is ready. */
  start(where: Where, role: string, ...args: readonly (string | number)[]): Promise<Part>;
  /** Any program, ready when it takes connections on the port. */
  program(where: Where, port: number, command: readonly [string, ...string[]]): Promise<Part>;
  /** Flock's gate with these layers before it, as proxy-stack-part.ts. */
  stack(where: Where, ...layers: readonly ('kernel' | 'haproxy')[]): Promise<Part>;
  dispose(): Promise<void>;
};

/** The proxies have a processor of their own; clients and services share the other one. */
export const processors = { proxy: 0, others: 1 } as const;
export type Where = { readonly host: HostName; readonly processor: number };

export type Part = {
  ask<T>(question: unknown): Promise<T>;
  /** Processor time of it and all processes that it has started, user and system, in microseconds. */
  cpuUs(): Promise<number>;
  /** Memory (RSS) of the process, and of those that it has started. */
  bytes(): Promise<{ readonly own: number; readonly others: number }>;
  end(): Promise<void>;
};

const answerMsMax = 120_000;

export async function makeGround(): Promise<Ground> {
  const net = await createNet();
  const parts: Part[] = [];

  async function start({ host, processor }: Where, file: string, args: readonly (string | number)[]): Promise<Part> {
    // A young generation that grows to its default size costs the gate 80 MiB with 10,000 connections, and brings it no speed.
    const flags = ['--disable-warning=DEP0060', '--max-semi-space-size=2', join(import.meta.dirname, file)];
    const command = [
      ...['--target', String(net.hosts[host].pid), '--net'],
      ...['taskset', '-c', String(processor), process.execPath, ...flags, ...args.map(String)],
    ];
    // A session of its own: so its children are known, and end with it.
    const child = spawn('nsenter', command, {
      detached: true,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // They are killed, and what they leave goes with the folder.
      env: { ...process.env, TMPDIR: net.folder },
    });
    const { pid } = child;
    if (pid === undefined) throw new Error('nsenter could not be started: install util-linux');
    const what = [file, ...args].join(' ');
    const next = () =>
      new Promise<unknown>((resolve, reject) => {
        const settle = (finish: () => void) => {
          clearTimeout(timer);
          child.off('message', heard).off('exit', gone);
          finish();
        };
        const heard = (message: unknown) => settle(() => resolve(message));
        const gone = () => settle(() => reject(new Error(`${what} has ended`)));
        const timer = setTimeout(() => settle(() => reject(new Error(`${what} says nothing`))), answerMsMax);
        child.on('message', heard).on('exit', gone);
      });
    const part: Part = {
      async ask<T>(question: unknown) {
        const answer = next();
        child.send(question as object);
        return (await answer) as T;
      },
      async cpuUs() {
        const all = await sessionOf(pid);
        return all.reduce((sum, { ticks }) => sum + ticks, 0) * tickUs;
      },
      async bytes() {
        const all = await sessionOf(pid);
        const sum = (isOwn: boolean) =>
          all.filter((one) => (one.pid === pid) === isOwn).reduce((total, { bytes }) => total + bytes, 0);
        return { own: sum(true), others: sum(false) };
      },
      async end() {
        const isOver = child.exitCode !== null || child.signalCode !== null;
        const gone = isOver ? null : once(child, 'exit');
        for (const one of await sessionOf(pid)) killIfThere(one.pid);
        await gone;
      },
    };
    parts.push(part);
    await next();
    return part;
  }

  return {
    folder: net.folder,
    hosts: net.hosts,
    run: net.run,
    start: (where, role, ...args) => start(where, 'gate-parts.ts', [role, ...args]),
    program: (where, port, command) => start(where, 'gate-parts.ts', ['program', port, ...command]),
    stack: (where, ...layers) => start(where, 'proxy-stack-part.ts', [join(net.folder, where.host), ...layers]),
    async dispose() {
      for (const part of parts.toReversed()) await part.end();
      await net.dispose();
    },
  };
}

/** Linux counts in hundredths of a second, whatever its own clock is. */
const tickUs = 10_000;
const pageBytes = 4_096;

type Process = { readonly pid: number; readonly ticks: number; readonly bytes: number };

async function sessionOf(leader: number): Promise<readonly Process[]> {
  const found: Process[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    // It may just have ended.
    const text = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    const fields = text.slice(text.lastIndexOf(') ') + 2).split(' ');
    if (Number(fields[3]) !== leader) continue;
    const ticks = Number(fields[11]) + Number(fields[12]);
    found.push({ pid: Number(name), ticks, bytes: Number(fields[21]) * pageBytes });
  }
  return found;
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
