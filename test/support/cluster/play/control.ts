import { rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { text } from 'node:stream/consumers';
import type { Cluster } from '../cluster.ts';
import type { ClusterHost } from '../cluster-host.ts';

/** What people may do to a running cluster: a command's words as JSON on a socket, answered by one line. */
type Command = {
  readonly arguments: '' | 'N' | 'N...';
  readonly help: string;
  run(cluster: Cluster, hosts: readonly ClusterHost[]): Promise<string>;
};

const done = () => 'done';
const numbers = (hosts: readonly ClusterHost[]) => hosts.map(({ number }) => number);
const others = (cluster: Cluster, hosts: readonly ClusterHost[]) =>
  numbers(cluster.hosts.filter((host) => !hosts.includes(host)));
const each = (hosts: readonly ClusterHost[], act: (host: ClusterHost) => Promise<unknown>) =>
  Promise.all(hosts.map(act)).then(done);

const commands: Readonly<Record<string, Command>> = {
  kill: {
    arguments: 'N',
    help: 'power off: everything on the host is gone but its disk',
    run: (_, hosts) => each(hosts, (host) => host.kill()),
  },
  boot: { arguments: 'N', help: 'and on again', run: (_, hosts) => each(hosts, (host) => host.reboot()) },
  freeze: {
    arguments: 'N',
    help: 'everything on the host stands still',
    run: (_, hosts) => each(hosts, (host) => host.freeze()),
  },
  thaw: { arguments: 'N', help: 'and goes on', run: (_, hosts) => each(hosts, (host) => host.host.thaw()) },
  cut: {
    arguments: 'N...',
    help: 'these hosts and the others no longer reach each other',
    run: (cluster, hosts) => cluster.network.partition(numbers(hosts), others(cluster, hosts)).then(done),
  },
  'cut-consul': {
    arguments: 'N...',
    help: 'only their Consul servers do not',
    run: (cluster, hosts) => cluster.network.partitionConsul(numbers(hosts), others(cluster, hosts)).then(done),
  },
  heal: { arguments: '', help: 'all of that is over', run: (cluster) => cluster.heal().then(done) },
  leader: {
    arguments: '',
    help: "the host with Consul's leader",
    run: async (cluster) => (await cluster.leader())?.name ?? 'none',
  },
};

export function faultUsage(program: string): string {
  const lines = Object.entries(commands).map(
    ([name, command]) => `  ${`${program} ${name} ${command.arguments}`.padEnd(program.length + 17)}${command.help}`,
  );
  return lines.join('\n');
}

/** Answers words such as ["kill", "2"]; throws on what it does not understand, with the way out. */
async function perform(cluster: Cluster, words: readonly string[]): Promise<string> {
  const [name = '', ...rest] = words;
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) throw new Error(`"${name}" is none of ${Object.keys(commands).join(', ')}`);
  const count = { '': rest.length === 0, N: rest.length === 1, 'N...': rest.length > 0 }[command.arguments];
  if (!count || !rest.every((word) => /^[1-9]$/.test(word)))
    throw new Error(`usage: ${name} ${command.arguments}, with numbers of hosts`);
  const hosts = rest.map((word) => cluster.host(Number(word)));
  return await command.run(cluster, hosts);
}

const wordsBytesMax = 1_000;

export async function serveControl(cluster: Cluster, path: string): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.setTimeout(300_000, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    const answer = async () => {
      const request = await text(socket);
      if (request.length > wordsBytesMax) throw new Error('too many words');
      return await perform(cluster, JSON.parse(request) as readonly string[]);
    };
    answer().then(
      (said) => socket.end(`${said}\n`),
      (error: unknown) => socket.end(`error: ${error instanceof Error ? error.message : String(error)}\n`),
    );
  });
  await rm(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return server;
}
