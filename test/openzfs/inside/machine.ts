/** The guest as a Docker host with the managed plugin. Nothing of this may run anywhere else: it works on /var/lib/flock. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pluginDir, rootfsDir } from '../../../packaging/paths.ts';
import { CommandError, createCommands } from '../../../plugin/exec.ts';
import { until } from '../../support/until.ts';

export const image = 'flock/busybox';

export const { run } = createCommands();
export const docker = (...args: readonly string[]): Promise<string> => run('docker', args, { timeoutMs: 180_000 });
export const flockctl = (...args: readonly string[]): Promise<string> =>
  run('node', [join(rootfsDir, 'flock/flockctl.js'), ...args], { timeoutMs: 120_000 });
export const json = async (...args: readonly string[]): Promise<unknown> =>
  JSON.parse(await flockctl('--output', 'json', ...args));

/** A container with the volume at /data that runs a script of busybox's sh and is removed. */
export const sh = (volume: string, script: string): Promise<string> =>
  docker('run', '--rm', ...mounting(volume), 'sh', '-c', script);
export const mounting = (volume: string): readonly string[] => [
  '--network=none',
  '--volume-driver=flock',
  '-v',
  `${volume}:/data`,
  image,
];

export async function startDocker(): Promise<void> {
  assert.equal(hostname(), 'guest', 'this is for the guest only');
  await run('start-dockerd', [], { timeoutMs: 150_000 });
  const root = await mkdtemp(join(tmpdir(), 'image-'));
  await mkdir(join(root, 'bin'));
  await mkdir(join(root, 'tmp'));
  await cp('/bin/busybox', join(root, 'bin/busybox'));
  await run('chroot', [root, '/bin/busybox', '--install', '-s', '/bin']);
  await run('tar', ['-C', root, '-cf', `${root}.tar`, '.']);
  await docker('import', `${root}.tar`, image);
  await rm(root, { recursive: true });
}

/** Docker packs with gzip what it makes a plugin of: half a minute here. So it gets a stub, whose place the real files then take. */
export async function createPlugin(): Promise<void> {
  const stub = await mkdtemp(join(tmpdir(), 'stub-'));
  await mkdir(join(stub, 'rootfs'));
  await writeFile(join(stub, 'rootfs/stub'), '');
  await cp(join(pluginDir, 'config.json'), join(stub, 'config.json'));
  await docker('plugin', 'create', 'flock', stub);
  const id = await docker('plugin', 'inspect', '--format', '{{.Id}}', 'flock');
  await run('cp', ['-a', `${rootfsDir}/.`, join('/var/lib/docker/plugins', id, 'rootfs')], { timeoutMs: 120_000 });
}

/** Enables the plugin with these first settings, on a machine where flock has never been. */
export async function enableAnew(settings: string): Promise<void> {
  await docker('plugin', 'set', 'flock', `FLOCK_SETTINGS=${settings}`);
  await enablePlugin();
}

/** Docker gives a plugin nine seconds until it listens, which is little on an emulated processor with a busy host. */
export async function enablePlugin(): Promise<void> {
  const triesMax = 4;
  for (let tries = 1; ; tries += 1) {
    try {
      await docker('plugin', 'enable', 'flock');
      return;
    } catch (error) {
      const isLate = error instanceof CommandError && /flock\.sock: connect: no such file/.test(error.stderr);
      if (!isLate || tries === triesMax) throw error;
    }
  }
}

/** With the plugin disabled: after this flock has never been here. */
export async function forgetFlock(): Promise<void> {
  assert.equal(hostname(), 'guest', 'this is for the guest only');
  if (existsSync('/var/lib/flock')) await rename('/var/lib/flock', '/var/lib/flock.before');
}

export async function pluginPid(): Promise<number> {
  return Number(await run('pgrep', ['-o', '-f', '^/usr/bin/node .*/flock/plugin.js']));
}

/** SIGKILL, and waits until the process that Docker starts in its place answers. */
export async function killPlugin(): Promise<void> {
  const old = await pluginPid();
  process.kill(old, 'SIGKILL');
  // Each look is new processes, which are slow here, and Docker has little patience with the plugin's own start.
  await until('Docker has started the plugin again', 120_000, async () => {
    await sleep(3_000);
    const now = await pluginPid().catch(() => old);
    return now === old ? undefined : await flockctl('version').catch(() => undefined);
  });
}

/** Mounts of a volume as the machine sees them. */
export async function hostMounts(id: string): Promise<readonly string[]> {
  const table = await run('cat', ['/proc/self/mountinfo']);
  return table.split('\n').filter((line) => line.includes(`/propagated-mount/volumes/${id} `));
}
