import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Clients in a process of their own on a host's network, which note every request. */
export type RequestLoad = {
  /** As of the last tick. */
  seen(): LoadTick;
  /** Lets the requests that run end. */
  stop(): Promise<LoadResult>;
};

export type LoadOptions = {
  /** Of the ids; without a colon. */
  readonly name: string;
  readonly url: string;
  readonly host: string;
  /** Clients with one connection each, and clients with a new one for each request. */
  readonly keepAlive: number;
  readonly fresh: number;
  /** Of a client between two requests. */
  readonly pauseMs: number;
  readonly timeoutMs: number;
  readonly tickMs: number;
};

export type LoadLine = LoadTick | ({ readonly kind: 'end' } & LoadResult);
export type LoadTick = {
  readonly kind: 'tick';
  readonly done: number;
  readonly failed: number;
  /** The second word of the newest answer: where it comes from. */
  readonly node: string;
  /** The longest that a request took. */
  readonly longestMs: number;
  /** Since when nothing was answered while something was asked. */
  readonly waitedMs: number;
};
export type LoadResult = {
  /** `sent`: number of the last request; they are numbered from 1. */
  readonly workers: readonly {
    readonly prefix: string;
    readonly sent: number;
    readonly failed: readonly string[];
  }[];
};

const program = join(import.meta.dirname, 'request-load-process.ts');
const endMsMax = 90_000;

/** `from`: whose network the clients are on. */
export function startRequestLoad(
  from: { readonly host: { readonly pid: number } },
  options: Pick<LoadOptions, 'name' | 'url' | 'host'> & Partial<LoadOptions>,
): RequestLoad {
  const all: LoadOptions = { keepAlive: 6, fresh: 2, pauseMs: 60, timeoutMs: 40_000, tickMs: 1_000, ...options };
  const args = ['-t', String(from.host.pid), '-n', '--', process.execPath, program, JSON.stringify(all)];
  const child = spawn('nsenter', args, { stdio: ['pipe', 'pipe', 'inherit'] });
  let tick: LoadTick = { kind: 'tick', done: 0, failed: 0, node: '-', longestMs: 0, waitedMs: 0 };
  let result: LoadResult | null = null;
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (text) => {
    const line = JSON.parse(text) as LoadLine;
    if (line.kind === 'tick') tick = line;
    else result = { workers: line.workers };
  });
  const ended = Promise.all([once(child, 'exit'), once(lines, 'close')]);
  return {
    seen: () => tick,
    async stop() {
      const timer = setTimeout(() => child.kill('SIGKILL'), endMsMax);
      child.stdin.end();
      await ended;
      clearTimeout(timer);
      if (result === null) throw new Error(`the clients of ${all.name} ended without a result`);
      return result;
    },
  };
}
