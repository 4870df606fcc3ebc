/** The programs beside Node in the images, taken from Debian packages, and the shared libraries that they need. */
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
  haproxy: [
    ...['haproxy', 'libcap2', 'liblua5.3-0', 'liblz4-1', 'libpcre2-8-0', 'libssl3', 'libsystemd0'],
    ...['libopentracing-c-wrapper0', 'libopentracing1'],
  ],
  netfilter: [
    ...[
      'nftables',
      'libnftables1',
      'libnftnl11',
      'libmnl0',
      'libjansson4',
      'libgmp10',
      'libedit2',
      'libbsd0',
      'libmd0',
    ],
    ...['iptables', 'libxtables12', 'libip4tc2', 'libip6tc2'],
    ...['conntrack', 'libnetfilter-conntrack3', 'libnfnetlink0'],
  ],
  sockets: [
    ...['iproute2', 'libtirpc3', 'libmnl0', 'libbsd0', 'libmd0', 'libcap2', 'libselinux1', 'libpcre2-8-0'],
    ...['libgssapi-krb5-2', 'libkrb5-3', 'libk5crypto3', 'libcom-err2', 'libkrb5support0', 'libkeyutils1'],
  ],
  // Not in an image: make up proves the volumes with a container of it.
  proof: ['busybox-static'],
} as const;

export type PackageSet = keyof typeof packageSets;

/** A program, or a folder with all that is in it. */
export type Tool = { readonly set: PackageSet; readonly from: string; readonly to: string };

const inPath = (set: PackageSet, ...paths: readonly string[]): readonly Tool[] =>
  paths.map((path) => ({ set, from: path, to: path.replace(/^\/(s?bin)\//, '/usr/$1/') }));

/** No shell: flock starts programs with argument arrays only. */
export const pluginTools: readonly Tool[] = [
  ...inPath('system', '/bin/btrfs', '/sbin/mkfs.btrfs', '/bin/mount', '/bin/umount', '/sbin/losetup', '/bin/fallocate'),
  { set: 'system', from: '/usr/bin/unshare', to: '/usr/bin/unshare' },
  ...inPath('openzfs', '/sbin/zfs', '/sbin/zpool', '/sbin/mount.zfs'),
  // Only the clients: the daemon runs on the host, because its file systems would die with the plugin.
  { set: 'zfsFuse', from: '/sbin/zfs', to: '/usr/lib/zfs-fuse/zfs' },
  { set: 'zfsFuse', from: '/sbin/zpool', to: '/usr/lib/zfs-fuse/zpool' },
];

export const proxyTools: readonly Tool[] = [
  ...inPath('haproxy', '/sbin/haproxy'),
  // Both kinds of iptables: which one sees Docker's rules is the host's choice.
  ...inPath('netfilter', '/sbin/nft', '/sbin/conntrack', '/sbin/xtables-nft-multi', '/sbin/xtables-legacy-multi'),
  ...inPath('sockets', '/bin/ss'),
  { set: 'system', from: '/usr/bin/nsenter', to: '/usr/bin/nsenter' },
];

/** iptables loads what reads and writes a rule from here; which of it Docker's rules need is Docker's choice. */
export const iptablesExtensions: Tool = {
  set: 'netfilter',
  from: '/lib/x86_64-linux-gnu/xtables',
  to: '/usr/lib/x86_64-linux-gnu/xtables',
};

const commands = createCommands();
const toolsDir = join(buildDir, 'tools');

export type Packages = {
  /** The folder into which a set was unpacked. */
  dir(set: PackageSet): string;
  /** Names the exact packages of these sets; equal packages have equal fingerprints. */
  fingerprint(sets: readonly PackageSet[]): string;
};

type Fetched = { readonly wanted: string; readonly debs: Readonly<Partial<Record<PackageSet, readonly string[]>>> };

/** Downloads and unpacks the packages once: they stay in build/tools until `make clean`, so later builds need no network. */
export async function fetchPackages(): Promise<Packages> {
  const wanted = createHash('sha256').update(JSON.stringify(packageSets)).digest('hex');
  const listFile = join(toolsDir, 'debs.json');
  const dir = (set: PackageSet) => join(toolsDir, set);
  const packagesOf = ({ debs }: Fetched): Packages => ({
    dir,
    fingerprint: (sets) => JSON.stringify(sets.map((set) => debs[set] ?? [])),
  });
  const done = existsSync(listFile) ? (JSON.parse(await readFile(listFile, 'utf8')) as Fetched) : null;
  if (done?.wanted === wanted) return packagesOf(done);
  await rm(toolsDir, { recursive: true, force: true });
  await mkdir(toolsDir, { recursive: true });
  const apt = await privateApt(join(buildDir, 'apt'), ['main', 'contrib']);
  const debs: Partial<Record<PackageSet, readonly string[]>> = {};
  for (const set of Object.keys(packageSets) as PackageSet[]) {
    const files = await apt.download(packageSets[set], join(toolsDir, 'debs', set));
    await unpack(files, dir(set));
    debs[set] = files.map((file) => basename(file));
  }
  await rm(join(toolsDir, 'debs'), { recursive: true });
  const fetched: Fetched = { wanted, debs };
  await writeFile(`${listFile}.new`, `${JSON.stringify(fetched)}\n`);
  await rename(`${listFile}.new`, listFile);
  return packagesOf(fetched);
}

/** Where a tool's file or folder is in its unpacked package, whichever of / and /usr the package has it in. */
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
