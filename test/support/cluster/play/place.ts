import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildDir } from '../../../../packaging/paths.ts';

/** Where the cluster of `make cluster` is: state, disks and the commands for people. */
const folder = join(buildDir, 'cluster');

export const place = {
  folder,
  /** One folder for each host. */
  hosts: join(folder, 'hosts'),
  /** The temporary files of its keeper. */
  temporary: join(folder, 'tmp'),
  /** First on the PATH of commands on a host. */
  programs: join(folder, 'bin'),
  log: join(folder, 'cluster.log'),
  pid: join(folder, 'pid'),
  /** Written when the cluster is ready: how to reach it. */
  ready: join(folder, 'ready'),
  /** Runs a command on a host. */
  on: join(folder, 'on'),
  /** Breaks things. */
  fault: join(folder, 'fault'),
  control: join(folder, 'control.sock'),
} as const;

export const keeperProgram = join(import.meta.dirname, 'keeper.ts');

/** The process that has the cluster, or null when none runs. */
export async function findKeeper(): Promise<number | null> {
  const pid = Number(await readFile(place.pid, 'utf8').catch(() => ''));
  if (!Number.isInteger(pid) || pid <= 0) return null;
  // The number may be another process's by now.
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return command.split('\0').includes(keeperProgram) ? pid : null;
}
