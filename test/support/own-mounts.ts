import { readlinkSync } from 'node:fs';

/**
 * Starts this process anew in a mount name space of its own, unless it has one that its parent does not share. Others on this machine make name spaces too (test
 * hosts, containers), and each of those would get a copy of our mounts at that moment and keep them alive: "dataset is busy".
 * And whatever a killed test run leaves mounted is gone with it. To be called before anything is started or printed.
 */
export function enterOwnMounts(): void {
  // A worker of another process must stay the one that its parent talks to.
  if (process.getuid?.() !== 0 || process.send !== undefined || process.execve === undefined) return;
  // The first process of a pid name space, as test/run.ts makes it, has mounts of its own.
  if (process.ppid === 0) return;
  // The parent stays the same, so this is true once at most.
  if (mountSpaceOf(process.pid) !== mountSpaceOf(process.ppid)) return;
  const command = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  process.execve('/usr/bin/unshare', ['unshare', '--mount', '--propagation', 'slave', '--', ...command]);
}

function mountSpaceOf(pid: number): string {
  return readlinkSync(`/proc/${pid}/ns/mnt`);
}
