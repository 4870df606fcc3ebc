import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Host } from '../host/host.ts';
import { type Backend, type PluginHost, startPluginHostWith } from '../plugin-host.ts';
import { until } from '../until.ts';
import { type ConsulServer, type ConsulSpeed, createConsulServer } from './consul-server.ts';
import { addressOf, type Network, type Undo } from './network.ts';
import { bootSeconds } from './probes.ts';
import { hasEnded, processState } from './process-state.ts';

export type Daemon = 'plugin' | 'docker' | 'consul' | 'zfs-fuse';

/** One host of a cluster. After `kill` it is down until `boot`. */
export type ClusterHost = PluginHost & {
  /** From 1. */
  readonly number: number;
  /** n1, n2, ... */
  readonly name: string;
  /** Where the other hosts reach it, and it itself. */
  readonly address: string;
  /** A socket of its Docker that is the same after each boot: unix://PATH. */
  readonly dockerUrl: string;
  readonly server: ConsulServer;
  isUp(): boolean;
  /** Consul's command line on the host, with the host's own agent. */
  consul(...args: readonly string[]): Promise<string>;
  consulApi: ConsulServer['api'];
  startConsul(): Promise<void>;
  /** Everything stops, containers and daemons included; the cables stay in. The undo lets it go on. */
  freeze(): Promise<Undo>;
  /** When it went on after that, in seconds of the boot clock. */
  wakes(): readonly number[];
  freezeDaemon(daemon: Daemon): Promise<Undo>;
  /** SIGKILL. The undo starts it again; Docker starts a killed plugin by itself. */
  killDaemon(daemon: Daemon): Promise<Undo>;
  /** Boots, thaws or starts what is down, frozen or dead. */
  repair(): Promise<void>;
};

export type ClusterHostOptions = {
  readonly number: number;
  /** How many hosts there will be. */
  readonly count: number;
  readonly backend: Backend;
  readonly settings: string;
  readonly consul: ConsulSpeed;
  /** An own folder of the host. */
  readonly disk: string;
  readonly network: Network;
};

/** Longer paths are no addresses of sockets. */
const socketPathMax = 107;

export async function startClusterHost(options: ClusterHostOptions): Promise<ClusterHost> {
  const { number, count, backend, settings, disk, network } = options;
  const name = `n${number}`;
  const dockerSocket = join(disk, 'docker.sock');
  if (dockerSocket.length > socketPathMax)
    throw new Error(`${dockerSocket} is too long for the path of a socket: use a folder with a shorter path`);
  const server = await createConsulServer({ number, count, disk, speed: options.consul });
  const startConsul = (host: Host) => server.start(host);

  const flock = await startPluginHostWith({
    backend,
    name,
    disk,
    settings,
    // Networks of their own, so that an address of a container tells its host.
    dockerOptions: [
      `--bip=${containerNetworkOf(number)}.0.1/24`,
      '-H',
      'unix:///run/docker.sock',
      '-H',
      `unix://${dockerSocket}`,
    ],
    async prepare(host) {
      // For programs that enter the host from outside.
      await writeFile(join(disk, 'pid'), `${host.pid}\n`);
      await network.plug(number, host);
      await startConsul(host);
    },
  });

  let up = true;
  /** What was stopped here, and only that, goes on with a repair: flock stops processes, too, and has its reasons. */
  let frozen: Host | null = null;
  const stopped = new Map<number, Daemon>();
  const boot = async () => {
    await flock.boot();
    up = true;
  };
  const pidsOf = (daemon: Daemon): Promise<readonly number[]> => {
    switch (daemon) {
      case 'plugin':
        return flock.pluginPid().then(
          (pid) => [pid],
          () => [],
        );
      case 'docker':
        return flock.host.pids('/usr/sbin/dockerd');
      case 'consul':
        return flock.host.pids(server.program);
      case 'zfs-fuse':
        return flock.host.pids('zfs-fuse');
    }
  };
  const start = async (daemon: Daemon): Promise<void> => {
    // A plugin that is killed again soon after its start is disabled by Docker.
    if (daemon === 'plugin') await flock.enable().catch(() => {});
    if ((await pidsOf(daemon)).length > 0) return;
    if (daemon === 'docker') await flock.startDocker();
    if (daemon === 'consul') await startConsul(flock.host);
    if (daemon === 'zfs-fuse') await flock.startZfsFuse();
  };
  const wakes: number[] = [];
  /** Everything there, also what flock had stopped before: it will do so again. */
  const thawHost = async () => {
    frozen = null;
    wakes.push(await bootSeconds());
    await flock.host.thaw();
  };
  const goOn = async (pids: readonly number[]): Promise<void> => {
    for (const pid of pids) {
      const daemon = stopped.get(pid);
      stopped.delete(pid);
      if (daemon !== undefined && up && (await pidsOf(daemon)).includes(pid)) process.kill(pid, 'SIGCONT');
    }
  };
  const signal = async (daemon: Daemon, what: NodeJS.Signals): Promise<readonly number[]> => {
    const pids = await pidsOf(daemon);
    if (pids.length === 0) throw new Error(`${name} has no running ${daemon}`);
    for (const pid of pids) process.kill(pid, what);
    return pids;
  };

  return {
    ...flock,
    // Changes with each boot.
    get host() {
      return flock.host;
    },
    number,
    name,
    address: addressOf(number),
    dockerUrl: `unix://${dockerSocket}`,
    server,
    isUp: () => up,
    consul: (...args) => flock.host.run(server.program, args),
    consulApi: server.api,
    startConsul: () => startConsul(flock.host),
    async kill() {
      up = false;
      await flock.kill();
    },
    boot,
    async reboot() {
      up = false;
      await flock.kill();
      await boot();
    },
    async freeze() {
      const { host } = flock;
      await host.freeze();
      frozen = host;
      // A host that was killed meanwhile has nothing to thaw.
      return async () => (up && host === flock.host ? await thawHost() : undefined);
    },
    wakes: () => wakes,
    async freezeDaemon(daemon) {
      const pids = await signal(daemon, 'SIGSTOP');
      for (const pid of pids) stopped.set(pid, daemon);
      // A call into the kernel is finished first.
      for (const pid of pids)
        await until(`${daemon} on ${name} stands still`, 10_000, async () =>
          (await processState(pid)) === 'T' ? true : undefined,
        );
      return () => goOn(pids);
    },
    async killDaemon(daemon) {
      const { host } = flock;
      const killed = await signal(daemon, 'SIGKILL');
      await until(`${daemon} on ${name} is gone`, 10_000, async () =>
        (await Promise.all(killed.map(hasEnded))).every(Boolean) ? true : undefined,
      );
      return async () => (up && host === flock.host ? await start(daemon) : undefined);
    },
    async repair() {
      if (!up) return await boot();
      if (frozen === flock.host) await thawHost();
      await goOn([...stopped.keys()]);
      if (backend === 'zfs') await start('zfs-fuse');
      for (const daemon of ['consul', 'docker', 'plugin'] as const) await start(daemon);
    },
  };
}

/** The first two numbers of the addresses of a host's containers. */
export function containerNetworkOf(number: number): string {
  return `172.${20 + number}`;
}
