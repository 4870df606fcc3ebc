import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { interleave, medianRatio } from './measure.ts';
import type { Effort } from './proxy.ts';
import { type Ground, type Part, processors } from './proxy-ground.ts';
import { recordsOf } from './proxy-records.ts';
import { haproxyWith, nginxWith } from './proxy-services.ts';
import { load, middleOf, type Speed, speedText } from './proxy-wrk.ts';
import { figureRow, type Row, ratioRow } from './report.ts';

/** HTTP over the loopback of one host: proxies on their processor, client and service on the other. */
const kinds = [
  ...(['direct', 'http-proxy', 'keep-alive', 'nginx', 'haproxy', 'node-tcp-proxy'] as const),
  ...(['gate', 'gate-tcp', 'flock', 'flock-1', 'flock-10000', 'flock-10000-services'] as const),
] as const;
type Kind = (typeof kinds)[number];

const host = 'far';
const backend = 8000;
const localhost = '127.0.0.1';
const where = { host, processor: processors.proxy } as const;
/** Of one service, and of so many. */
const manyRoutes = { routes: 10_000, services: 100 } as const;

export async function benchHttp(ground: Ground, { seconds, rounds }: Effort): Promise<readonly Row[]> {
  await ground.start({ host, processor: processors.others }, 'backend', backend);
  const sides = await startAll(ground);
  const script = await hostsScript(ground);
  const results = await interleave(
    { warm: 1, counted: rounds, maxMs: Number.POSITIVE_INFINITY },
    kinds.map((kind) => () => {
      const { port, proxy } = sides[kind];
      const [, hosts] = /^flock-(\d+)/.exec(kind) ?? [];
      const scripted = hosts === undefined ? {} : { script: [script, hosts] };
      return load(ground, { from: host, url: `http://${localhost}:${port}/`, seconds, proxy, ...scripted });
    }),
  );
  return rowsOf((kind) => results[kinds.indexOf(kind)] ?? []);
}

type Side = { readonly port: number; readonly proxy: Part | null };

async function startAll(ground: Ground): Promise<Readonly<Record<Kind, Side>>> {
  const role = async (name: string, port: number): Promise<Side> => ({
    port,
    proxy: await ground.start(where, name, port, localhost, backend),
  });
  const program = async (port: number, command: readonly [string, ...string[]]): Promise<Side> => ({
    port,
    proxy: await ground.program(where, port, command),
  });
  const routed = async (port: number, routes: Readonly<Record<string, string>>, ...layers: readonly 'haproxy'[]) => {
    const proxy = await ground.stack(where, ...layers);
    const services = Object.fromEntries(Object.values(routes).map((name) => [name, [localhost]]));
    await proxy.ask({ apply: recordsOf(routes, services) });
    return { port, proxy };
  };
  const one = (port: number) => ({ [`http://www.example.com:${port} -> ${backend}`]: 'web' });
  const many = (port: number, services: number) =>
    Object.fromEntries(
      Array.from({ length: manyRoutes.routes }, (_, index) => [
        `http://${hostOf(index)}:${port} -> ${backend}`,
        `web${index % services}`,
      ]),
    );
  const flock = await routed(8010, one(8010), 'haproxy');
  return {
    direct: { port: backend, proxy: null },
    'http-proxy': await role('http-proxy', 8001),
    'keep-alive': await role('keep-alive', 8002),
    nginx: await program(8003, ['nginx', ...(await nginx(ground, 8003))]),
    haproxy: await program(8004, ['haproxy', ...(await haproxy(ground, 8004))]),
    'node-tcp-proxy': await role('node-tcp-proxy', 8005),
    gate: await routed(8006, one(8006)),
    'gate-tcp': await routed(8007, { [`tcp://:8007 -> ${backend}`]: 'web' }),
    flock,
    'flock-1': flock,
    'flock-10000': await routed(8011, many(8011, 1), 'haproxy'),
    'flock-10000-services': await routed(8012, many(8012, manyRoutes.services), 'haproxy'),
  };
}

function hostOf(index: number): string {
  return index === 0 ? 'www.example.com' : `h${index}.example.com`;
}

/** So many hosts in turn, far from each other in the order of their names; the requests are made before. */
async function hostsScript(ground: Ground): Promise<string> {
  const file = join(ground.folder, 'hosts.lua');
  const lines = [
    'local requests, last = {}, 0',
    'function init(args)',
    '  for index = 0, tonumber(args[1]) - 1 do',
    '    local name = index == 0 and "www" or ("h" .. index)',
    '    requests[index + 1] = wrk.format("GET", "/", { Host = name .. ".example.com" })',
    '  end',
    'end',
    'function request()',
    '  last = (last + 37) % #requests',
    '  return requests[last + 1]',
    'end',
  ];
  await writeFile(file, `${lines.join('\n')}\n`);
  return file;
}

function nginx(ground: Ground, port: number): Promise<readonly string[]> {
  const upstream = `upstream service { server ${localhost}:${backend}; keepalive 64; }`;
  const pass = 'proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";';
  return nginxWith(ground, 'nginx', `access_log off; ${upstream} server { listen ${port}; location / { ${pass} } }`);
}

function haproxy(ground: Ground, port: number): Promise<readonly string[]> {
  return haproxyWith(ground, 'http', { bind: `${localhost}:${port}`, server: `${localhost}:${backend}` });
}

function rowsOf(all: (kind: Kind) => readonly Speed[]): readonly Row[] {
  const of = (kind: Kind) => middleOf(all(kind));
  const ratio = (mine: Kind, other: Kind, pick: (one: Speed) => number) =>
    medianRatio(all(mine).map(pick), all(other).map(pick));
  const row = (mine: Kind, other: Kind, min: number | null) =>
    ratioRow(
      `${mine} / ${other}`,
      speedText(of(mine)),
      speedText(of(other)),
      ratio(mine, other, ({ perSecond }) => perSecond),
      min === null ? null : { min },
    );
  const cost = (mine: Kind, other: Kind, max: number | null) => {
    const us = (kind: Kind) => `${of(kind).cpuUs.toFixed(1)} us`;
    const found = ratio(mine, other, ({ cpuUs }) => cpuUs);
    const limit = max === null ? null : { max };
    return ratioRow(`processor time per request, ${mine} / ${other}`, us(mine), us(other), found, limit);
  };
  const late = ratio('flock', 'haproxy', (one) => 1 / one.p99Ms);
  const ownFailures = (['gate', 'gate-tcp', 'flock', 'flock-1', 'flock-10000', 'flock-10000-services'] as const).map(
    (kind) => of(kind).errors,
  );
  return [
    row('flock', 'haproxy', 0.95),
    ratioRow('the same, p99 (bare / flock)', '', '', late, { min: 0.95 }),
    cost('flock', 'haproxy', null),
    row('flock', 'nginx', null),
    row('flock-10000', 'flock-1', 0.95),
    cost('flock-10000', 'flock-1', 1.05),
    row('flock-10000-services', 'flock-1', 0.95),
    cost('flock-10000-services', 'flock-1', 1.05),
    row('gate', 'http-proxy', 3),
    row('gate', 'keep-alive', 1),
    row('gate', 'haproxy', null),
    row('gate', 'nginx', null),
    row('gate', 'direct', null),
    row('gate-tcp', 'node-tcp-proxy', null),
    cost('gate', 'http-proxy', null),
    cost('gate', 'keep-alive', null),
    cost('gate', 'haproxy', null),
    cost('gate-tcp', 'node-tcp-proxy', null),
    figureRow('failed requests through flock', Math.max(...ownFailures), String, { max: 0 }),
  ];
}
