/** The proxy and the controller on a Docker daemon: their image, and its three containers. */

import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { webPorts } from '../controller/model/host-ports.ts';
import { CommandError, createCommands } from '../plugin/exec.ts';
import { waitUntil } from './daemon.ts';
import type { Docker } from './docker.ts';
import { proxyEntrypoint } from './images.ts';
import { proxyRootfsDir } from './paths.ts';
import { type ContainerPlan, containerPlans, labels, removalArgs } from './proxy-containers.ts';
import { type Build, describeBuild, readBuild, versionFile } from './rootfs.ts';
import { fetchPackages } from './tools.ts';

const commands = createCommands();
const importMsMax = 300_000;
const healthyMsMax = 30_000;
/** A HAProxy that can't use its configuration ends well within this time. */
const haproxyStartMs = 1_000;

/** Where the programs of this repository's last build say how they are, on the host's loopback address: GET /healthz. */
const healthPorts = { proxy: webPorts.proxy, controller: webPorts.controller };

/**
 * Makes the proxy of build/proxy-rootfs the one that runs. What is as it should be is left alone; HAProxy's container is replaced
 * only if HAProxy itself has changed. `isHealthy` asks a port of the host's own loopback address. Answers what was done.
 */
export async function installProxy(docker: Docker, isHealthy: (port: number) => Promise<boolean>): Promise<string> {
  const build = await builtProxy();
  const image = await ensureProxyImage(docker);
  const parts = {
    image,
    digests: { proxy: build.digest, haproxy: await haproxyDigest(), controller: build.digest },
    clientMajor: await clientMajor(docker),
  };
  const done: string[] = [];
  for (const plan of containerPlans(parts, sha256)) done.push(`${plan.name} ${await ensureContainer(docker, plan)}`);
  for (const [program, port] of Object.entries(healthPorts))
    if (!(await waitUntil(() => isHealthy(port), healthyMsMax)))
      throw new Error(
        `the ${program} runs, but http://127.0.0.1:${port}/healthz says that it is not well after ${healthyMsMax / 1000} s: "docker logs flock-${program}" says why`,
      );
  await removeOldImages(docker, build.digest);
  return `${describeBuild(build)}: ${done.join(', ')}`;
}

/**
 * Takes the containers, what they have made on the host, and their images away; what people have made stays in /var/lib/flock.
 * Answers what could not be done; null when there was nothing.
 */
export async function removeProxy(docker: Docker): Promise<readonly string[] | null> {
  const containers = await containersOf(docker);
  const image =
    containers.length === 0 ? null : await docker.run(['inspect', '-f', '{{.Image}}', containers[0]?.id ?? '']);
  // The proxy before its HAProxy, so that it doesn't see that go.
  for (const program of ['controller', 'proxy', 'haproxy'])
    for (const container of containers.filter((each) => each.program === program))
      await docker.run(['rm', '-f', container.id]);
  const problems: string[] = [];
  if (image !== null)
    await docker.run(['run', ...removalArgs(image, await clientMajor(docker))]).catch((error: unknown) => {
      if (!(error instanceof CommandError)) throw error;
      problems.push(error.stderr.trim());
    });
  await removeOldImages(docker, null);
  return image === null ? null : problems;
}

async function clientMajor(docker: Docker): Promise<number> {
  return Number.parseInt(await docker.run(['version', '--format', '{{.Client.Version}}']), 10);
}

/** Gives Docker the image, unless it has it. Answers its name. */
export async function ensureProxyImage(docker: Docker): Promise<string> {
  const build = await builtProxy();
  const image = `flock/proxy:${build.version}`;
  if ((await imageDigest(docker, image)) === build.digest) return image;
  const archive = `${proxyRootfsDir}.tar`;
  try {
    await commands.run('tar', ['-C', proxyRootfsDir, '--owner=0', '--group=0', '-cf', archive, '.'], {
      timeoutMs: importMsMax,
    });
    const changes = [
      `LABEL ${labels.build}=${build.digest}`,
      'ENV PATH=/usr/sbin:/usr/bin LC_ALL=C',
      `ENTRYPOINT ${JSON.stringify(proxyEntrypoint)}`,
      'CMD ["/flock/proxy.js"]',
    ];
    await docker.run(['import', ...changes.flatMap((change) => ['--change', change]), archive, image], {
      timeoutMs: importMsMax,
    });
  } finally {
    await rm(archive, { force: true });
  }
  return image;
}

