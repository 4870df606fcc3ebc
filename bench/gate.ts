import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { ensureInstalled } from '../packaging/debian.ts';
import { createCommands } from '../plugin/exec.ts';
import { freePort } from '../test/contract/gate-support.ts';
import { interleave, median, medianRatio } from './measure.ts';
import { figureRow, ms, type Row, ratioRow, table } from './report.ts';

/**
 * The gate alone beside plain http-proxy, http-proxy with a keep-alive agent, node-tcp-proxy and no proxy at all; then what a
 * pause costs: `gate.ts [SECONDS [ROUNDS]]`; with 0 rounds the pause alone. The proxy has a processor of its own, client (wrk) and service share the other one.
 * Only ratios of one run mean anything; on a busy machine the processor time per request says more than the requests per second.
 */
const [secondsPerRun = 3, rounds = 3] = process.argv.slice(2).map(Number);
const connections = 32;
const kinds = ['direct', 'http-proxy', 'keep-alive', 'node-tcp-proxy', 'gate-tcp', 'gate'] as const;
type Kind = (typeof kinds)[number];
const many = { wanted: 1_000, idle: 10_000 };
const commands = createCommands({});

export type Part = { readonly child: ChildProcess; ask<T>(question: unknown): Promise<T>; end(): void };

/** A role of gate-parts.ts in a process of its own on one processor. Ready when it has said so. */
async function start(processor: number, ...args: readonly (string | number)[]): Promise<Part> {
  const file = `${import.meta.dirname}/gate-parts.ts`;
  // A young generation that grows to its default size costs the gate 80 MiB with 10,000 connections, and brings it no speed.
  const flags = ['--disable-warning=DEP0060', '--max-semi-space-size=2'];
  const child = spawn('taskset', ['-c', String(processor), process.execPath, ...flags, file, ...args.map(String)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const next = () =>
    new Promise<unknown>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${args.join(' ')} says nothing`)), 120_000);
      child.once('message', (message) => {
        clearTimeout(timer);
        resolve(message);
      });
      child.once('error', reject);
    });
  await next();
  return {
    child,
    async ask<T>(question: unknown) {
      const answer = next();
      child.send(question as object);
      return (await answer) as T;
    },
    end: () => void child.kill('SIGKILL'),
  };
}

type Speed = {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly errors: number /** Of the proxy, user and system. */;
  readonly cpuUs: number;
};

async function measure(port: number, part: Part | undefined): Promise<Speed> {
  const args = [
    '-c',
    '1',
    'wrk',
    '-t1',
    `-c${connections}`,
    `-d${secondsPerRun}s`,
    '--latency',
    `http://127.0.0.1:${port}/`,
  ];
  const before = await cpuTicks(part);
  const text = await commands.run('taskset', args);
  const ticks = (await cpuTicks(part)) - before;
  const time = (share: string) => {
    const [, figure = 'NaN', unit = ''] = new RegExp(`^ +${share}% +([0-9.]+)(us|ms|s)`, 'm').exec(text) ?? [];
    return Number(figure) * (unit === 'us' ? 1e-3 : unit === 's' ? 1e3 : 1);
  };
  const count = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
  const sockets = /connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text)?.slice(1) ?? [];
  const errors = sockets.reduce((sum, one) => sum + Number(one), 0) + count(/Non-2xx or 3xx responses: (\d+)/);
  const cpuUs = (ticks * 10_000) / count(/(\d+) requests in /);
  return { perSecond: count(/Requests\/sec: +([0-9.]+)/), p50Ms: time('50'), p99Ms: time('99'), errors, cpuUs };
}

