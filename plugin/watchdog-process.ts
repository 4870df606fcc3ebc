import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { messageOf } from '../controller/model/errors.ts';
import { hostClock } from './boot-clock.ts';
import type { Commands } from './exec.ts';
import { ownFoldersOf, type Paths } from './paths.ts';

/**
 * Starts the watchdog so that it outlives the plugin: dockerd ends a plugin by killing every process in its control group, so the
 * watchdog is moved out of it; and it lives in mount namespaces of its own, where it gives up all that would keep pools or disks busy.
 * A watchdog that finds another one's pid in its file ends itself, so the youngest one counts.
 */
export async function keepWatchdog(paths: Paths, commands: Commands, signal: AbortSignal, log: Logger): Promise<void> {
  while (!signal.aborted) {
    const child = start(paths);
    const ended = new Promise<string>((resolve) => {
      child.once('exit', (code, by) => resolve(by ?? `status ${code}`));
      child.once('error', (error) => resolve(error.message));
    });
    if (child.pid !== undefined) {
      await leaveControlGroups(child.pid, commands).catch((error: unknown) =>
        log.error(
          { event: 'watchdog.not-independent', reason: messageOf(error) },
          'the watchdog would end with the plugin: volumes are fenced only while the plugin runs or is restarted',
        ),
      );
    }
    const reason = await Promise.race([ended, aborted(signal)]);
    // Left alone when the plugin stops: whoever uses volumes goes on without it.
    if (reason === null) child.unref();
    else log.warn({ event: 'watchdog.ended', reason }, 'the watchdog has ended and is started again');
    await hostClock.sleep(restartMs, signal);
  }
}

const restartMs = 1_000;

function start(paths: Paths): ChildProcess {
  const node = [process.execPath, '--max-semi-space-size=1', '--max-old-space-size=32', paths.watchdog];
  const own = ['unshare', '--mount', '--propagation', 'private', '--', ...node];
  const [file = '', ...args] = [...own, paths.deadlines, ...ownFoldersOf(paths)];
  // The plugin's output ends with the plugin, and a process that writes there dies of it.
  return spawn(file, args, { stdio: 'ignore', detached: true });
}

/** Puts a process into the root group of every hierarchy: cgroups(7), versions 1 and 2. */
async function leaveControlGroups(pid: number, commands: Commands): Promise<void> {
  const lines = (await readFile(`/proc/${pid}/cgroup`, 'utf8')).trim().split('\n');
  const failures: string[] = [];
  for (const line of lines) {
    const [, controllers = '', path = ''] = line.split(':');
    if (path === '/') continue;
    await within(controllers, commands, (root) => writeFile(join(root, 'cgroup.procs'), String(pid))).catch(
      (error: unknown) => failures.push(`${controllers}: ${messageOf(error)}`),
    );
  }
  if (failures.length > 0) throw new Error(failures.join('; '));
}

async function within<T>(controllers: string, commands: Commands, work: (root: string) => Promise<T>): Promise<T> {
  const root = `/run/flock/cgroup-${process.pid}`;
  await mkdir(root, { recursive: true });
  const options = controllers.startsWith('name=') ? `none,${controllers}` : controllers;
  await commands.run(
    'mount',
    controllers === '' ? ['-t', 'cgroup2', 'cgroup2', root] : ['-t', 'cgroup', '-o', options, 'cgroup', root],
  );
  try {
    return await work(root);
  } finally {
    await commands.run('umount', [root]);
    await rmdir(root);
  }
}

function aborted(signal: AbortSignal): Promise<null> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(null);
    else signal.addEventListener('abort', () => resolve(null), { once: true });
  });
}
