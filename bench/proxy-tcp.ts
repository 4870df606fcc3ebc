import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { addresses, type HostName } from '../test/contract/proxy-kernel-net.ts';
import { interleave, median, medianRatio } from './measure.ts';
import type { Effort } from './proxy.ts';
import { type Ground, type Part, processors } from './proxy-ground.ts';
import { recordsOf } from './proxy-records.ts';
import { haproxyWith, startAnswering } from './proxy-services.ts';
import { load, middleOf, type Speed, speedText } from './proxy-wrk.ts';
import { extraRow, figureRow, type Row, ratioRow } from './report.ts';

/**
 * TCP: node `a` has flock with all its layers, node `b` the other proxies and no translation at all, so that `direct` is a connection
 * that is only routed there. Each has the same services behind it, as many hops away.
 */
const ports = { web: 80, stream: 5201, echo: 7 } as const;
const service = {
  route: { web: 6080, stream: 6201, echo: 6007 },
  haproxy: 9000,
  nodeTcpProxy: 9001,
  gate: 9002,
  haproxyShared: 9003,
} as const;
const { others, proxy } = processors;
/** Of node `a`, on the bridge of its containers. */
const gateway = '172.31.0.1';

type Path = { readonly from: HostName; readonly to: (kind: keyof typeof ports) => { host: string; port: number } };

/** `hop`: between two containers of node `a`, but through the node, as a link's. `near`: over their bridge, where nothing is routed. */
const paths = {
  direct: { from: 'client', to: (kind) => ({ host: addresses.far, port: ports[kind] }) },
  route: { from: 'client', to: (kind) => ({ host: addresses.a, port: service.route[kind] }) },
  hop: { from: 'two', to: (kind) => ({ host: addresses.one, port: ports[kind] }) },
  near: { from: 'app', to: (kind) => ({ host: addresses.one, port: ports[kind] }) },
  link: { from: 'app', to: (kind) => ({ host: '127.0.0.1', port: ports[kind] }) },
} as const satisfies Readonly<Record<string, Path>>;
type PathName = keyof typeof paths;
const pathNames: readonly PathName[] = ['direct', 'route', 'hop', 'near', 'link'];

export async function benchTcp(ground: Ground, effort: Effort): Promise<readonly Row[]> {
  await prepare(ground);
  return [
    ...(await throughput(ground, effort)),
    ...(await latency(ground, effort)),
    ...(await newConnections(ground, effort)),
  ];
}

