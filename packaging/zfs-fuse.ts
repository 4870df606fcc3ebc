/**
 * The zfs-fuse daemon of this host, for hosts without the OpenZFS module. It runs on the host and not in the plugin, because its
 * file systems, and the containers that use them, would die with the plugin.
 */
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { CommandError, createCommands } from '../plugin/exec.ts';
import { mountedAt, readMountTable } from '../plugin/mount-table.ts';
import { hasSystemd, startDetached, startUnit } from './daemon.ts';
import { ensureInstalled, installedVersion } from './debian.ts';
import { host } from './paths.ts';

const commands = createCommands();
const pidFile = '/run/zfs-fuse.pid';
const logFile = '/var/log/zfs-fuse.log';
const readyMsMax = 30_000;

/** Installs and starts the daemon where that is needed. Answers whether a plugin that runs already must be started again. */
export async function ensureZfsFuse(say: (text: string) => void): Promise<{ readonly restartPlugin: boolean }> {
  // apt would remove OpenZFS's commands to make room for zfs-fuse's.
  if ((await installedVersion('zfsutils-linux')) !== null) {
    throw new Error(
      'zfsutils-linux is installed but there is no /dev/zfs: load its module (modprobe zfs; package zfs-dkms has it), remove zfsutils-linux to use zfs-fuse instead, or use BACKEND=btrfs',
    );
  }
  const installed = await ensureInstalled(['zfs-fuse']);
  const restartPlugin = await shareMountFolder();
  if (await answers()) {
    say('zfs-fuse is running');
    return { restartPlugin };
  }
  await loadModule('fuse');
  if (!existsSync('/dev/fuse')) throw new Error('this kernel has no FUSE, so zfs-fuse can not work: use BACKEND=btrfs');
  await mkdir('/run/zfs', { recursive: true });
  if (hasSystemd()) await startUnit('zfs-fuse.service');
  else await startByHand();
  say(`zfs-fuse ${installed.length === 0 ? '' : 'installed and '}started${hasSystemd() ? '' : `: log in ${logFile}`}`);
  return { restartPlugin };
}

/** Loads a kernel module if there is one; without one, or without modprobe, the kernel may still have it built in. */
export async function loadModule(name: string): Promise<void> {
  try {
    await commands.run('modprobe', [name]);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
  }
}

async function answers(): Promise<boolean> {
  try {
    await commands.run('zpool', ['list', '-H'], { timeoutMs: 10_000 });
    return true;
  } catch (error) {
    if (error instanceof CommandError) return false;
    throw error;
  }
}

/** As Debian's init script starts it, except that a machine may not allow its root to protect or to favour a process. */
async function startByHand(): Promise<void> {
  const wrappers = await allowed([
    // Every container's files hang on this daemon, so it must be the last one to go when memory is short.
    ['choom', '-n', '-1000', '--'],
    ['prlimit', '--memlock=unlimited', '--'],
  ]);
  const [file = 'zfs-fuse', ...args] = [...wrappers.flat(), 'zfs-fuse', '--no-daemon', '--no-kstat-mount'];
  try {
    await startDetached({ file, args, logFile, pidFile, isReady: answers, readyMsMax });
  } catch (cause) {
    throw new Error('zfs-fuse did not start. It says why in the system log only; often another one runs already', {
      cause,
    });
  }
}

async function allowed(wrappers: readonly (readonly string[])[]): Promise<readonly (readonly string[])[]> {
  const works = async ([file = '', ...args]: readonly string[]) => {
    try {
      await commands.run(file, [...args, 'true']);
      return true;
    } catch (error) {
      if (error instanceof CommandError) return false;
      throw error;
    }
  };
  const found = await Promise.all(wrappers.map(works));
  return wrappers.filter((_, index) => found[index]);
}

/**
 * What the daemon mounts must be seen by a plugin that runs already. runc cuts the plugin's view of a file system off from the
 * host's, but not that of another one mounted below it: so the folder is made a mount of its own, with propagation.
 */
async function shareMountFolder(): Promise<boolean> {
  const { mountFolder } = host;
  if (mountedAt(await readMountTable(), mountFolder) !== null) return false;
  await mkdir(mountFolder, { recursive: true });
  if (hasSystemd()) {
    const unit = 'var-lib-flock-mnt.mount';
    await writeFile(`/etc/systemd/system/${unit}`, mountUnit);
    await commands.run('systemctl', ['daemon-reload'], { timeoutMs: 60_000 });
    await startUnit(unit);
  } else {
    await commands.run('mount', ['--bind', mountFolder, mountFolder]);
  }
  // Private first: as a peer of the file system it comes from, everything in it would be mounted twice.
  await commands.run('mount', ['--make-private', mountFolder]);
  await commands.run('mount', ['--make-shared', mountFolder]);
  return true;
}

const mountUnit = `# Written by flock's "make up BACKEND=zfs": the folder where zfs-fuse mounts volumes, shared with the plugin.
[Unit]
Before=docker.service zfs-fuse.service
DefaultDependencies=no
RequiresMountsFor=/var/lib

[Mount]
What=${host.mountFolder}
Where=${host.mountFolder}
Type=none
Options=bind

[Install]
WantedBy=local-fs.target
`;
