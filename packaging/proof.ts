import { randomBytes } from 'node:crypto';
import { chmod, copyFile, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError, createCommands } from '../plugin/exec.ts';
import type { Docker } from './docker.ts';
import { flockctl } from './flockctl.ts';
import { buildDir } from './paths.ts';
import { fetchPackages } from './tools.ts';

/** A tiny image that needs no registry: Debian's static busybox with all its commands. */
export const image = 'flock/busybox:latest';

const commands = createCommands();

/** Makes the image if Docker has none of this name. */
export async function ensureImage(docker: Docker): Promise<void> {
  try {
    await docker.run(['image', 'inspect', '--format', '{{.Id}}', image]);
    return;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
  }
  const root = join(buildDir, 'busybox');
  await rm(root, { recursive: true, force: true });
  for (const dir of ['bin', 'etc', 'root', 'tmp']) await mkdir(join(root, dir), { recursive: true });
  const busybox = join(root, 'bin/busybox');
  await copyFile(join((await fetchPackages()).dir('proof'), 'bin/busybox'), busybox);
  await chmod(busybox, 0o755);
  for (const applet of (await commands.run(busybox, ['--list'])).split('\n')) {
    if (applet !== 'busybox') await symlink('busybox', join(root, 'bin', applet));
  }
  await chmod(join(root, 'tmp'), 0o1777);
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  await writeFile(join(root, 'etc/group'), 'root:x:0:\n');
  const archive = `${root}.tar`;
  await commands.run('tar', ['-C', root, '--owner=0', '--group=0', '-cf', archive, '.']);
  await docker.run(['import', '--change', 'CMD ["/bin/sh"]', archive, image]);
  await rm(archive);
}

/** One container writes to a volume, a second one reads it, and the volume goes without a trace. Throws if anything is not as it should be. */
export async function prove(docker: Docker): Promise<string> {
  await ensureImage(docker);
  const name = `flock-proof-${randomBytes(4).toString('hex')}`;
  const text = `written at ${new Date().toISOString()}`;
  const run = (...args: string[]) =>
    docker.run(['run', '--rm', '--network=none', '--volume-driver=flock', '-v', `${name}:/data`, image, ...args]);
  const startMs = performance.now();
  try {
    await run('sh', '-c', 'echo "$1" > /data/proof && sync', 'sh', text);
    const read = await run('cat', '/data/proof');
    if (read !== text) throw new Error(`wrote "${text}" to volume ${name}, read "${read}" from it`);
  } finally {
    await docker.run(['volume', 'rm', '-f', name]);
    await purge(name);
  }
  const ms = Math.round(performance.now() - startMs);
  return `one container wrote to a volume, another one read it back; volume removed (${ms} ms)`;
}

/** The proof must not leave anything in the trash, where removed volumes go. */
async function purge(name: string): Promise<void> {
  const trash = (await flockctl('trash', 'ls')) as readonly { readonly id: string; readonly name: string }[];
  for (const entry of trash) if (entry.name === name) await flockctl('trash', 'purge', entry.id);
}