async function prepare(ground: Ground): Promise<void> {
  await ground.run('client', 'ip', 'route', 'add', '172.32.0.0/24', 'via', addresses.b);
  await ground.run('b', 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward');
  // The node would tell them that there is a shorter way.
  await ground.run('a', 'sh', '-c', 'for f in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 > $f; done');
  await ground.run('two', 'ip', 'route', 'add', addresses.one, 'via', gateway);
  await ground.run('one', 'ip', 'route', 'add', addresses.two, 'via', gateway);
  for (const host of ['one', 'far'] as const) {
    const where = { host, processor: others };
    await startAnswering(ground, host, ports.web);
    await ground.program(where, ports.stream, ['iperf3', '-s', '-p', String(ports.stream)]);
    await ground.start(where, 'echo', ports.echo);
  }
  const flock = await ground.stack({ host: 'a', processor: proxy }, 'kernel', 'haproxy');
  await flock.ask({ containers: { app: { pid: ground.hosts.app.pid, hostsPath: join(ground.folder, 'hosts-app') } } });
  await writeFile(join(ground.folder, 'hosts-app'), '127.0.0.1\tlocalhost\n');
  const kinds = Object.keys(ports) as (keyof typeof ports)[];
  const routes = kinds.map((kind) => [`tcp://:${service.route[kind]} -> ${ports[kind]}`, 'all'] as const);
  const links = kinds.map((kind) => ({ port: ports[kind], service: 'all', targetPort: ports[kind] }));
  await flock.ask({ apply: recordsOf(Object.fromEntries(routes), { all: [addresses.one] }, { links }) });
}

async function throughput(ground: Ground, { seconds, rounds }: Effort): Promise<readonly Row[]> {
  const results = await interleave(
    { warm: 1, counted: rounds, maxMs: Number.POSITIVE_INFINITY },
    pathNames.map((name) => () => stream(ground, paths[name], seconds)),
  );
  const row = (mine: PathName, other: PathName, what: string, limit: { readonly min: number } | null) => {
    const [left = [], right = []] = [mine, other].map((name) => results[pathNames.indexOf(name)]);
    const text = (all: readonly number[]) => `${median(all).toFixed(1)} Gbit/s`;
    return ratioRow(`throughput, ${what}`, text(left), `direct ${text(right)}`, medianRatio(left, right), limit);
  };
  return [
    row('route', 'direct', 'route', { min: 0.9 }),
    row('link', 'hop', 'link', { min: 0.9 }),
    row('link', 'near', 'link beside the bridge alone', null),
  ];
}

async function stream(ground: Ground, { from, to }: Path, seconds: number): Promise<number> {
  const { host, port } = to('stream');
  const args = ['-c', host, '-p', String(port), '-t', String(seconds), '-J', '--connect-timeout', '5000'];
  const text = await ground.run(from, 'taskset', '-c', String(proxy), 'iperf3', ...args);
  const { bits_per_second: bits } = (JSON.parse(text) as Iperf).end.sum_received;
  return bits / 1e9;
}

type Iperf = { readonly end: { readonly sum_received: { readonly bits_per_second: number } } };

async function latency(ground: Ground, { rounds, pings }: Effort): Promise<readonly Row[]> {
  const pingers = new Map<HostName, Part>();
  for (const host of ['client', 'app', 'two'] as const)
    pingers.set(host, await ground.start({ host, processor: others }, 'ping'));
  const results = await interleave(
    { warm: 1, counted: rounds, maxMs: Number.POSITIVE_INFINITY },
    pathNames.map((name) => async () => {
      const { from, to } = paths[name];
      const answer = await pingers.get(from)?.ask<{ us: readonly number[] }>({ ...to('echo'), count: pings });
      return median(answer?.us ?? []) / 1000;
    }),
  );
  const of = (name: PathName) => median(results[pathNames.indexOf(name)] ?? []);
  const row = (mine: PathName, other: PathName, what: string) =>
    extraRow(`one byte there and back, ${what}`, of(mine), 'direct', of(other), { max: 0.1 });
  return [row('route', 'direct', 'route'), row('link', 'hop', 'link')];
}

/** `haproxy-shared` has the processor of client and service, where the kernel's work is done, too: there the two have the same. */
const connecting = ['direct', 'kernel', 'haproxy', 'haproxy-shared', 'node-tcp-proxy', 'gate'] as const;
type Connecting = (typeof connecting)[number];

async function newConnections(ground: Ground, { seconds, rounds }: Effort): Promise<readonly Row[]> {
  const where = { host: 'b', processor: proxy } as const;
  const server = `${addresses.far}:${ports.web}`;
  const startHaproxy = async (port: number, processor: number) => {
    const args = await haproxyWith(ground, 'tcp', { bind: `0.0.0.0:${port}`, server });
    return ground.program({ host: 'b', processor }, port, ['haproxy', ...args]);
  };
  const haproxy = await startHaproxy(service.haproxy, proxy);
  const shared = await startHaproxy(service.haproxyShared, others);
  const nodeTcpProxy = await ground.start(where, 'node-tcp-proxy', service.nodeTcpProxy, addresses.far, ports.web);
  const gate = await ground.stack(where);
  await gate.ask({ apply: recordsOf({ [`tcp://:${service.gate} -> ${ports.web}`]: 'web' }, { web: [addresses.far] }) });
  const at = (host: string, port: number) => `http://${host}:${port}/`;
  const sides: Readonly<Record<Connecting, { readonly url: string; readonly proxy: Part | null }>> = {
    direct: { url: at(addresses.far, ports.web), proxy: null },
    kernel: { url: at(addresses.a, service.route.web), proxy: null },
    haproxy: { url: at(addresses.b, service.haproxy), proxy: haproxy },
    'haproxy-shared': { url: at(addresses.b, service.haproxyShared), proxy: shared },
    'node-tcp-proxy': { url: at(addresses.b, service.nodeTcpProxy), proxy: nodeTcpProxy },
    gate: { url: at(addresses.b, service.gate), proxy: gate },
  };
  // Otherwise the ports of what has just been closed are soon used up.
  for (const host of ['client', 'a', 'b'] as const)
    await ground.run(
      host,
      'sh',
      '-c',
      'cd /proc/sys/net/ipv4; echo 1 > tcp_tw_reuse; echo 1024 65000 > ip_local_port_range',
    );
  const results = await interleave(
    { warm: 1, counted: rounds, maxMs: Number.POSITIVE_INFINITY },
    connecting.map((name) => () => load(ground, { from: 'client', seconds, isClosing: true, ...sides[name] })),
  );
  const of = (name: Connecting): readonly Speed[] => results[connecting.indexOf(name)] ?? [];
  const perSecond = (name: Connecting) => of(name).map((one) => one.perSecond);
  const row = (mine: Connecting, other: Connecting, limit: { readonly min: number } | null) =>
    ratioRow(
      `new connections, ${mine} / ${other}`,
      speedText(middleOf(of(mine))),
      speedText(middleOf(of(other))),
      medianRatio(perSecond(mine), perSecond(other)),
      limit,
    );
  const failed = Math.max(middleOf(of('kernel')).errors, middleOf(of('gate')).errors);
  return [
    row('kernel', 'haproxy', { min: 2 }),
    row('kernel', 'haproxy-shared', { min: 2 }),
    row('kernel', 'direct', null),
    row('kernel', 'node-tcp-proxy', null),
    row('kernel', 'gate', null),
    row('gate', 'haproxy', null),
    row('gate', 'node-tcp-proxy', null),
    figureRow('failed connections through kernel and gate', failed, String, { max: 0 }),
  ];
}
