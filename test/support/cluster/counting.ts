import { until } from '../until.ts';
import type { ClusterHost } from './cluster-host.ts';
import { createVolume, type Members, volumeOf } from './members.ts';
import type { Network } from './network.ts';
import { type LoadOptions, type LoadResult, type RequestLoad, startRequestLoad } from './request-load.ts';
import { curl, runScript } from './web.ts';

/**
 * An HTTP service with state: each request carries an id, which is appended to a file on a flock volume before it is answered with (and
 * with the node that it runs on, and how many there are). So what was answered, lost or done twice can be counted. Browsers get a page.
 *
 * Files on its volume change what it does: `mute-NODE`: it never listens on that node; `slow`: it takes four seconds until it does.
 */
const script = `
  const { createServer } = require('node:http');
  const { existsSync, openSync, readFileSync, writeSync } = require('node:fs');
  const address = require('node:os').networkInterfaces().eth0?.[0].address ?? '';
  const node = 'n' + (Number(address.split('.')[1]) - 20);
  process.on('SIGTERM', () => process.exit(0));
  const file = openSync('/data/requests', 'a+');
  let count = readFileSync('/data/requests', 'latin1').split('\\n').length - 1;
  const page = () => '<!doctype html><meta http-equiv="refresh" content="1"><title>' + node + '</title>' +
    '<body style="font: 6vw sans-serif; text-align: center"><p>' + count + ' requests so far<p>now on ' + node;
  const listen = () => createServer((req, res) => {
    const id = req.headers['x-request-id'];
    if (id !== undefined) count += writeSync(file, id + '\\n') > 0 ? 1 : 0;
    const isPage = id === undefined && String(req.headers.accept).includes('text/html');
    res.setHeader('content-type', isPage ? 'text/html' : 'text/plain');
    res.end(isPage ? page() : (id ?? '-') + ' ' + node + ' ' + count);
  }).listen(8080);
  if (existsSync('/data/mute-' + node)) setInterval(() => {}, 1000);
  else setTimeout(listen, existsSync('/data/slow') ? 4000 : 0);`;

export type Counter = { readonly name: string; readonly volume: string; readonly host: string };

export const counterOf = (name: string): Counter => ({
  name,
  volume: `${name}-data`,
  host: `${name}.example.test`,
});

export const counterLabels = ({ name, host }: Counter): readonly string[] =>
  [`flock.service=${name}`, `flock.route=http://${host} -> 8080`].flatMap((label) => ['--label', label]);

/** A container of its name, and its volume. Answers the container's id. */
export async function startCounter(
  host: ClusterHost,
  counter: Counter,
  { volume = [], run = [] }: { readonly volume?: readonly string[]; readonly run?: readonly string[] } = {},
): Promise<string> {
  await createVolume(host, counter.volume, volume);
  const mount = ['--volume-driver=flock', '-v', `${counter.volume}:/data`, '--stop-timeout', '2'];
  return runScript(host, counter.name, script, [...counterLabels(counter), ...mount, ...run]);
}

/** Loads the service through each of the hosts, from the next one or from outside: together 200 requests a second and more. */
export function loadCounter(
  hosts: readonly ClusterHost[],
  { name, host }: Counter,
  outside: Network['outside'] | null = null,
  options: Partial<LoadOptions> = {},
): readonly RequestLoad[] {
  return hosts.map((entry, index) => {
    const from = outside ?? hosts[(index + 1) % hosts.length] ?? entry;
    return startRequestLoad(from, { ...options, name: `${name}-${entry.name}`, url: `http://${entry.address}/`, host });
  });
}

/** Where it is answered from at one of the hosts; null: there is no good answer now. */
export async function whereIs(at: ClusterHost, { host }: Counter): Promise<string | null> {
  const text = await curl(at, `http://${at.address}/`, host, ['--max-time', '40']);
  return text?.split(' ')[1] ?? null;
}

/** Until every host leads to the service on this node. */
export async function answersFrom(
  hosts: readonly ClusterHost[],
  counter: Counter,
  node: string,
  msMax = 60_000,
): Promise<void> {
  for (const host of hosts) {
    let last: string | null = null;
    await until(`${counter.name} answers at ${host.name} from ${node}`, msMax, async () => {
      last = await whereIs(host, counter);
      return last === node ? true : undefined;
    }).catch((error: Error) => {
      throw new Error(`${error.message}; last it was ${last}`);
    });
  }
}

export type Count = {
  readonly answered: number;
  readonly failed: readonly string[];
  readonly faults: readonly string[];
};

/** What the service has noted, as its container on this host reads it. */
export function notedBy(host: ClusterHost, { name }: Counter): Promise<string> {
  const read = "process.stdout.write(require('node:fs').readFileSync('/data/requests'))";
  return host.docker('exec', name, '/usr/bin/node', '-e', read);
}

/** Compares what was noted with what was answered. `faults`: answered and not there, or there twice; must be empty. Pure. */
export function checkNoted(text: string, results: readonly LoadResult[]): Count {
  const seen = new Map<string, number>();
  for (const line of text.split('\n')) if (line !== '') seen.set(line, (seen.get(line) ?? 0) + 1);
  const faults = [...seen].flatMap(([id, count]) => (count > 1 ? [`${id} is there ${count} times`] : []));
  const failed: string[] = [];
  let answered = 0;
  for (const worker of results.flatMap(({ workers }) => workers)) {
    failed.push(...worker.failed);
    const broken = new Set(worker.failed.map((one) => one.slice(0, one.indexOf(' '))));
    for (let number = 1; number <= worker.sent; number += 1) {
      const id = `${worker.prefix}:${number}`;
      if (broken.has(id)) continue;
      answered += 1;
      if (!seen.has(id)) faults.push(`${id} was answered and is not there`);
    }
  }
  return { answered, failed, faults };
}

/** The host that the store names as the volume's owner. */
export async function ownerOf(members: Members, volume: string): Promise<ClusterHost> {
  const { doc } = await volumeOf(members, volume);
  const owner = members.cluster.hosts.find(({ name }) => name === doc.owner);
  if (owner === undefined) throw new Error(`${doc.owner} is no host`);
  return owner;
}
