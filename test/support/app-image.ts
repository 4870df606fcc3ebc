import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { libraryClosure, libraryPath, loader } from '../../packaging/tools.ts';
import { createCommands } from '../../plugin/exec.ts';
import type { PluginHost } from './plugin-host.ts';

const commands = createCommands();

/** Gives the host an image of programs that are installed on this machine, with their libraries and busybox, under this name. */
export async function importImage(flock: PluginHost, name: string, programs: readonly string[]): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'flock-image-'));
  try {
    await put('/bin/busybox', join(root, 'bin/busybox'));
    for (const program of programs) await put(program, join(root, 'usr/bin', basename(program)));
    const libraries = await libraryClosure(programs.map((file) => ({ file, libraryDirs: [] })));
    for (const [library, file] of libraries) await put(file, join(root, libraryPath, library));
    await put(loader, join(root, loader));
    await mkdir(join(root, 'etc'), { recursive: true });
    await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\n');
    await mkdir(join(root, 'tmp'), { recursive: true });
    const archive = `${root}.tar`;
    await commands.run('tar', ['-C', root, '-cf', archive, '.']);
    await flock.docker('import', archive, name);
    await rm(archive);
  } finally {
    await rm(root, { recursive: true });
  }
}

async function put(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await copyFile(from, to);
}
