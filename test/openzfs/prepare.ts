/**
 * Makes what a guest boots from: a stock Debian kernel, OpenZFS modules compiled for it and a disk image. All of it
 * is cached, by versions, so only the first run takes minutes; deleting the cache is the way to newer versions.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ensureInstalled, installedVersion, type PrivateApt, privateApt, unpack } from '../../packaging/debian.ts';
import { CommandError, createCommands } from '../../plugin/exec.ts';
import { buildImage, imageSources } from './image.ts';
import { buildModules, buildPackages } from './modules.ts';

/** The kernel module's release. The tools in the guest are always bookworm's, the ones the plugin's image ships. */
export type ZfsRelease = '2.1' | '2.3';
/** bookworm's own: loads in half the time of 2.3 and does not depend on bookworm-backports staying on the mirrors. */
export const defaultRelease: ZfsRelease = '2.1';
const suiteSuffix: Readonly<Record<ZfsRelease, string>> = { '2.1': '', '2.3': 'backports' };

const scratchAgeMsMax = 3 * 3600 * 1000;
const kernelMeta = 'linux-headers-cloud-amd64';
const zfsTools = ['zfsutils-linux', 'libnvpair3linux', 'libuutil3linux', 'libzfs4linux', 'libzpool5linux'];
const basePackages = [
  'bash',
  'coreutils',
  'util-linux',
  'util-linux-extra',
  'mount',
  'tar',
  'findutils',
  'grep',
  'sed',
  'gzip',
  'e2fsprogs',
  'kmod',
  'procps',
  'iproute2',
  'libtirpc3',
];
const dockerPackages = ['docker.io', 'containerd', 'runc', 'tini', 'iptables'];
const qemuPackages = ['qemu-system-x86', 'e2fsprogs'];
/** On this machine, for the guests and what is built for them. */
export const guestPackages = [...qemuPackages, ...basePackages, 'docker.io', 'iptables', ...buildPackages];

export type Prepared = {
  readonly kernel: string;
  readonly initrd: string;
  readonly root: string;
};

const { run } = createCommands();
const cacheDir = (): string => join(process.env['FLOCK_CACHE'] ?? '/var/cache/flock', 'openzfs');
const complete = (dir: string): boolean => existsSync(join(dir, 'complete'));

/** Scratch folders of builds that were killed; a live one can't be as old as this. */
async function removeAbandoned(dir: string): Promise<void> {
  for (const name of (await readdir(dir)).filter((entry) => entry.includes('.building-'))) {
    const modified = await stat(join(dir, name)).then(
      (info) => info.mtimeMs,
      () => Infinity,
    ); // another process ended its
    if (Date.now() - modified > scratchAgeMsMax) await rm(join(dir, name), { recursive: true, force: true });
  }
}

