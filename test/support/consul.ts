/** Real Consul servers for tests: on loopback addresses, random ports, with their data in a temporary folder. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureConsul } from '../../packaging/consul.ts';
import { until } from './until.ts';

export type ConsulServer = {
  /** Of its HTTP API, such as "http://127.0.0.1:40001". */
  readonly address: string;
  /** As a stalled process: connections stay open and nothing is answered. */
  pause(): Promise<void>;
  resume(): void;
  /** As a crash. */
  kill(): Promise<void>;
  /** With the data it had. */
  restart(): Promise<void>;
};

export type ConsulCluster = {
  readonly servers: readonly ConsulServer[];
  /** The server that leads now, as the servers that answer say. */
  leader(): Promise<ConsulServer>;
  /** Ends all servers and removes their data. */
  stop(): Promise<void>;
};

const startMsMax = 30_000;
const logCharactersMax = 2_000;

/** Sessions may live as short as two seconds here, so that tests need not wait. */
const configuration = [
  'performance { raft_multiplier = 1 }',
  'session_ttl_min = "2s"',
  // otherwise a killed server is removed, together with its sessions, at a random moment
  'autopilot { cleanup_dead_servers = false }',
  'disable_update_check = true',
  'leave_on_terminate = false',
  'connect { enabled = false }',
].join('\n');

/** One server on 127.0.0.1, or three of them on 127.0.0.2 to .4, with a leader and ready for sessions. */
export async function startConsul(servers: 1 | 3 = 1): Promise<ConsulCluster> {
  const program = await ensureConsul();
  const folder = await mkdtemp(join(tmpdir(), 'flock-consul-'));
  const hosts = servers === 1 ? ['127.0.0.1'] : ['127.0.0.2', '127.0.0.3', '127.0.0.4'];
  const [http = 0, server = 0, serf = 0] = await freePorts(3);
  const addresses = hosts.map((host) => `http://${host}:${http}`);
  const running: Running[] = [];
  const stop = async () => {
    await Promise.all(running.map((one) => one.kill()));
    await rm(folder, { recursive: true, force: true });
  };
  try {
    for (const [position, host] of hosts.entries()) {
      const name = `node-${position + 1}`;
      const ports = `ports { http = ${http} server = ${server} serf_lan = ${serf} serf_wan = -1 dns = -1 grpc = -1 }`;
      const others = hosts.filter((other) => other !== host).map((other) => `-retry-join=${other}:${serf}`);
      running.push(
        await run(program, join(folder, `${name}.log`), [
          ...['agent', '-server', `-bootstrap-expect=${servers}`, `-node=${name}`, '-disable-host-node-id'],
          ...[`-bind=${host}`, `-client=${host}`, `-data-dir=${join(folder, name)}`],
          ...[...others, '-retry-interval=1s', `-hcl=${configuration}\n${ports}`],
        ]),
      );
    }
    for (const address of addresses) {
      await until(`${address} is ready`, startMsMax, async () => {
        for (const one of running) await one.assertRuns();
        return await isReady(address, servers);
      });
    }
  } catch (error) {
    await stop();
    throw error;
  }
  const list = running.map((one, position): ConsulServer => {
    const address = addresses[position] ?? '';
    return {
      address,
      async pause() {
        one.signal('SIGSTOP');
        await until(`${address} has stopped`, startMsMax, () => one.isStopped());
      },
      resume: () => one.signal('SIGCONT'),
      kill: one.kill,
      async restart() {
        await one.start();
        await until(`${address} is ready`, startMsMax, () => isReady(address, 1));
      },
    };
  });
  return {
    servers: list,
    leader: () =>
      until('a leader is known', startMsMax, async () => {
        for (const address of addresses) {
          const text = await ask(`${address}/v1/status/leader`);
          const found = list.find((one) => text === JSON.stringify(`${new URL(one.address).hostname}:${server}`));
          if (found !== undefined) return found;
        }
        return undefined;
      }),
    stop,
  };
}

type Running = {
  signal(signal: NodeJS.Signals): void;
  /** All of its threads have seen SIGSTOP. */
  isStopped(): Promise<true | undefined>;
  start(): Promise<void>;
  /** Throws with the end of its log if it has ended by itself. */
  assertRuns(): Promise<void>;
  kill(): Promise<void>;
};

async function run(program: string, logFile: string, args: readonly string[]): Promise<Running> {
  let child: ChildProcess | null = null;
  const running: Running = {
    signal: (signal) => void child?.kill(signal),
    async isStopped() {
      const tasks = `/proc/${child?.pid}/task`;
      for (const task of await readdir(tasks)) {
        if (!/^State:\tT/m.test(await readFile(`${tasks}/${task}/status`, 'utf8'))) return undefined;
      }
      return true;
    },
    async start() {
      const log = await open(logFile, 'a');
      // The process must not outlive the tests, whatever becomes of them.
      child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], { stdio: ['ignore', log.fd, log.fd] });
      await log.close();
    },
    async assertRuns() {
      if (child === null || (child.exitCode === null && child.signalCode === null)) return;
      const log = await readFile(logFile, 'utf8');
      throw new Error(`consul ended with status ${child.exitCode}: ${log.slice(-logCharactersMax)}`);
    },
    async kill() {
      const ending = child;
      child = null;
      if (ending === null || ending.exitCode !== null || ending.signalCode !== null) return;
      const ended = new Promise((resolve) => ending.once('exit', resolve));
      ending.kill('SIGKILL');
      await ended;
    },
  };
  await running.start();
  return running;
}

/** There is a leader and as many nodes as expected have passed their health check, which sessions depend on. */
async function isReady(address: string, nodes: number): Promise<true | undefined> {
  const checks = await ask(`${address}/v1/health/state/passing`);
  return (checks?.match(/"serfHealth"/g)?.length ?? 0) >= nodes ? true : undefined;
}

async function ask(url: string): Promise<string | null> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(1_000) });
    return answer.ok ? (await answer.text()).trim() : null;
  } catch {
    return null;
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer();
          server.once('error', reject);
          server.listen(0, '0.0.0.0', () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  });
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
