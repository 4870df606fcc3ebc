/**
 * A private zfs-fuse for tests, set up like a host with the plugin: the daemon runs in a mount name space of its own ("the host"),
 * the tests in theirs ("the plugin"), and what the daemon mounts below the shared folder comes to the tests, but nothing goes back.
 * Its socket, its cache file and its lock file (a second daemon ends with status 1 and no word) have fixed paths, so each daemon sees
 * folders of its own there; daemons do not disturb each other. Callers should be in a mount name space of their own
 * (own-mounts.ts).
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readMountTable } from '../../plugin/mount-table.ts';
import type { ZfsConfig } from '../../plugin/storage/zfs/zfs.ts';
import { until } from './until.ts';

export type ZfsFuse = {
  readonly config: ZfsConfig;
  /** Everything is below it: the pool's file, the mount points, the daemon's log. */
  readonly folder: string;
  /** Runs the zfs or zpool of this daemon. */
  zfs(...args: readonly string[]): Promise<string>;
  zpool(...args: readonly string[]): Promise<string>;
  /** As a crash: mounts stay behind, dead, on the host and here. */
  killDaemon(): Promise<void>;
  startDaemon(): Promise<void>;
  signalDaemon(signal: NodeJS.Signals): void;
  /** Removes all of it. */
  stop(): Promise<void>;
};

export type ZfsFuseOptions = {
  /** Whether to make the pool and its prefix; otherwise that is left to `makePool`. */
  readonly pool?: boolean;
  readonly poolBytes?: number;
};

const run = promisify(execFile);
const startMsMax = 20_000;

/** Why zfs-fuse can't be used here, or null. */
export function whyNoZfsFuse(): string | null {
  if (process.getuid?.() !== 0) return 'needs root';
  const missing = ['/dev/fuse', '/sbin/zfs-fuse', '/sbin/zfs', '/sbin/zpool'].find((path) => !existsSync(path));
  return missing === undefined ? null : `needs ${missing} (apt-get install zfs-fuse)`;
}

export async function startZfsFuse(options: ZfsFuseOptions = {}): Promise<ZfsFuse> {
  const folder = await mkdtemp(join(tmpdir(), 'flock-zfs-fuse-'));
  const at = (name: string) => join(folder, name);
  for (const name of ['run', 'lib', 'lock', 'daemon', 'volumes', 'pool', 'bin']) await mkdir(at(name));
  // Mount points for the daemon's own folders; the daemon would make the first one too.
  for (const path of ['/run/zfs', '/var/lib/zfs', '/run/lock/zfs']) await mkdir(path, { recursive: true });
  await run('mount', ['--bind', folder, folder]);
  await run('mount', ['--make-private', folder]);
  await run('mount', ['--make-shared', folder]);

  const host = await startHost(folder);
  // From here on what we unmount stays mounted on the host, as with the rslave mount of a plugin. Shared again for the tools.
  await run('mount', ['--make-slave', folder]);
  await run('mount', ['--make-shared', folder]);

  const tools = { zfs: at('bin/zfs'), zpool: at('bin/zpool'), mount: 'mount', umount: 'umount' };
  await writeTool(tools.zfs, '/sbin/zfs', at('run'));
  await writeTool(tools.zpool, '/sbin/zpool', at('run'));
  const zfs = async (...args: readonly string[]) => (await run(tools.zfs, args)).stdout;
  const zpool = async (...args: readonly string[]) => (await run(tools.zpool, args)).stdout;

  let daemon: ChildProcess | null = null;
  const startDaemon = async () => {
    const pid = String(host.pid);
    const command = ['setpriv', '--pdeathsig', 'KILL', '/sbin/zfs-fuse', '--no-daemon', '--no-kstat-mount'];
    const started = spawn('nsenter', ['-t', pid, '-m', '--', ...command], { stdio: 'ignore' });
    daemon = started;
    await until('zfs-fuse answers', startMsMax, async () => {
      if (started.exitCode !== null) throw new Error(`zfs-fuse ended with status ${started.exitCode}`);
      return await zpool('list').catch(() => undefined);
    });
  };
  const killDaemon = async () => {
    if (daemon !== null) await end(daemon);
    daemon = null;
  };

  const stop = async () => {
    // A stopped daemon could not be asked to let go of its mounts; a dead one is not asked.
    await killDaemon();
    await end(host);
    await unmountAll(folder);
    await rm(folder, { recursive: true, force: true });
  };

  const config: ZfsConfig = {
    prefix: 'flock/volumes',
    poolFile: at('pool/pool.zfs'),
    mountRoot: at('volumes'),
    daemonMountRoot: at('daemon'),
    variant: 'zfs-fuse',
    tools,
  };
  const fuse: ZfsFuse = {
    config,
    folder,
    zfs,
    zpool,
    killDaemon,
    startDaemon,
    signalDaemon: (signal) => void daemon?.kill(signal),
    stop,
  };
  try {
    await startDaemon();
    if (options.pool !== false) {
      const file = at('pool/pool.zfs');
      await run('truncate', ['-s', String(options.poolBytes ?? 512 * 1024 * 1024), file]);
      await zpool('create', '-o', 'cachefile=none', '-O', 'mountpoint=none', 'flock', file);
      await zfs('create', '-o', 'canmount=off', '-o', 'mountpoint=none', config.prefix);
    }
    return fuse;
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A process that keeps the daemon's mount name space alive when the daemon is killed. */
async function startHost(folder: string): Promise<ChildProcess> {
  const script = `
    set -e
    for place in /run /run/lock /var/lib; do mount --make-private "$(findmnt -n -o TARGET -T $place)"; done
    mount --bind ${folder}/run /run/zfs
    mount --bind ${folder}/lib /var/lib/zfs
    mount --bind ${folder}/lock /run/lock/zfs
    echo ready
    exec sleep infinity`;
  const args = ['--mount', '--propagation', 'unchanged', '--', 'setpriv', '--pdeathsig', 'KILL', 'sh', '-c', script];
  const host = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    host.stdout?.once('data', () => resolve());
    host.once('error', reject);
    host.once('exit', (code) => reject(new Error(`the host's mount name space ended with status ${code}`)));
  });
  return host;
}

/** The tool in a name space like ours, but with this daemon's socket at the fixed path. */
async function writeTool(path: string, tool: string, runFolder: string): Promise<void> {
  const { stdout } = await run('findmnt', ['-n', '-o', 'TARGET', '-T', '/run']);
  const inside = `mount --make-private ${stdout.trim()} && mount --bind ${runFolder} /run/zfs && exec ${tool} "$@"`;
  const text = `#!/bin/sh\nexec unshare --mount --propagation unchanged -- sh -c '${inside}' ${tool} "$@"\n`;
  await writeFile(path, text);
  await chmod(path, 0o755);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
}

async function unmountAll(folder: string): Promise<void> {
  const inside = (place: string) => place === folder || place.startsWith(`${folder}/`);
  for (let rounds = 0; rounds < 10_000; rounds += 1) {
    const entry = (await readMountTable()).findLast(({ mountPoint }) => inside(mountPoint));
    if (entry === undefined) return;
    await run('umount', ['-l', entry.mountPoint]);
  }
  throw new Error(`${folder} is still mounted`);
}
