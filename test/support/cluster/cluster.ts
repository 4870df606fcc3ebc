import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Backend, ensureGolden } from '../plugin-host.ts';
import { startProxy } from '../proxy-host.ts';
import { until } from '../until.ts';
import { type ClusterHost, startClusterHost } from './cluster-host.ts';
import { allHealthy, type ConsulSpeed, leaderAddress } from './consul-server.ts';
import { type Network, startNetwork, type Undo } from './network.ts';

export type ClusterOptions = {
  /** 1 to 5; default 3. */
  readonly count?: number;
  readonly backend: Backend;
  /** flock's first settings besides the backend. */
  readonly settings?: string;
  /** Of the flock cluster; default fast. */
  readonly profile?: 'fast' | 'default';
  /** How soon Consul's sessions end; default as the profile. */
  readonly consul?: ConsulSpeed;
  /** One for each host; default: dc=east for the first half, dc=west for the rest. */
  readonly labels?: readonly Readonly<Record<string, string>>[];
  /** False: Docker, plugins, pools and Consul only, no flock cluster. */
  readonly join?: boolean;
  /** Whether `join` starts the proxy on each host, too; default: false. */
  readonly proxy?: boolean;
  /** An empty or missing folder for the disks; default: a temporary one. */
  readonly folder?: string;
};

/** Several hosts on one switch, each with Docker, the managed plugin, a pool and a Consul server. */
export type Cluster = {
  readonly backend: Backend;
  readonly folder: string;
  readonly hosts: readonly ClusterHost[];
  /** By number, from 1. */
  host(number: number): ClusterHost;
  readonly network: Network;
  /** `flockctl init` on the first host and `join` on the others; part of the start unless `join: false`. */
  join(): Promise<void>;
  /** The host with Consul's leader as most hosts see it, or null. */
  leader(): Promise<ClusterHost | null>;
  /** Waits until there is one. */
  waitForLeader(): Promise<ClusterHost>;
  /** Until every Consul server of the cluster has a vote and is well: to be awaited between faults. */
  waitForConsul(): Promise<void>;
  /** Has another host's Consul lead than that of these: who is cut off from the leader is cut off from the store. */
  leadElsewhere(numbers: readonly number[]): Promise<void>;
  /** SIGKILL to the leader's Consul; answers its host. */
  killLeader(): Promise<{ readonly host: ClusterHost; readonly undo: Undo }>;
  /** Kills the Consul of as many hosts as it takes, the last ones first. */
  takeQuorum(): Promise<Undo>;
  /** Ends all faults: cables in, hosts booted and thawed, daemons started, Consul well. */
  heal(): Promise<void>;
  /** Kills everything and removes the disks. */
  dispose(): Promise<void>;
};

const countMax = 5;
const poolMsMax = 60_000;
const consulMsMax = 90_000;
const electionsMax = 5;

export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { count = 3, backend, profile = 'fast', settings = 'pool-size=2G', proxy = false } = options;
  if (!Number.isInteger(count) || count < 1 || count > countMax)
    throw new Error(`a cluster of ${count} hosts: give a number from 1 to ${countMax}`);
  const labels = options.labels ?? defaultLabels(count);
  const claim = await claimMachine();
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), 'flock-cluster-')));
  let network: Network | null = null;
  const started: ClusterHost[] = [];
  const dispose = async () => {
    const ends = await Promise.allSettled(started.map((host) => host.kill()));
    await network?.close();
    await rm(folder, { recursive: true, force: true });
    await new Promise((resolve) => claim.close(resolve));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  };

  try {
    await ensureGolden();
    const cables = await startNetwork();
    network = cables;
    const attempts = await Promise.allSettled(
      Array.from({ length: count }, async (_, index) => {
        const number = index + 1;
        const disk = join(folder, `n${number}`);
        const { consul = profile } = options;
        started.push(await startClusterHost({ number, count, backend, settings, consul, disk, network: cables }));
      }),
    );
    // All of them have ended, so what was started can be stopped.
    for (const attempt of attempts) if (attempt.status === 'rejected') throw attempt.reason;
    const hosts = started.sort((a, b) => a.number - b.number);
    const cluster = clusterOf(hosts, { backend, folder, network: cables, profile, labels, proxy, dispose });
    await Promise.all([...hosts.map(waitForPool), cluster.waitForConsul()]);
    if (options.join !== false) await cluster.join();
    return cluster;
  } catch (error) {
    await dispose();
    throw error;
  }
}

