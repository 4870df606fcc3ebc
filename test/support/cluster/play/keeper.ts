/** `keeper.ts COUNT BACKEND`: the process that has the cluster of `make cluster`, until it is told to end. */
import { chmod, copyFile, mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ensureConsul } from '../../../../packaging/consul.ts';
import { nodeBinary, repository } from '../../../../packaging/paths.ts';
import { image } from '../../../../packaging/proof.ts';
import { runProgram } from '../../../../packaging/steps.ts';
import { type Cluster, startCluster } from '../cluster.ts';
import { faultUsage, serveControl } from './control.ts';
import { place } from './place.ts';

async function keep([count, backend]: readonly string[]): Promise<void> {
  if (backend !== 'btrfs' && backend !== 'zfs') throw new Error('usage: keeper.ts COUNT btrfs|zfs');
  // Where the data folder that all hosts' Dockers start from is made.
  process.env['TMPDIR'] = place.temporary;
  const ended = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
  await writePrograms();
  const profile = 'default';
  const options = { count: Number(count), backend, profile, folder: place.hosts, proxy: true } as const;
  const cluster = await startCluster({ ...options, join: false });
  try {
    await cluster.network.openLeg();
    const problem = await cluster.join().then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    const control = await serveControl(cluster, place.control);
    await writeFile(`${place.ready}.new`, describe(cluster, problem));
    await rename(`${place.ready}.new`, place.ready);
    await ended;
    control.close();
  } finally {
    await cluster.dispose();
  }
}

async function writePrograms(): Promise<void> {
  await mkdir(place.programs, { recursive: true });
  const script = (file: string) => `#!/bin/sh\nexec ${nodeBinary} ${join(repository, file)} "$@"\n`;
  await writeFile(join(place.programs, 'flockctl'), script('controller/cli/main.ts'));
  await writeFile(place.fault, script('test/support/cluster/play/fault.ts'));
  await copyFile(join(import.meta.dirname, 'on.sh'), place.on);
  for (const file of [join(place.programs, 'flockctl'), place.fault, place.on]) await chmod(file, 0o755);
  await symlink(await ensureConsul(), join(place.programs, 'consul'));
  // A client that came first on the PATH might be too new for Debian's daemon.
  await symlink('/usr/bin/docker', join(place.programs, 'docker'));
}

function describe(cluster: Cluster, problem: string | null): string {
  const hosts = cluster.hosts.map(
    ({ number, name, address, dockerUrl }) => `  ${number}  ${name}  ${address}  export DOCKER_HOST=${dockerUrl}`,
  );
  const joined =
    problem === null ? 'They are one flock cluster.' : `They are no flock cluster, because:\n  ${problem.trim()}`;
  return `${cluster.hosts.length} hosts with Docker, flock on ${cluster.backend}, its proxy, and Consul; this machine reaches their addresses:
${hosts.join('\n')}
${joined}

On a host:
  ${place.on} 1 docker run --rm -v data:/data --volume-driver=flock ${image} sh -c 'date >> /data/log; cat /data/log'
  ${place.on} 2 flockctl volume ls
  ${place.on} 3 consul members
  ${place.on} 1                        a shell
Break and mend it:
${faultUsage(place.fault)}
make cluster-down ends it and removes its disks. Its log: ${place.log}
`;
}

await runProgram(() => keep(process.argv.slice(2)));
process.exit();
