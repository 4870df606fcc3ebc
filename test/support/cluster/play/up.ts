/** `make cluster [HOSTS=3] [BACKEND=btrfs|zfs]`: a cluster of hosts on this machine that goes on in the background. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { startDetached } from '../../../../packaging/daemon.ts';
import { ensureInstalled } from '../../../../packaging/debian.ts';
import { nodeBinary } from '../../../../packaging/paths.ts';
import { buildProxyRootfs, buildRootfs } from '../../../../packaging/rootfs.ts';
import { requireRoot, runProgram } from '../../../../packaging/steps.ts';
import { clusterPackages } from '../../packages.ts';
import { endCluster } from './down.ts';
import { findKeeper, keeperProgram, place } from './place.ts';

const readyMsMax = 240_000;

async function up(): Promise<void> {
  requireRoot();
  const { HOSTS: hosts = '', BACKEND: backend = '' } = process.env;
  if (!/^[1-5]?$/.test(hosts)) throw new Error(`HOSTS=${hosts}: give a number from 1 to 5`);
  if (!['', 'btrfs', 'zfs'].includes(backend)) throw new Error(`BACKEND=${backend}: give btrfs or zfs`);
  if ((await findKeeper()) !== null) {
    const reach = await readFile(place.ready, 'utf8').catch(() => 'It is still starting.\n');
    throw new Error(`a cluster runs already; "make cluster-down" ends it.\n\n${reach}`);
  }
  await ensureInstalled(clusterPackages);
  await buildRootfs();
  await buildProxyRootfs();
  // What a machine that went down left of one.
  await rm(place.folder, { recursive: true, force: true });
  await mkdir(place.temporary, { recursive: true });
  try {
    await startDetached({
      file: nodeBinary,
      args: [keeperProgram, hosts || '3', backend || 'btrfs'],
      logFile: place.log,
      pidFile: place.pid,
      isReady: () => Promise.resolve(existsSync(place.ready)),
      readyMsMax,
    });
  } catch (error) {
    await endCluster();
    throw error;
  }
  console.log(await readFile(place.ready, 'utf8'));
}

await runProgram(up);
