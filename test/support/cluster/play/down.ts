/** `make cluster-down`: ends the cluster of `make cluster` and removes its disks. */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { waitUntil } from '../../../../packaging/daemon.ts';
import { requireRoot, runProgram } from '../../../../packaging/steps.ts';
import { removeCgroups } from '../../host/host.ts';
import { findKeeper, place } from './place.ts';

const endMsMax = 60_000;

const disks = [1, 2, 3, 4, 5].map((number) => join(place.hosts, `n${number}`));
const diskSuffixLength = '/build/cluster/hosts/n1'.length;

/** Answers whether there was one. */
export async function endCluster(): Promise<boolean> {
  const pid = await findKeeper();
  const keeperGone = async () => (await findKeeper()) === null;
  if (pid !== null) {
    process.kill(pid, 'SIGTERM');
    if (!(await waitUntil(keeperGone, endMsMax))) process.kill(pid, 'SIGKILL');
  }
  // Its hosts end with it, however it ends, but not at once.
  const over = async () => (await keeperGone()) && !(await anyHostUp());
  if (!(await waitUntil(over, endMsMax))) throw new Error(`the cluster's processes do not end: see ${place.log}`);
  for (const disk of disks) await removeCgroups(disk);
  await rm(place.folder, { recursive: true, force: true });
  return pid !== null;
}

async function anyHostUp(): Promise<boolean> {
  for (const disk of disks) {
    const pid = Number(await readFile(join(disk, 'pid'), 'utf8').catch(() => ''));
    const mounts = pid > 0 ? await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '') : '';
    // The number may be another process's by now; the paths there begin where their file system does.
    if (mounts.includes(`${disk.slice(-diskSuffixLength)}/docker `)) return true;
  }
  return false;
}

if (import.meta.main) {
  await runProgram(async () => {
    requireRoot();
    console.log((await endCluster()) ? 'the cluster is gone, with its disks' : 'no cluster runs');
  });
}
