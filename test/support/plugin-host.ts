import { rmSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import config from '../../config.json' with { type: 'json' };
import { type Client, createClient } from '../../controller/cli/client.ts';
import type { Docker } from '../../packaging/docker.ts';
import { pluginDir, rootfsDir } from '../../packaging/paths.ts';
import { ensureImage, image } from '../../packaging/proof.ts';
import { ensureProxyImage } from '../../packaging/proxy.ts';
import { createCommands } from '../../plugin/exec.ts';
import { type Host, startHost } from './host/host.ts';
import { until } from './until.ts';

export type Backend = 'btrfs' | 'zfs';
export const backends: readonly Backend[] = ['btrfs', 'zfs'];

/** A test host with Docker, the managed plugin and a pool. */
export type PluginHost = {
  readonly backend: Backend;
  /** Its disk state; what daemons say is in NAME.log there. */
  readonly disk: string;
  /** The host as it runs now; another one after a reboot. */
  readonly host: Host;
  docker(...args: readonly string[]): Promise<string>;
  /** Answers the text of the error that the command ends with; fails if it succeeds. */
  dockerError(...args: readonly string[]): Promise<string>;
  /** `docker run --rm -v VOLUME:/data` of busybox's sh with a script. */
  sh(volume: string, script: string, ...options: readonly string[]): Promise<string>;
  flockctl(...args: readonly string[]): Promise<string>;
  flockctlError(...args: readonly string[]): Promise<string>;
  json(...args: readonly string[]): Promise<unknown>;
  /** The plugin's API without flockctl between, for what is asked again and again. */
  api(): Client;
  pluginPid(): Promise<number>;
  /** SIGKILL, and waits for the process that Docker starts in its place. */
  killPlugin(): Promise<void>;
  enable(): Promise<void>;
  disable(): Promise<void>;
  killDocker(): Promise<void>;
  startDocker(options?: readonly string[]): Promise<void>;
  startZfsFuse(): Promise<void>;
  /** All processes gone at once. */
  kill(): Promise<void>;
  /** Starts a killed host again with its disk as it was. */
  boot(): Promise<void>;
  /** Both. */
  reboot(): Promise<void>;
  pluginLog(): Promise<string>;
  dispose(): Promise<void>;
};

export type PluginHostOptions = {
  readonly backend: Backend;
  /** Default: flock-BACKEND. */
  readonly name?: string;
  /** An empty or missing folder for the disk state, on a file system with room for Docker's files; default: a temporary one. */
  readonly disk?: string;
  /** What FLOCK_SETTINGS says besides the backend. */
  readonly settings?: string;
  /** More options for each start of dockerd. */
  readonly dockerOptions?: readonly string[];
  /** Runs at each start of the host, before its daemons. */
  readonly prepare?: (host: Host) => Promise<void>;
};

const commands = createCommands();
/** As it is in the image, and as one file: it is started thousands of times. */
export const cli = join(rootfsDir, 'flock/flockctl.js');
/** The watchdog is another node beside it. */
const pluginCommand = (config.entrypoint as readonly string[]).join(' ');
const apiSocket = '/run/flock/flock.sock';
const pluginReference = 'flock:latest';
let golden: Promise<string> | null = null;

export function startPluginHost(backend: Backend, settings = 'pool-size=1G'): Promise<PluginHost> {
  return startPluginHostWith({ backend, settings });
}

/** One second apart. */
const cutOffTries = 20;

export async function startPluginHostWith(options: PluginHostOptions): Promise<PluginHost> {
  const { backend, name = `flock-${backend}`, settings = 'pool-size=1G', dockerOptions = [] } = options;
  const disk = options.disk ?? (await mkdtemp(join(tmpdir(), `flock-${backend}-`)));
  await mkdir(disk, { recursive: true });
  // Docker's folder has device nodes, which Node's own cp refuses.
  await commands.run('cp', ['-a', await ensureGolden(), join(disk, 'docker')]);
  let host = await startHost(name, disk);

  const docker: PluginHost['docker'] = (...args) => host.docker(...args);
  const flockctl: PluginHost['flockctl'] = (...args) => host.run(process.execPath, [cli, ...args]);
  const pluginPid = async () => {
    const [pid] = await host.pids(pluginCommand);
    if (pid === undefined) throw new Error('the plugin does not run');
    return pid;
  };
  const startZfsFuse = async () => {
    await host.run('mkdir', ['-p', '/run/zfs']);
    await host.daemon('zfs-fuse', 'zfs-fuse', ['-n', '--no-kstat-mount', '--pidfile', '/run/zfs-fuse.pid']);
    await until('zfs-fuse answers', 20_000, () => host.run('zpool', ['list', '-H']).catch(() => undefined));
  };
  const startDocker: PluginHost['startDocker'] = (more = []) => host.startDocker([...dockerOptions, ...more]);
  const startDaemons = async () => {
    await options.prepare?.(host);
    if (backend === 'zfs') await startZfsFuse();
    await startDocker();
  };
  const kill = () => host.kill();
  const boot = async () => {
    host = await startHost(name, disk);
    await startDaemons();
  };
  const killDocker = async () => {
    for (const pid of await host.pids('/usr/sbin/dockerd')) process.kill(pid, 'SIGKILL');
    await until('dockerd is gone', 10_000, async () =>
      (await host.pids('/usr/sbin/dockerd')).length === 0 ? true : undefined,
    );
  };

  try {
    await startDaemons();
    await docker('plugin', 'set', pluginReference, `FLOCK_SETTINGS=backend=${backend} ${settings}`);
    await docker('plugin', 'enable', pluginReference);
  } catch (error) {
    await kill();
    throw error;
  }

  return {
    backend,
    disk,
    get host() {
      return host;
    },
    docker,
    dockerError: (...args) => failure(docker(...args)),
    async sh(volume, script, ...options) {
      const mounting = ['--network=none', ...options, '--volume-driver=flock', '-v', `${volume}:/data`];
      for (let tries = 1; ; tries += 1) {
        try {
          return await docker('run', '--rm', ...mounting, image, 'sh', '-c', script);
        } catch (error) {
          // The daemon was killed before, and has taken the plugin's folder away: it is there again when the plugin is.
          const isCutOff = error instanceof Error && error.message.includes('does not see what flock mounts');
          if (!isCutOff || tries === cutOffTries) throw error;
          await sleep(1_000);
        }
      }
    },
    flockctl,
    flockctlError: (...args) => failure(flockctl(...args)),
    json: async (...args) => JSON.parse(await flockctl('--output', 'json', ...args)),
    api: () => createClient({ socketPath: `/proc/${host.pid}/root${apiSocket}`, name: 'plugin' }),
    pluginPid,
    async killPlugin() {
      const old = await pluginPid();
      process.kill(old, 'SIGKILL');
      await until('the plugin runs again', 20_000, async () => {
        // Docker dials a restarted plugin after half a second, and gives up one that has died again by then.
        const enabled = await docker('plugin', 'inspect', '--format', '{{.Enabled}}', pluginReference);
        if (enabled === 'false') await docker('plugin', 'enable', pluginReference);
        const now = await pluginPid().catch(() => old);
        return now === old ? undefined : await flockctl('version').catch(() => undefined);
      });
      await sleep(700);
    },
    enable: async () => void (await docker('plugin', 'enable', pluginReference)),
    disable: async () => void (await docker('plugin', 'disable', '-f', pluginReference)),
    killDocker,
    startDocker,
    startZfsFuse,
    kill,
    boot,
    async reboot() {
      await kill();
      await boot();
    },
    pluginLog: async () => await readFile(join(disk, 'dockerd.log'), 'utf8'),
    async dispose() {
      await host.kill();
      await rm(disk, { recursive: true });
    },
  };
}

/** Docker's data folder with the test image, the proxy's and the plugin in it, made once: packing their files takes seconds. */
export function ensureGolden(): Promise<string> {
  golden ??= makeGolden();
  return golden;
}

async function makeGolden(): Promise<string> {
  const disk = await mkdtemp(join(tmpdir(), 'flock-golden-'));
  process.once('exit', () => rmSync(disk, { recursive: true, force: true }));
  const host = await startHost('flock-golden', disk);
  await host.startDocker();
  const docker: Docker = { version: '', run: (args) => host.docker(...args) };
  await ensureImage(docker);
  await ensureProxyImage(docker);
  await host.docker('plugin', 'create', pluginReference, pluginDir);
  const [pid] = await host.pids('/usr/sbin/dockerd');
  if (pid !== undefined) process.kill(pid, 'SIGTERM');
  await until('dockerd has stopped', 20_000, async () =>
    (await host.pids('/usr/sbin/dockerd')).length === 0 ? true : undefined,
  );
  await host.kill();
  return join(disk, 'docker');
}

async function failure(promise: Promise<string>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error('the command succeeded, but it should have failed');
}