/** Runs `build` in a scratch folder that becomes `dir` only when all of it is there. */
async function cached(dir: string, build: (scratch: string) => Promise<void>): Promise<void> {
  if (complete(dir)) return;
  await mkdir(dirname(dir), { recursive: true });
  await removeAbandoned(dirname(dir));
  const scratch = await mkdtemp(`${dir}.building-`);
  try {
    await build(scratch);
    // On the disk before the stamp is: after a power cut the stamp must not stand for empty files.
    await run('sync', ['-f', scratch], { timeoutMs: 10 * 60_000 });
    await writeFile(join(scratch, 'complete'), '');
    if (complete(dir)) return; // another process was faster
    await rm(dir, { recursive: true, force: true });
    await rename(scratch, dir);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function codename(): Promise<string> {
  const name = /^VERSION_CODENAME=(\S+)$/m.exec(await readFile('/etc/os-release', 'utf8'))?.[1];
  if (name === undefined) throw new Error('/etc/os-release has no VERSION_CODENAME');
  return name;
}

type KernelPackages = {
  /** "6.1.0-56" */
  readonly abi: string;
  readonly kernelVersion: string;
  /** Headers, what builds with them, and zfs-dkms. */
  readonly sources: readonly string[];
  readonly image: readonly string[];
};

/** The newest kernel that is there whole: while Debian publishes one, some of its packages come hours before others. */
async function fetchKernel(apt: PrivateApt, zfsPackage: string, scratch: string): Promise<KernelPackages> {
  const versions = await apt.versions(kernelMeta);
  for (const [index, kernelVersion] of versions.entries()) {
    const into = (part: string) => join(scratch, String(index), part);
    try {
      const meta = await apt.download([`${kernelMeta}=${kernelVersion}`], into('meta'));
      const depends = await run('dpkg-deb', ['-f', ...meta, 'Depends']);
      // "linux-headers-6.1.0-56-cloud-amd64 (= 6.1.192-2)"
      const [, abi, series] = /linux-headers-((\d+\.\d+)\.[\w.-]+)-cloud-amd64 /.exec(depends) ?? [];
      if (abi === undefined || series === undefined)
        throw new Error(`${kernelMeta} depends on no kernel headers: ${depends}`);
      // Image and headers must be of one build, which bookworm and bookworm-security have different ones of; kbuild may be newer.
      const kbuild = `linux-kbuild-${series}`;
      const isSame = (await apt.versions(kbuild)).includes(kernelVersion);
      const headers = [`linux-headers-${abi}-cloud-amd64`, `linux-headers-${abi}-common`];
      const sources = [
        ...headers.map((name) => `${name}=${kernelVersion}`),
        isSame ? `${kbuild}=${kernelVersion}` : kbuild,
      ];
      return {
        abi,
        kernelVersion,
        sources: await apt.download([...sources, zfsPackage], into('sources')),
        image: await apt.download([`linux-image-${abi}-cloud-amd64=${kernelVersion}`], into('image')),
      };
    } catch (error) {
      const isMissing = error instanceof CommandError && /was not found|Unable to locate/.test(error.stderr);
      if (!isMissing || index === versions.length - 1) throw error;
    }
  }
  throw new Error(`apt knows no package ${kernelMeta} in this machine's Debian mirror`);
}

/** Downloads and compiles; answers the folder, named after the versions, with kernel, modules and tools. */
async function prepareKernel(release: ZfsRelease, log: (text: string) => void): Promise<string> {
  const pointer = join(cacheDir(), `zfs-${release}`);
  const known = await readlink(pointer).catch(() => undefined);
  // Without a look at the mirror: tests should not change under us because Debian has a new kernel.
  if (known !== undefined && complete(join(cacheDir(), known))) return join(cacheDir(), known);

  const suffix = suiteSuffix[release];
  const apt = await privateApt(join(cacheDir(), `apt-${release}`), ['main', 'contrib'], suffix === '' ? [] : [suffix]);
  const scratch = await mkdtemp(join(cacheDir(), 'debs.building-'));
  try {
    const zfsPackage = suffix === '' ? 'zfs-dkms' : `zfs-dkms/${await codename()}-${suffix}`;
    const { abi, kernelVersion, sources, image } = await fetchKernel(apt, zfsPackage, scratch);
    const zfsVersion = /zfs-dkms_([^_]+)_/.exec(sources.find((path) => path.includes('/zfs-dkms_')) ?? '')?.[1];
    if (zfsVersion?.startsWith(`${release}.`) !== true)
      throw new Error(`found zfs-dkms ${zfsVersion ?? '?'}, wanted ${release}`);
    const name = `zfs-${zfsVersion}-linux-${kernelVersion}`;
    await cached(join(cacheDir(), name), async (dir) => {
      log(`kernel ${abi} (${kernelVersion}), zfs ${zfsVersion}: compiling`);
      await unpack(image, join(dir, 'kernel'));
      await unpack(await apt.download([...zfsTools, 'busybox-static'], join(scratch, 'tools')), join(dir, 'tools'));
      await buildModules(sources, join(dir, 'work'), join(dir, 'modules'));
    });
    // Over an older one in a single step, in case another process does the same now.
    await symlink(name, join(scratch, 'pointer'));
    await rename(join(scratch, 'pointer'), pointer);
    return join(cacheDir(), name);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

export async function prepare(options: {
  readonly docker: boolean;
  readonly release?: ZfsRelease;
  readonly log?: (text: string) => void;
}): Promise<Prepared> {
  const log = options.log ?? (() => undefined);
  const hostPackages = options.docker ? [...basePackages, ...dockerPackages] : basePackages;
  await ensureInstalled(guestPackages);
  const kernelDir = await prepareKernel(options.release ?? defaultRelease, log);
  const contents = [
    process.version,
    ...(await Promise.all(hostPackages.map(async (pkg) => `${pkg} ${await installedVersion(pkg)}`))),
    await imageSources(),
  ];
  const key = createHash('sha256').update(contents.join('\n')).digest('hex').slice(0, 12);
  const dir = join(kernelDir, `guest${options.docker ? '-docker' : ''}-${key}`);
  await cached(dir, async (scratch) => {
    log('making the disk image');
    await buildImage(
      {
        kernelDir: join(kernelDir, 'kernel'),
        modulesDir: join(kernelDir, 'modules'),
        userlandDir: join(kernelDir, 'tools'),
        node: process.execPath,
        hostPackages,
      },
      scratch,
    );
  });
  return { kernel: join(dir, 'vmlinuz'), initrd: join(dir, 'initrd.gz'), root: join(dir, 'root.img') };
}
