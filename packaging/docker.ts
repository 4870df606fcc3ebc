import { existsSync } from 'node:fs';
import { CommandError, createCommands, type RunOptions } from '../plugin/exec.ts';
import { hasSystemd, startDetached, startUnit, waitUntil } from './daemon.ts';
import { ensureInstalled } from './debian.ts';

/** A docker client that has an answer from a daemon. */
export type Docker = {
  /** Runs `docker ARGS` and answers its stdout. Throws CommandError. */
  run(args: readonly string[], options?: RunOptions): Promise<string>;
  /** "20.10.24, client 28.2.2" */
  readonly version: string;
};

const commands = createCommands();
const daemonReadyMsMax = 60_000;
const logFile = '/var/log/dockerd.log';
/** A client without a daemon may come first on the PATH (and be too old or too new for this daemon), so more than one is tried. */
const clients = ['docker', '/usr/bin/docker', '/usr/local/bin/docker'];

/** The running daemon by the first client that can talk to it, or null when no daemon answers. */
export async function findDocker(): Promise<Docker | null> {
  for (const client of clients) {
    const version = await serverVersion(client);
    if (version !== null) {
      return { version, run: (args, options = {}) => commands.run(client, args, { timeoutMs: 120_000, ...options }) };
    }
  }
  return null;
}

/** As findDocker, for programs that can't go on without. */
export async function requireDocker(): Promise<Docker> {
  const docker = await findDocker();
  if (docker !== null) return docker;
  throw new Error('no Docker daemon answers: start it, or let `make up` do it');
}

/** The running daemon; without one, Debian's is installed if there is none and started. Says what it did. */
export async function ensureDocker(say: (text: string) => void): Promise<Docker> {
  const running = await findDocker();
  if (running !== null) {
    say(`${running.version}, already running`);
    return running;
  }
  const { DOCKER_HOST: dockerHost } = process.env;
  if (dockerHost !== undefined && dockerHost !== '') {
    throw new Error(`no Docker daemon answers at DOCKER_HOST=${dockerHost}: unset it to use this machine's own`);
  }
  const installed = existsSync('/usr/bin/dockerd') || existsSync('/usr/sbin/dockerd');
  if (!installed) await ensureInstalled(['docker.io']);
  if (hasSystemd()) await startUnit('docker.service');
  else await startByHand();
  await waitUntil(async () => (await findDocker()) !== null, daemonReadyMsMax);
  const docker = await requireDocker();
  say(
    `${docker.version}, ${installed ? '' : 'installed and '}started${hasSystemd() ? ' by systemd' : `: log in ${logFile}`}`,
  );
  return docker;
}

/** Docker's data folder, below which plugins have their root file systems. */
export async function dockerRoot(docker: Docker): Promise<string> {
  return docker.run(['info', '--format', '{{.DockerRootDir}}']);
}

async function startByHand(): Promise<void> {
  if (!(await isMountPoint('/sys/fs/cgroup'))) {
    await commands.run('mount', ['-t', 'cgroup2', 'cgroup2', '/sys/fs/cgroup']);
  }
  // systemd does this at boot. Without it nothing that the host mounts later is seen in a running container or plugin.
  await commands.run('mount', ['--make-rshared', '/']);
  await startDetached({
    file: 'dockerd',
    args: [],
    logFile,
    isReady: async () => (await findDocker()) !== null,
    readyMsMax: daemonReadyMsMax,
  });
}

async function isMountPoint(path: string): Promise<boolean> {
  try {
    await commands.run('mountpoint', ['-q', path]);
    return true;
  } catch (error) {
    if (error instanceof CommandError && error.exitCode !== null) return false;
    throw error;
  }
}

async function serverVersion(client: string): Promise<string | null> {
  try {
    return await commands.run(client, ['version', '--format', '{{.Server.Version}}, client {{.Client.Version}}'], {
      timeoutMs: 20_000,
    });
  } catch (error) {
    // No such client, no daemon, or an API that one of them doesn't speak: all mean "not with this client".
    if (error instanceof CommandError) return null;
    throw error;
  }
}
