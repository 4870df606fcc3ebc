import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createCommands } from '../../plugin/exec.ts';

/**
 * Two nodes with containers on bridges and a client, each in a network namespace that ends with its process:
 *
 *     client 10.91.0.9 ──┬── a 10.91.0.1 ── 172.31.0.1 ──┬── one 172.31.0.2
 *                        │                               ├── two 172.31.0.3
 *                        │                               └── app 172.31.0.9
 *                        └── b 10.91.0.2 ── 172.32.0.1 ───── far 172.32.0.2
 */
export type Asking = {
  readonly pid: number;
  ask<T>(operation: string, asked?: Readonly<Record<string, unknown>>): Promise<T>;
  end(): Promise<void>;
  kill(): Promise<void>;
};
export type Net = {
  readonly hosts: Readonly<Record<HostName, Asking>>;
  /** Runs a command in the network of a host. */
  run(host: HostName, ...command: readonly [string, ...string[]]): Promise<string>;
  /** A kernel layer in the network of a host. */
  layer(host: 'a' | 'b'): Promise<Asking>;
  /** The container's network anew, as after its restart. */
  restart(container: ContainerName): Promise<Asking>;
  readonly folder: string;
  dispose(): Promise<void>;
};
const containerNames = ['one', 'two', 'app', 'far'] as const;
export type ContainerName = (typeof containerNames)[number];
export type HostName = 'lan' | 'client' | 'a' | 'b' | ContainerName;

export const addresses = {
  client: '10.91.0.9',
  a: '10.91.0.1',
  b: '10.91.0.2',
  one: '172.31.0.2',
  two: '172.31.0.3',
  app: '172.31.0.9',
  far: '172.32.0.2',
} as const;

const here = import.meta.dirname;
const commands = createCommands();

export async function createNet(): Promise<Net> {
  const folder = await mkdtemp(join(tmpdir(), 'flock-kernel-'));
  const hosts: Partial<Record<HostName, Asking>> = {};
  const started: Asking[] = [];

  const host = async (name: HostName): Promise<Asking> => {
    const made = await start('unshare', ['--net', process.execPath, join(here, 'proxy-kernel-peer.ts')]);
    started.push(made);
    hosts[name] = made;
    await run(name, 'ip', 'link', 'set', 'lo', 'up');
    return made;
  };
  const pidOf = (name: HostName) => String(hosts[name]?.pid);
  const run: Net['run'] = (name, ...command) => commands.run('nsenter', ['--target', pidOf(name), '--net', ...command]);

  /** A cable from a bridge to a host. */
  async function plug(bridgeHost: HostName, bridge: string, name: HostName, address: string): Promise<void> {
    const port = `to-${name}`;
    const peer = name === 'a' || name === 'b' || name === 'client' ? 'lan0' : 'eth0';
    await run(bridgeHost, 'ip', 'link', 'add', port, 'type', 'veth', 'peer', 'name', peer, 'netns', pidOf(name));
    await run(bridgeHost, 'ip', 'link', 'set', port, 'master', bridge, 'up');
    await run(name, 'ip', 'addr', 'add', `${address}/24`, 'dev', peer);
    await run(name, 'ip', 'link', 'set', peer, 'up');
  }
  async function makeBridge(name: HostName, bridge: string, address: string | null): Promise<void> {
    await run(name, 'ip', 'link', 'add', bridge, 'type', 'bridge');
    if (address !== null) await run(name, 'ip', 'addr', 'add', `${address}/24`, 'dev', bridge);
    await run(name, 'ip', 'link', 'set', bridge, 'up');
  }
  async function container(name: ContainerName): Promise<Asking> {
    const node = name === 'far' ? 'b' : 'a';
    const made = await host(name);
    await plug(node, 'br0', name, addresses[name]);
    await run(name, 'ip', 'route', 'add', 'default', 'via', node === 'a' ? '172.31.0.1' : '172.32.0.1');
    return made;
  }

  await Promise.all((['lan', 'client', 'a', 'b'] as const).map(host));
  await makeBridge('lan', 'lan', null);
  await makeBridge('a', 'br0', '172.31.0.1');
  await makeBridge('b', 'br0', '172.32.0.1');
  for (const name of ['client', 'a', 'b'] as const) await plug('lan', 'lan', name, addresses[name]);
  for (const name of containerNames) await container(name);
  return {
    hosts: hosts as Record<HostName, Asking>,
    run,
    folder,
    async layer(name) {
      const made = await start('nsenter', [
        ...['--target', pidOf(name), '--net', process.execPath, join(here, 'proxy-kernel-process.ts')],
        ...[join(folder, name), name],
      ]);
      started.push(made);
      return made;
    },
    async restart(name) {
      await hosts[name]?.kill();
      await run(name === 'far' ? 'b' : 'a', 'ip', 'link', 'del', `to-${name}`).catch(() => {});
      return container(name);
    },
    async dispose() {
      await Promise.all(started.map((one) => one.kill()));
      await rm(folder, { recursive: true });
    },
  };
}

const answerMsMax = 30_000;

/** A process that answers JSON lines. Resolves once it does. */
async function start(file: string, args: readonly string[]): Promise<Asking> {
  const child: ChildProcess = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = new Map<number, { resolve(answer: never): void; reject(error: Error): void }>();
  let last = 0;
  const gone = once(child, 'exit').then(() => {
    for (const { reject } of waiting.values()) reject(new Error(`${args.join(' ')} has ended`));
    waiting.clear();
  });
  if (child.stdout === null || child.pid === undefined) throw new Error(`${file} did not start`);
  createInterface({ input: child.stdout }).on('line', (line) => {
    const { id, answer, failure } = JSON.parse(line);
    const one = waiting.get(id);
    waiting.delete(id);
    if (failure === undefined) one?.resolve(answer as never);
    else one?.reject(new Error(failure));
  });
  const asking: Asking = {
    pid: child.pid,
    ask<T>(operation: string, asked: Readonly<Record<string, unknown>> = {}) {
      last += 1;
      const id = last;
      return new Promise<T>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${operation}: no answer`)), answerMsMax);
        const settle =
          <A>(go: (value: A) => void) =>
          (value: A) => {
            clearTimeout(timer);
            go(value);
          };
        waiting.set(id, { resolve: settle(resolve), reject: settle(reject) });
        child.stdin?.write(`${JSON.stringify({ id, operation, ...asked })}\n`);
      });
    },
    async end() {
      child.stdin?.end();
      await gone;
    },
    async kill() {
      child.kill('SIGKILL');
      await gone;
    },
  };
  // In its own network only once it runs.
  await asking.ask('ready');
  return asking;
}
