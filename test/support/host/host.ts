import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, open, readdir, readFile, readlink, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { createCommands } from '../../../plugin/exec.ts';
import { until } from '../until.ts';

/**
 * A whole host on this machine: its own mount, process, network, hostname and IPC namespaces, with every path where a real host has
 * it. Its disk state (Docker, flock, zfs-fuse's cache) is in `disk` and outlives it, so that killing and starting it again is a
 * reboot.
 */
export type Host = {
  readonly name: string;
  readonly disk: string;
  /** The host's first process, as this machine sees it. */
  readonly pid: number;
  /** Runs a command on the host and answers its stdout. */
  run(file: string, args: readonly string[], timeoutMs?: number): Promise<string>;
  docker(...args: readonly string[]): Promise<string>;
  /** Starts a daemon there that outlives the call; answers its pid on this machine. Its output goes to `disk/NAME.log`. */
  daemon(name: string, file: string, args: readonly string[]): Promise<number>;
  startDocker(options?: readonly string[]): Promise<void>;
  /** Processes of the host whose command line starts with this, as this machine sees them. */
  pids(commandPrefix: string): Promise<readonly number[]>;
  /** Stops every process of the host but its first, containers and daemons included, as if the machine hung. Ends with `thaw` or `kill`. */
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** Kills everything at once and waits until it is gone: a power cut for processes, not for disks. May be repeated. */
  kill(): Promise<void>;
};

const dockerBinary = '/usr/bin/docker';
const dockerd = '/usr/sbin/dockerd';

export async function startHost(name: string, disk: string): Promise<Host> {
  await mkdir(disk, { recursive: true });
  // Its own, because commands on a frozen host hang, and each set has a limit of how many run.
  const commands = createCommands();
  const cgroup = cgroupOf(disk);
  const log = await open(join(disk, 'host.log'), 'a');
  const flags = ['--mount', '--pid', '--net', '--uts', '--ipc', '--fork', '--kill-child'];
  // A host does not outlive who started it, however that ends.
  const command = [
    '--pdeathsig',
    'KILL',
    'unshare',
    ...flags,
    'bash',
    join(import.meta.dirname, 'init.sh'),
    disk,
    name,
  ];
  const parent = spawn('setpriv', command, { stdio: ['ignore', log.fd, log.fd] });
  const exited = new Promise<void>((resolve) => parent.once('exit', () => resolve()));
  await log.close();
  const pid = await firstProcess(parent, disk);

  const enter = ['-t', String(pid), '-m', '-n', '-p', '-u', '-i', '--'];
  const run: Host['run'] = (file, args, timeoutMs = 60_000) =>
    commands.run('nsenter', [...enter, file, ...args], { timeoutMs });
  const docker: Host['docker'] = (...args) =>
    commands.run(dockerBinary, ['-H', `unix:///proc/${pid}/root/run/docker.sock`, ...args], { timeoutMs: 180_000 });

  async function daemon(label: string, file: string, args: readonly string[]): Promise<number> {
    const output = await open(join(disk, `${label}.log`), 'a');
    // setsid -f: without it the nsenter outside would be the daemon's parent and keep its zombie.
    const child = spawn('nsenter', [...enter, 'setsid', '-f', file, ...args], {
      stdio: ['ignore', output.fd, output.fd],
    });
    await new Promise((resolve) => child.once('exit', resolve));
    await output.close();
    return await until(`${file} runs on ${name}`, 10_000, async () => (await pidsOf(pid, file)).at(-1));
  }

  /** kill(-1) in the host's process namespace reaches all in it and below but its first process and the caller. */
  const signalAll = async (signal: 'STOP' | 'CONT') =>
    void (await commands.run('nsenter', ['-t', String(pid), '-p', '--', 'bash', '-c', `kill -${signal} -1`]));

  return {
    name,
    disk,
    pid,
    run,
    docker,
    daemon,
    pids: (prefix) => pidsOf(pid, prefix),
    async startDocker(options = []) {
      await run('rm', ['-f', '/run/docker.pid']);
      await daemon('dockerd', dockerd, ['--storage-driver', 'overlay2', '--cgroup-parent', `/${cgroup}`, ...options]);
      await until(`Docker answers on ${name}`, 60_000, () => docker('version').catch(() => undefined));
    },
    freeze: () => signalAll('STOP'),
    thaw: () => signalAll('CONT'),
    async kill() {
      if (parent.exitCode === null && parent.signalCode === null) process.kill(pid, 'SIGKILL');
      await exited;
      await until(`every process of ${name} is gone`, 20_000, async () =>
        (await pidsOf(pid, '')).length === 0 ? true : undefined,
      );
      await removeCgroups(disk);
    },
  };
}

/** The parent of the groups of a host's containers. */
function cgroupOf(disk: string): string {
  return `flock-test/${basename(disk)}`;
}

/** Killed daemons leave the groups of their containers behind, one tree for each controller; for a host that does not run. */
export async function removeCgroups(disk: string): Promise<void> {
  const root = '/sys/fs/cgroup';
  const cgroup = cgroupOf(disk);
  const trees = [root, ...(await readdir(root, { withFileTypes: true })).map(({ name }) => join(root, name))];
  for (const tree of trees) {
    const top = join(tree, cgroup);
    const below = await readdir(top, { recursive: true, withFileTypes: true }).catch(() => []);
    const groups = below.filter((entry) => entry.isDirectory()).map(({ parentPath, name }) => join(parentPath, name));
    // The longest path first is the deepest. Links lead to some trees twice, and what a dying process holds stays: it does no harm.
    for (const group of [top, ...groups].sort((a, b) => b.length - a.length)) await rmdir(group).catch(() => {});
  }
}

/** init.sh has become tini when all mounts are made. */
async function firstProcess(parent: ChildProcess, disk: string): Promise<number> {
  return await until('the host has started', 15_000, async () => {
    if (parent.exitCode !== null)
      throw new Error(`the host ended at once: ${await readFile(join(disk, 'host.log'), 'utf8')}`);
    const children = await readFile(`/proc/${parent.pid}/task/${parent.pid}/children`, 'utf8').catch(() => '');
    const pid = Number(children.trim().split(' ')[0]);
    if (!Number.isInteger(pid) || pid === 0) return undefined;
    const command = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
    return command.trim() === 'tini' ? pid : undefined;
  });
}

/** Members of the host's pid namespace, by what they were started as. After the first process has died the kernel kills the others. */
async function pidsOf(hostPid: number, prefix: string): Promise<readonly number[]> {
  const namespace = await readlink(`/proc/${hostPid}/ns/pid`).catch(() => null);
  if (namespace === null) return [];
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name) || (await readlink(`/proc/${name}/ns/pid`).catch(() => null)) !== namespace) continue;
    const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (command.replaceAll('\0', ' ').startsWith(prefix)) found.push(Number(name));
  }
  return found;
}
