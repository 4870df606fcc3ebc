import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { libraryClosure, libraryPath, loader } from '../../packaging/tools.ts';
import { createCommands } from '../../plugin/exec.ts';
import type { PluginHost } from './plugin-host.ts';

const commands = createCommands();

export type Program = {
  readonly file: string;
  /** Where it is in the image. */
  readonly to: string;
  /** Of unpacked packages, whose libraries are taken before the machine's own. */
  readonly libraryDirs: readonly string[];
};

/** Gives the host an image of programs that are installed on this machine, with their libraries and busybox, under this name. */
export async function importImage(flock: PluginHost, name: string, programs: readonly string[]): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'flock-image-'));
  try {
    await fillRoot(
      root,
      programs.map((file) => ({ file, to: join('/usr/bin', basename(file)), libraryDirs: [] })),
    );
    const archive = `${root}.tar`;
    await packRoot(root, archive);
    await flock.docker('import', archive, name);
    await rm(archive);
  } finally {
    await rm(root, { recursive: true });
  }
}

/** Puts programs into the root of an image's files, and what every one needs. */
export async function fillRoot(root: string, programs: readonly Program[]): Promise<void> {
  await put('/bin/busybox', join(root, 'bin/busybox'));
  for (const { file, to } of programs) await put(file, join(root, to));
  for (const [library, file] of await libraryClosure(programs)) await put(file, join(root, libraryPath, library));
  await put(loader, join(root, loader));
  await mkdir(join(root, 'etc'), { recursive: true });
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\n');
  await mkdir(join(root, 'tmp'), { recursive: true });
}

export async function packRoot(root: string, archive: string): Promise<void> {
  await commands.run('tar', ['-C', root, '--owner=0', '--group=0', '-cf', archive, '.'], { timeoutMs: 120_000 });
}

async function put(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await copyFile(from, to);
}