type Parts = Pick<Cluster, 'backend' | 'folder' | 'network' | 'dispose'> & {
  readonly profile: 'fast' | 'default';
  readonly labels: readonly Readonly<Record<string, string>>[];
  readonly proxy: boolean;
};

function clusterOf(hosts: readonly ClusterHost[], { profile, labels, proxy, ...parts }: Parts): Cluster {
  const servers = hosts.map(({ server }) => server);
  const leader = async () => {
    const address = await leaderAddress(servers);
    return hosts.find((host) => host.address === address) ?? null;
  };
  const waitForLeader = () => until('Consul has a leader', consulMsMax, async () => (await leader()) ?? undefined);
  const waitForConsul = () =>
    until('all Consul servers vote and are well', consulMsMax, async () =>
      (await allHealthy(servers)) ? true : undefined,
    ).then(() => {});
  const host = (number: number) => {
    const found = hosts[number - 1];
    if (found === undefined) throw new Error(`the cluster has no host ${number}`);
    return found;
  };
  const join = async () => {
    const [first, ...others] = hosts;
    if (first === undefined) return;
    const self = ({ name, address, number }: ClusterHost) => [
      ...['--name', name, '--address', address, '--store', 'http://127.0.0.1:8500'],
      ...Object.entries(labels[number - 1] ?? {}).flatMap(([label, value]) => ['--label', `${label}=${value}`]),
    ];
    await first.flockctl('init', ...self(first), '--profile', profile);
    for (const other of others) {
      const { token } = (await first.json('token', 'create')) as { readonly token: string };
      await other.flockctl('join', first.address, token, ...self(other));
    }
    if (proxy) await Promise.all(hosts.map(startProxy));
  };

  return {
    ...parts,
    hosts,
    host,
    join,
    leader,
    waitForLeader,
    waitForConsul,
    async leadElsewhere(numbers) {
      for (let tries = 1; tries <= electionsMax; tries += 1) {
        const { number } = await waitForLeader();
        if (!numbers.includes(number)) return;
        const undo = await host(number).killDaemon('consul');
        await until('Consul has another leader', consulMsMax, async () => {
          const now = await leader();
          return now === null || now.number === number ? undefined : true;
        });
        await undo();
        await waitForConsul();
      }
      throw new Error(`Consul's leader was on host ${numbers.join(' or ')} after ${electionsMax} elections`);
    },
    async killLeader() {
      const leading = await waitForLeader();
      return { host: leading, undo: await leading.killDaemon('consul') };
    },
    async takeQuorum() {
      const needed = Math.floor(hosts.length / 2) + 1;
      const victims = hosts.slice(needed - 1);
      const undos = await Promise.all(victims.map((victim) => victim.killDaemon('consul')));
      return async () => {
        await Promise.all(undos.map((undo) => undo()));
        await waitForConsul();
      };
    },
    async heal() {
      await parts.network.heal();
      await Promise.all(hosts.map((each) => each.repair()));
      await waitForConsul();
    },
  };
}

function defaultLabels(count: number): readonly Readonly<Record<string, string>>[] {
  return Array.from({ length: count }, (_, index) => ({ dc: index < count / 2 ? 'east' : 'west' }));
}

/** The plugin makes its pool after it has begun to answer. */
async function waitForPool(host: ClusterHost): Promise<void> {
  await until(`the pool of ${host.name} is online`, poolMsMax, async () => {
    const pool = (await host.json('df').catch(() => null)) as { readonly state: string } | null;
    return pool?.state === 'online' ? true : undefined;
  });
}

/** One cluster at a time: it needs most of a small machine, and people's way in has fixed addresses. The kernel drops the claim with this process. */
async function claimMachine(): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        cause.code === 'EADDRINUSE'
          ? new Error('a cluster runs on this machine already: make cluster-down ends yours, a test ends by itself')
          : cause,
      ),
    );
    // An abstract socket: a name, no file.
    server.listen('\0flock-test-cluster', resolve);
  });
  server.unref();
  return server;
}
