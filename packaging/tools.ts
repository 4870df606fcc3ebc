/** The programs beside Node in the image, taken from Debian packages, and the shared libraries that they need. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { CommandError, createCommands } from '../plugin/exec.ts';
import { privateApt, unpack } from './debian.ts';
import { buildDir } from './paths.ts';

/** Both ZFS packages have a /sbin/zfs, so each set of packages is unpacked into a folder of its own. */
const packageSets = {
  system: ['btrfs-progs', 'mount', 'util-linux', 'liblzo2-2', 'libsmartcols1'],
  openzfs: ['zfsutils-linux', 'libzfs4linux', 'libnvpair3linux', 'libuutil3linux', 'libtirpc3'],
  zfsFuse: ['zfs-fuse', 'libtirpc3'],
  // Not in the image: make up proves the volumes with a container of it.
  proof: ['busybox-static'],
} as const;

export type PackageSet = keyof typeof packageSets;

type Tool = { readonly set: PackageSet; readonly from: string; readonly to: string };

const inPath = (set: PackageSet, ...paths: readonly string[]): readonly Tool[] =>
  paths.map((path) => ({ set, from: path, to: path.replace(/^\/(s?bin)\//, '/usr/$1/') }));

/** No shell: the plugin starts programs with argument arrays only. */
export const tools: readonly Tool[] = [
  ...inPath('system', '/bin/btrfs', '/sbin/mkfs.btrfs', '/bin/mount', '/bin/umount', '/sbin/losetup', '/bin/fallocate'),
  { set: 'system', from: '/usr/bin/unshare', to: '/usr/bin/unshare' },
  ...inPath('openzfs', '/sbin/zfs', '/sbin/zpool', '/sbin/mount.zfs'),
  // Only the clients: the daemon runs on the host, because its file systems would die with the plugin.
  { set: 'zfsFuse', from: '/sbin/zfs', to: '/usr/lib/zfs-fuse/zfs' },
  { set: 'zfsFuse', from: '/sbin/zpool', to: '/usr/lib/zfs-fuse/zpool' },
];

const commands = createCommands();
const toolsDir = join(buildDir, 'tools');

export type Packages = {
  /** The folder into which a set was unpacked. */
  dir(set: PackageSet): string;
  /** Names the exact packages; equal packages have equal fingerprints. */
  readonly fingerprint: string;
};

/** Downloads and unpacks the packages once: they stay in build/tools until `make clean`, so later builds need no network. */
export async function fetchPackages(): Promise<Packages> {
  const wanted = createHash('sha256').update(JSON.stringify(packageSets)).digest('hex');
  const listFile = join(toolsDir, 'packages.json');
  const dir = (set: PackageSet) => join(toolsDir, set);
  const done = existsSync(listFile) ? await readFile(listFile, 'utf8') : '';
  if (done.startsWith(wanted)) return { dir, fingerprint: done };
  await rm(toolsDir, { recursive: true, force: true });
  await mkdir(toolsDir, { recursive: true });
  const apt = await privateApt(join(buildDir, 'apt'), ['main', 'contrib']);
  const files: string[] = [];
  for (const set of Object.keys(packageSets) as PackageSet[]) {
    const debs = await apt.download(packageSets[set], join(toolsDir, 'debs', set));
    await unpack(debs, dir(set));
    files.push(...debs.map((deb) => basename(deb)));
  }
  await rm(join(toolsDir, 'debs'), { recursive: true });
  const fingerprint = `${wanted} ${files.join(' ')}\n`;
  await writeFile(`${listFile}.new`, fingerprint);
  await rename(`${listFile}.new`, listFile);
  return { dir, fingerprint };
}

/** Where a program's file is in its unpacked package, whichever of / and /usr the package has it in. */
export async function toolFile(packages: Packages, tool: Tool): Promise<string> {
  const root = packages.dir(tool.set);
  const found = [join(root, tool.from), join(root, '/usr', tool.from)].find((path) => existsSync(path));
  if (found === undefined) throw new Error(`package set ${tool.set} has no ${tool.from}`);
  return realpath(found);
}

/** Every library that these programs load: name as the loader asks for it, and file. Fails when one can't be found. */
export async function libraryClosure(
  programs: readonly { readonly file: string; readonly libraryDirs: readonly string[] }[],
): Promise<ReadonlyMap<string, string>> {
  const libraries = new Map<string, string>();
  for (const { file, libraryDirs } of programs) {
    const search = libraryDirs.flatMap((dir) => [join(dir, libraryPath), join(dir, '/usr', libraryPath)]);
    for (const line of (await ldd(file, search)).split('\n')) {
      const [, name, path] = /^\s*(\S+) => (not found|\/\S+)/.exec(line) ?? [];
      if (name === undefined || path === undefined) continue;
      if (path === 'not found') throw new Error(`${file} needs ${name}: add its Debian package to packaging/tools.ts`);
      // libraries of our packages before the machine's own, whichever program asked first
      if (!libraries.has(name) || path.startsWith(toolsDir)) libraries.set(name, await realpath(path));
    }
  }
  return libraries;
}

export const libraryPath = '/lib/x86_64-linux-gnu';
export const loader = '/lib64/ld-linux-x86-64.so.2';

async function ldd(file: string, search: readonly string[]): Promise<string> {
  try {
    return await createCommands({ LD_LIBRARY_PATH: search.join(':') }).run('ldd', [file]);
  } catch (error) {
    if (error instanceof CommandError && error.stderr.includes('not a dynamic executable')) return '';
    throw error;
  }
}

/** Copies a program without its symbols. */
export async function strip(from: string, to: string): Promise<void> {
  await commands.run('strip', ['-o', to, from], { timeoutMs: 120_000 });
}
