import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { privateApt, unpack } from '../../packaging/debian.ts';
import { fillRoot, packRoot } from './app-image.ts';
import type { App } from './apps.ts';
import type { PluginHost } from './plugin-host.ts';

/** Gives the host the app's image. Debian's packages are only unpacked, and only where none of an earlier run is cached. */
export async function importApp(flock: Pick<PluginHost, 'docker'>, app: App): Promise<void> {
  const archive = await ensureArchive(app);
  await flock.docker('import', '--change', `CMD ${JSON.stringify(app.command)}`, archive, app.name);
}

/** Of busybox, for entry scripts and people. */
const applets = ['sh', 'cat', 'grep', 'ls', 'mkdir', 'mv', 'rm', 'sed', 'sleep', 'sync', 'tail', 'usleep', 'wc'];

/** Answers the file of the image's root. */
async function ensureArchive(app: App): Promise<string> {
  const folder = join(process.env['FLOCK_CACHE'] ?? '/var/cache/flock', 'apps');
  const [name = '', tag = ''] = app.name.slice(app.name.indexOf('/') + 1).split(':');
  const archive = join(folder, `${name}-${tag}-${await fingerprint(app)}.tar`);
  if (existsSync(archive)) return archive;
  await mkdir(folder, { recursive: true });
  const scratch = await mkdtemp(join(folder, '.part-'));
  try {
    const apt = await privateApt(join(folder, '.apt'), ['main']);
    const packages = join(scratch, 'packages');
    await unpack(await apt.download(app.packages, join(scratch, 'debs')), packages);
    const root = join(scratch, 'root');
    await fillRoot(
      root,
      app.programs.map((path) => ({ file: join(packages, path), to: path, libraryDirs: [packages] })),
    );
    for (const path of app.keeps)
      await cp(join(packages, path), join(root, path), { recursive: true, verbatimSymlinks: true });
    for (const [path, text] of Object.entries(app.files)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
    for (const applet of applets) await symlink('busybox', join(root, 'bin', applet));
    await chmod(join(root, 'tmp'), 0o1777);
    await packRoot(root, join(scratch, 'root.tar'));
    // In one step, and whoever comes last wins: both are good.
    await rename(join(scratch, 'root.tar'), archive);
    for (const other of await readdir(folder))
      if (other.startsWith(`${name}-${tag}-`) && join(folder, other) !== archive) await rm(join(folder, other));
    return archive;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function fingerprint(app: App): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(app));
  for (const name of ['app-image.ts', 'app-import.ts']) hash.update(await readFile(join(import.meta.dirname, name)));
  return hash.digest('hex').slice(0, 12);
}
