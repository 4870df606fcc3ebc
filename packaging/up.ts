/** `make up`: from a bare Debian machine to a working flock. Every step looks first and does only what is missing. */
import { setTimeout as sleep } from 'node:timers/promises';
import { formatSize } from '../controller/model/quantity.ts';
import { CommandError } from '../plugin/exec.ts';
import { prepareBackend } from './backend.ts';
import { type Docker, ensureDocker } from './docker.ts';
import { flockctl, installFlockctl } from './flockctl.ts';
import { proxyRootfsDir, rootfsDir } from './paths.ts';
import { installPlugin } from './plugin.ts';
import { image, prove } from './proof.ts';
import { installProxy } from './proxy.ts';
import { isHealthy, proveProxy } from './proxy-proof.ts';
import { buildProxyRootfs, buildRootfs } from './rootfs.ts';
import { describeSize } from './size.ts';
import { requireRoot, runProgram, say } from './steps.ts';

const poolMsMax = 60_000;

async function up(): Promise<void> {
  requireRoot();
  const { BACKEND: backendName = '', POOL: pool = '', POOL_SIZE: poolSize = '' } = process.env;
  const backend = await prepareBackend({ backend: backendName, pool, poolSize }, (text) => say('backend', text));
  const docker = await ensureDocker((text) => say('docker', text));
  const build = await buildRootfs();
  say('image', `${build.changed ? 'built' : 'up to date'}, ${await describeSize(rootfsDir)}`);
  const { firstSettings, restartPlugin } = backend;
  say('plugin', await installPlugin(docker, build, { firstSettings, restart: restartPlugin }));
  say('flockctl', await installFlockctl(build));
  say('pool', await waitForPool());
  say('proof', await prove(docker));
  await upProxy(docker);
  console.log(`
Try next:
  docker run --rm -v data:/data --volume-driver=flock ${image} sh -c 'date >> /data/log; cat /data/log'
  flockctl snapshot create data before      a point in time to go back to
  flockctl volume ls                        the volumes of this host
  docker volume rm data; flockctl trash ls  removed is not lost: flockctl trash restore data
  make down                                 takes the plugin away and leaves the data`);
}

async function upProxy(docker: Docker): Promise<void> {
  const { PROXY: proxy = '' } = process.env;
  if (!['', 'on', 'off'].includes(proxy)) throw new Error(`PROXY=${proxy}: give off, or leave it out`);
  if (proxy === 'off') return say('proxy', 'left as it is, as PROXY=off says: a later "make up" starts it');
  const { changed } = await buildProxyRootfs();
  say('image', `of the proxy ${changed ? 'built' : 'up to date'}, ${await describeSize(proxyRootfsDir)}`);
  say('proxy', await installProxy(docker, isHealthy));
  say('proof', await proveProxy(docker));
}

type Pool = {
  readonly name: string;
  readonly backend: string;
  readonly state: string;
  readonly message: string | null;
  readonly sizeBytes: number | null;
  readonly freeBytes: number | null;
  readonly volumes: number;
};

/** The plugin makes or opens its pool after it has begun to answer. */
async function waitForPool(): Promise<string> {
  const end = performance.now() + poolMsMax;
  for (;;) {
    const problem = await poolProblem();
    if (typeof problem !== 'string') {
      const { name, sizeBytes, freeBytes, volumes } = problem;
      return `${name}: ${formatSize(sizeBytes ?? 0)}, ${formatSize(freeBytes ?? 0)} free, ${volumes} volumes`;
    }
    if (performance.now() > end)
      throw new Error(
        `the plugin runs, but has no pool after ${poolMsMax / 1000} s: ${problem}. It says why in Docker's log (journalctl -u docker, or /var/log/dockerd.log), in lines with "plugin="`,
      );
    await sleep(200);
  }
}

async function poolProblem(): Promise<Pool | string> {
  try {
    const pool = (await flockctl('df')) as Pool;
    return pool.state === 'online' ? pool : `pool ${pool.name} is ${pool.state}: ${pool.message ?? 'no reason given'}`;
  } catch (error) {
    if (error instanceof CommandError) return error.stderr.trim() || error.message;
    throw error;
  }
}

await runProgram(up);
