import { join } from 'node:path';
import { proxyRootfsDir } from '../../../packaging/paths.ts';
import { readBuild, versionFile } from '../../../packaging/rootfs.ts';
import { until } from '../until.ts';
import type { ClusterHost } from './cluster-host.ts';

/** Services of Node in containers on the hosts of a cluster, and clients that load them from other hosts. */

/** Answers what it was asked, by whom, and who it is. `/slow` takes half a second, `/big` is a megabyte. Listens LISTEN_AFTER_MS late. */
const webScript = `
  const { createServer } = require('node:http');
  process.on('SIGTERM', () => process.exit(0));
  const server = createServer((req, res) => {
    const answer = () => res.end(req.url === '/big' ? Buffer.alloc(1048576) : JSON.stringify({
      name: process.env.NAME, url: req.url, client: req.socket.remoteAddress, headers: req.headers }));
    if (req.url === '/slow') setTimeout(answer, 500); else answer();
  });
  setTimeout(() => server.listen(8080), Number(process.env.LISTEN_AFTER_MS ?? 0));`;

export type WebAnswer = {
  readonly name: string;
  readonly url: string;
  readonly client: string;
  readonly headers: Readonly<Record<string, string>>;
};

/** The image of the proxy, which has Node in it. */
async function nodeImage(): Promise<string> {
  const build = await readBuild(join(proxyRootfsDir, versionFile));
  if (build === null) throw new Error('the proxy is not built');
  return `flock/proxy:${build.version}`;
}

/** A container that runs a script of Node. Answers its id. */
export async function runScript(
  host: ClusterHost,
  name: string,
  script: string,
  options: readonly string[],
): Promise<string> {
  const run = ['run', '-d', '--name', name, '-e', `NAME=${name}`, '--entrypoint', '/usr/bin/node', ...options];
  return await host.docker(...run, await nodeImage(), '-e', script);
}

export function runWeb(
  host: ClusterHost,
  name: string,
  labels: readonly string[],
  options: readonly string[] = [],
): Promise<string> {
  return runScript(host, name, webScript, [...labels.flatMap((label) => ['--label', label]), ...options]);
}

/** One request from a host, with curl; null while there is no good answer. */
export async function curl(
  from: ClusterHost,
  url: string,
  host: string,
  options: readonly string[] = [],
): Promise<string | null> {
  const args = ['-sS', '--fail', '--max-time', '5', '-H', `Host: ${host}`, ...options, url];
  return from.host.run('curl', args).catch(() => null);
}

export async function askWeb(from: ClusterHost, url: string, host: string): Promise<WebAnswer | null> {
  const text = await curl(from, url, host);
  return text === null ? null : (JSON.parse(text) as WebAnswer);
}

/** Until each of the hosts answers for the route at its own address. */
export async function servedEverywhere(hosts: readonly ClusterHost[], host: string, port = 80): Promise<void> {
  for (const entry of hosts)
    await until(`${host} is served at ${entry.name}`, 20_000, async () =>
      (await askWeb(entry, `http://${entry.address}:${port}/`, host)) === null ? undefined : true,
    );
}

export type Load = { readonly requests: number; readonly failed: number; readonly text: string };

/** wrk with keep-alive connections, from one host to another. `failed`: broken connections, time-outs, and all but 2xx and 3xx. */
export async function load(
  from: ClusterHost,
  to: ClusterHost,
  host: string,
  { seconds, connections = 8, port = 80 }: { seconds: number; connections?: number; port?: number },
): Promise<Load> {
  const url = `http://${to.address}:${port}/`;
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-H', `Host: ${host}`, url];
  const text = await from.host.run('wrk', args);
  const count = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0);
  const sockets = /connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text)?.slice(1) ?? [];
  const broken = sockets.reduce((sum, one) => sum + Number(one), 0);
  return {
    requests: count(/(\d+) requests in /),
    failed: broken + count(/Non-2xx or 3xx responses: (\d+)/),
    text,
  };
}

/** New connections, one request each, one after the other, until the signal; answers how many were good and how many not. */
export async function reconnecting(
  from: ClusterHost,
  url: string,
  host: string,
  signal: AbortSignal,
): Promise<{ readonly good: number; readonly bad: readonly string[] }> {
  let good = 0;
  const bad: string[] = [];
  while (!signal.aborted) {
    const args = ['-sS', '--fail', '--max-time', '15', '-o', '/dev/null', '-H', `Host: ${host}`, url];
    await from.host.run('curl', args).then(
      () => {
        good += 1;
      },
      (error: Error) => bad.push(error.message.slice(-200)),
    );
  }
  return { good, bad };
}
