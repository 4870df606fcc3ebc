import { addresses } from '../test/contract/proxy-kernel-net.ts';
import { percentile } from './measure.ts';
import type { Effort } from './proxy.ts';
import { type Ground, processors } from './proxy-ground.ts';
import { recordsOf } from './proxy-records.ts';
import { startAnswering } from './proxy-services.ts';
import type { Changed, Changes } from './proxy-stack-part.ts';
import { load } from './proxy-wrk.ts';
import { figureRow, ms, type Row } from './report.ts';

/** 100 changes a second, of a route and of the containers behind all routes, under requests and under new TCP connections. */
const ports = { http: 8082, tcp: 8083 } as const;
const perSecond = 100;
const linesMax = 5;

export async function benchChanges(ground: Ground, { seconds }: Effort): Promise<readonly Row[]> {
  const containers = [addresses.one, addresses.two] as const;
  for (const host of ['one', 'two'] as const) await startAnswering(ground, host, 80);
  const flock = await ground.stack({ host: 'a', processor: processors.proxy }, 'kernel', 'haproxy');
  const base = { [`http://www.example.com:${ports.http} -> 80`]: 'web', [`tcp://:${ports.tcp} -> 80`]: 'web' };
  await flock.ask({ apply: recordsOf(base, { web: containers }) });
  const change: Changes = { base, addresses: containers, port: ports.http, perSecond, seconds: seconds * 3 };
  const at = (port: number) => `http://${addresses.a}:${port}/`;
  // The load is there before the first change and after the last.
  const loads = [ports.http, ports.tcp].map((port) =>
    load(ground, { from: 'client', url: at(port), seconds: change.seconds + 1, isClosing: port === ports.tcp }),
  );
  const changed = flock.ask<{ readonly value: Changed }>({ change });
  const [http, tcp] = await Promise.all(loads);
  const { tookMs, failures, tables, problems } = (await changed).value;
  for (const text of [...failures.slice(0, linesMax), ...problems.slice(0, linesMax)]) console.log(text);
  const failed = (one: typeof http) => (one === undefined ? Number.NaN : one.errors);
  const rate = (one: typeof http) => (one?.perSecond ?? Number.NaN).toFixed(0);
  return [
    figureRow(`${tookMs.length} changes in ${tables} tables, to served, p50`, percentile(tookMs, 0.5), ms, null),
    figureRow('the same, p99', percentile(tookMs, 0.99), ms, null),
    figureRow('tables that had to be tried again, or took over 1 s', problems.length, String, null),
    figureRow('new routes that were not served', failures.length, String, { max: 0 }),
    figureRow(`failed of ${rate(http)} requests/s meanwhile`, failed(http), String, { max: 0 }),
    figureRow(`failed of ${rate(tcp)} TCP connections/s meanwhile`, failed(tcp), String, { max: 0 }),
  ];
}
