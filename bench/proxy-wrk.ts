import type { HostName } from '../test/contract/proxy-kernel-net.ts';
import { median } from './measure.ts';
import { type Ground, type Part, processors } from './proxy-ground.ts';
import { ms } from './report.ts';

/** What wrk says of one run. */
export type Speed = {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly errors: number;
  /** Of the proxy, for each request. */
  readonly cpuUs: number;
};

export type Load = {
  readonly from: HostName;
  readonly url: string;
  readonly seconds: number;
  /** Whose processor time is counted; null: there is no proxy. */
  readonly proxy?: Part | null;
  /** A new connection for each request. */
  readonly isClosing?: boolean;
  /** A script with its arguments, in place of the one host. */
  readonly script?: readonly string[];
};

export const connections = 32;
const graceMs = 15_000;

export async function load(ground: Ground, options: Load): Promise<Speed> {
  const { from, url, seconds, proxy = null, isClosing = false, script = [] } = options;
  const [file, ...rest] = script;
  const args = [
    ...['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', '-H', 'Host: www.example.com'],
    ...(isClosing ? ['-H', 'Connection: close'] : []),
    ...(file === undefined ? [] : ['-s', file]),
    ...(file === undefined ? [url] : [url, '--', ...rest]),
  ];
  const before = await proxy?.cpuUs();
  const limit = String(seconds + graceMs / 1000);
  const text = await ground.run(from, 'timeout', limit, 'taskset', '-c', String(processors.others), 'wrk', ...args);
  const usedUs = ((await proxy?.cpuUs()) ?? 0) - (before ?? 0);
  return parseWrk(text, usedUs);
}

export function parseWrk(text: string, usedUs: number): Speed {
  const time = (share: string) => {
    const [, figure = 'NaN', unit = ''] = new RegExp(`^ +${share}% +([0-9.]+)(us|ms|s)`, 'm').exec(text) ?? [];
    return Number(figure) * (unit === 'us' ? 1e-3 : unit === 's' ? 1e3 : 1);
  };
  const count = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
  const sockets = /connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text)?.slice(1) ?? [];
  return {
    perSecond: count(/Requests\/sec: +([0-9.]+)/),
    p50Ms: time('50'),
    p99Ms: time('99'),
    errors: sockets.reduce((sum, one) => sum + Number(one), 0) + count(/Non-2xx or 3xx responses: (\d+)/),
    cpuUs: usedUs / count(/(\d+) requests in /),
  };
}

/** The medians of rounds; errors are the most of any. */
export function middleOf(all: readonly Speed[]): Speed {
  const of = (pick: (one: Speed) => number) => median(all.map(pick));
  return {
    perSecond: of((one) => one.perSecond),
    p50Ms: of((one) => one.p50Ms),
    p99Ms: of((one) => one.p99Ms),
    errors: Math.max(...all.map((one) => one.errors)),
    cpuUs: of((one) => one.cpuUs),
  };
}

export function speedText({ perSecond, p50Ms, p99Ms }: Speed): string {
  return `${perSecond.toFixed(0)}/s, p50 ${ms(p50Ms)}, p99 ${ms(p99Ms)}`;
}