async function builtProxy(): Promise<Build> {
  const build = await readBuild(join(proxyRootfsDir, versionFile));
  if (build === null) throw new Error('the proxy is not built: "make rootfs" builds it');
  return build;
}

/** HAProxy, its libraries, and what starts it. */
async function haproxyDigest(): Promise<string> {
  const start = await readFile(join(proxyRootfsDir, 'flock/haproxy.js'), 'utf8');
  return sha256((await fetchPackages()).fingerprint(['haproxy']) + start);
}

async function ensureContainer(docker: Docker, plan: ContainerPlan): Promise<string> {
  const own = (await containersOf(docker)).filter(({ program }) => program === plan.program);
  const present = own.find(({ name }) => name === plan.name);
  // Predecessors that have ended by now, and one that an upgrade which was cut off has left: nobody drives it any more.
  for (const { id, state, name } of own) {
    if (name === plan.name) continue;
    if (state !== 'running') await docker.run(['rm', id]);
    else if (present !== undefined) await docker.run(['kill', '--signal', 'USR1', id]);
    else {
      await docker.run(['rename', id, plan.name]);
      await docker.run(['update', '--restart', 'always', id]);
      return await ensureContainer(docker, plan);
    }
  }
  if (present?.digest === plan.digest) {
    if (present.state === 'running') return 'is running';
    await docker.run(['start', present.id]);
    return 'started again';
  }
  if (present === undefined) {
    await docker.run(['run', ...plan.args]);
    return 'started';
  }
  if (plan.program === 'haproxy' && present.state === 'running') await overtake(docker, plan, present);
  else {
    // A container that is restarted for ever can't be stopped in time.
    await docker.run(['stop', present.id]).catch(() => '');
    await docker.run(['rm', '-f', present.id]);
    await docker.run(['run', ...plan.args]);
  }
  return 'replaced';
}

/** Both listen on the same ports for a moment; the old one then ends when its last connection does. */
async function overtake(docker: Docker, plan: ContainerPlan, old: Container): Promise<void> {
  await docker.run(['update', '--restart', 'no', old.id]);
  await docker.run(['rename', old.id, `${plan.name}-${old.id.slice(0, 12)}`]);
  try {
    await docker.run(['run', ...plan.args]);
    await sleep(haproxyStartMs);
    const state = await docker.run(['inspect', '--format', '{{.State.Running}} {{.RestartCount}}', plan.name]);
    if (state !== 'true 0')
      throw new Error('the new HAProxy does not come up ("docker logs flock-haproxy" said why): the old one goes on');
  } catch (error) {
    await docker.run(['rm', '-f', plan.name]).catch(() => '');
    await docker.run(['rename', old.id, plan.name]);
    await docker.run(['update', '--restart', 'always', old.id]);
    throw error;
  }
  await docker.run(['kill', '--signal', 'USR1', old.id]);
}

type Container = {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly program: string;
  readonly digest: string;
};

async function containersOf(docker: Docker): Promise<readonly Container[]> {
  const format = `{{.ID}} {{.Names}} {{.State}} {{.Label "${labels.program}"}} {{.Label "${labels.build}"}}`;
  const text = await docker.run(['ps', '-a', '--no-trunc', '--filter', `label=${labels.program}`, '--format', format]);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [id = '', name = '', state = '', program = '', digest = ''] = line.split(' ');
      return { id, name, state, program, digest };
    });
}

/** The build that an image was made from, or null when there is no such image. */
async function imageDigest(docker: Docker, image: string): Promise<string | null> {
  try {
    return await docker.run(['image', 'inspect', '--format', `{{index .Config.Labels "${labels.build}"}}`, image]);
  } catch (error) {
    if (error instanceof CommandError) return null;
    throw error;
  }
}

/** Of other builds than this one. An image whose container still runs stays, too. */
async function removeOldImages(docker: Docker, digest: string | null): Promise<void> {
  const ids = (await docker.run(['image', 'ls', '-q', '--filter', `label=${labels.build}`])).split('\n');
  for (const id of new Set(ids.filter((each) => each !== ''))) {
    if ((await imageDigest(docker, id)) === digest) continue;
    await docker.run(['image', 'rm', id]).catch((error: unknown) => {
      if (!(error instanceof CommandError)) throw error;
    });
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