async function throughput(backend: number): Promise<readonly Row[]> {
  const parts: Part[] = [];
  try {
    const ports = new Map<Kind, number>([['direct', backend]]);
    const proxies = new Map<Kind, Part>();
    for (const kind of kinds) {
      if (kind === 'direct') continue;
      const port = await freePort();
      const part = await start(0, kind, port, backend);
      parts.push(part);
      proxies.set(kind, part);
      ports.set(kind, port);
    }
    const results = await interleave(
      { warm: 1, counted: rounds, maxMs: 600_000 },
      kinds.map((kind) => () => measure(ports.get(kind) ?? 0, proxies.get(kind))),
    );
    const speed = new Map(
      kinds.map((kind, index) => {
        const all = results[index] ?? [];
        const of = (pick: (one: Speed) => number) => median(all.map(pick));
        return [
          kind,
          {
            perSecond: of((one) => one.perSecond),
            p50Ms: of((one) => one.p50Ms),
            p99Ms: of((one) => one.p99Ms),
            errors: Math.max(...all.map((one) => one.errors)),
            cpuUs: of((one) => one.cpuUs),
          },
        ];
      }),
    );
    const of = (kind: Kind) => speed.get(kind) ?? { perSecond: 0, p50Ms: 0, p99Ms: 0, errors: 0, cpuUs: 0 };
    const text = ({ perSecond, p50Ms, p99Ms }: Speed) =>
      `${perSecond.toFixed(0)}/s, p50 ${ms(p50Ms)}, p99 ${ms(p99Ms)}`;
    const speeds = (kind: Kind) => (results[kinds.indexOf(kind)] ?? []).map((one) => one.perSecond);
    const gate = of('gate');
    const row = (mine: Kind, other: Kind, limit: { readonly min: number } | null) =>
      ratioRow(`${mine} / ${other}`, text(of(mine)), text(of(other)), medianRatio(speeds(mine), speeds(other)), limit);
    const cost = (mine: Kind, other: Kind) => {
      const us = (kind: Kind) => `${of(kind).cpuUs.toFixed(0)} us`;
      const ratio = of(mine).cpuUs / of(other).cpuUs;
      return ratioRow(`processor time per request, ${mine} / ${other}`, us(mine), us(other), ratio, null);
    };
    return [
      row('gate', 'http-proxy', { min: 3 }),
      row('gate', 'keep-alive', { min: 1 }),
      row('gate', 'direct', null),
      row('gate-tcp', 'node-tcp-proxy', null),
      row('gate-tcp', 'direct', null),
      cost('gate', 'http-proxy'),
      cost('gate', 'keep-alive'),
      cost('gate-tcp', 'node-tcp-proxy'),
      figureRow('failed requests through the gate', gate.errors + of('gate-tcp').errors, String, { max: 0 }),
    ];
  } finally {
    for (const part of parts) part.end();
  }
}

type Held = {
  readonly held: number;
  readonly bytes: number;
  readonly ok: number;
  readonly failed: number;
  readonly tookMs: number;
};

/** Holds some, to warm up, then all of them, one request per connection; in a gate and a client of their own. */
async function hold(backend: number, warmUp: number, count: number): Promise<Held> {
  const port = await freePort();
  const gate = await start(0, 'gate', port, backend);
  const clients = await start(1, 'clients', port);
  type Served = { readonly ok: number; readonly failed: number; readonly lastAtMs: number };
  const round = async (wanted: number): Promise<Held> => {
    const before = await memoryOf(gate);
    await clients.ask({ connect: wanted });
    await gate.ask('pause');
    await clients.ask('send');
    let held = 0;
    for (let tries = 0; tries < 100 && held < wanted; tries += 1) {
      await sleep(100);
      held = (await gate.ask<{ held: number }>('state')).held;
    }
    const bytes = (await memoryOf(gate)) - before;
    const served = clients.ask<Served>('wait');
    const { releasedAtMs } = await gate.ask<{ releasedAtMs: number }>('release');
    const { ok, failed, lastAtMs } = await served;
    return { held, bytes, ok, failed: failed + (wanted - ok - failed), tookMs: lastAtMs - releasedAtMs };
  };
  try {
    await round(warmUp);
    return await round(count);
  } finally {
    clients.end();
    gate.end();
  }
}

async function holds(backend: number): Promise<readonly Row[]> {
  const thousand = await hold(backend, many.wanted, many.wanted);
  const tenThousand = await hold(backend, 100, many.idle);
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
  return [
    figureRow(`${thousand.held} held, release to last answer`, thousand.tookMs, ms, { max: 1_000 }),
    figureRow('of these failed', thousand.failed, String, { max: 0 }),
    figureRow(`${tenThousand.held} held, release to last answer`, tenThousand.tookMs, ms, null),
    figureRow('of these failed', tenThousand.failed, String, { max: 0 }),
    figureRow(`memory (RSS) for ${tenThousand.held} held`, tenThousand.bytes, megabytes, { max: 128e6 }),
  ];
}

async function memoryOf({ child }: Part): Promise<number> {
  const status = await readFile(`/proc/${child.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
}

/** Of user and system time, 100 a second. */
async function cpuTicks(part: Part | undefined): Promise<number> {
  if (part === undefined) return 0;
  const fields = (await readFile(`/proc/${part.child.pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return Number(fields[11]) + Number(fields[12]);
}

const installed = await ensureInstalled(['wrk']);
if (installed.length > 0) console.log(`installed ${installed.join(', ')}`);
const backendPort = await freePort();
const backend = await start(1, 'backend', backendPort);
try {
  console.log(`load of the machine: ${loadavg()[0]?.toFixed(1)}`);
  const rows = [...(rounds > 0 ? await throughput(backendPort) : []), ...(await holds(backendPort))];
  console.log(table(rows));
  console.log(`load of the machine: ${loadavg()[0]?.toFixed(1)}`);
  if (rows.some((row) => row.met === false)) process.exitCode = 1;
} finally {
  backend.end();
}
