/**
 * The guest's disk and initramfs: busybox, the OpenZFS tools, Node, and programs of this machine with the libraries
 * they need. Made by mkfs.ext4 -d, so without debootstrap, chroot or mounts.
 */
import {
  chmod,
  copyFile,
  cp,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createCommands } from '../../plugin/exec.ts';

export type ImageParts = {
  /** linux-image, unpacked. */
  readonly kernelDir: string;
  /** The compiled OpenZFS modules. */
  readonly modulesDir: string;
  /** The OpenZFS tools and busybox, unpacked. */
  readonly userlandDir: string;
  readonly node: string;
  /** Packages of this machine to take over. */
  readonly hostPackages: readonly string[];
};

const guestDir = join(import.meta.dirname, 'guest');
const virtioModules = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_blk',
];
/** What a Debian cloud kernel has and this guest never meets; leaves a third of it. */
const uselessModules = [
  'kernel/sound',
  ...['gpu', 'infiniband', 'net/ethernet', 'media', 'usb', 'hid', 'scsi', 'ata', 'nvme', 'vfio', 'md', 'target'].map(
    (name) => `kernel/drivers/${name}`,
  ),
];
const libDir = 'usr/lib/x86_64-linux-gnu';
/** Room for what the guest writes beside its pool: Docker's images, plugins and containers. Costs nothing unused. */
const freeMbOfRoot = 4096;
const minuteMs = 60_000;
const { run } = createCommands();

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

/** Copies a file or a link as it is; directories come into being through their files. */
async function place(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await rm(to, { force: true });
  const info = await lstat(from);
  if (info.isSymbolicLink()) await symlink(await readlink(from), to);
  else if (info.isFile()) {
    await copyFile(from, to);
    await chmod(to, info.mode & 0o7777);
  }
}

async function packageFiles(pkg: string): Promise<string[]> {
  const listed = (await run('dpkg', ['-L', pkg], { timeoutMs: minuteMs })).split('\n');
  const files: string[] = [];
  for (const path of listed) {
    if (!/^(\/usr)?\/(bin|sbin|lib|libexec)\//.test(path) || /\/(systemd|udev)\//.test(path)) continue;
    if ((await exists(path)) && !(await lstat(path)).isDirectory()) files.push(path);
  }
  return files;
}

async function elfFiles(dir: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const file = await open(path);
    const magic = (await file.read(Buffer.alloc(4), 0, 4, 0)).buffer;
    await file.close();
    if (magic.toString('latin1') === '\x7fELF') found.push(path);
  }
  return found;
}

/** Adds every shared library of this machine that something in the guest needs. */
async function addLibraries(root: string): Promise<void> {
  const { run: runInside } = createCommands({ LD_LIBRARY_PATH: join(root, libDir) });
  // Status 1: one of them is static.
  const ldd = ['-c', 'ldd "$@" || test $? = 1', 'sh', ...(await elfFiles(join(root, 'usr')))];
  const report = await runInside('sh', ldd, { timeoutMs: 2 * minuteMs });
  const missing = new Set([...report.matchAll(/^\s+(\S+) => not found$/gm)].map((match) => match[1]));
  if (missing.size > 0)
    throw new Error(`libraries that the guest needs and this machine lacks: ${[...missing].join(' ')}`);
  const libraries = new Set([...report.matchAll(/(\/\S+) \(0x[0-9a-f]+\)$/gm)].flatMap((match) => match[1] ?? []));
  for (const path of libraries) {
    if (path.startsWith(root) || (await exists(join(root, path)))) continue;
    await mkdir(dirname(join(root, path)), { recursive: true });
    await copyFile(path, join(root, path)); // follows links: the guest knows a library by the name it asks for
    await chmod(join(root, path), 0o755);
  }
}

async function configure(root: string): Promise<void> {
  const files: Readonly<Record<string, string>> = {
    'etc/passwd': 'root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n',
    'etc/group': 'root:x:0:\ndisk:x:6:\ndocker:x:999:\nnogroup:x:65534:\n',
    'etc/hosts': '127.0.0.1 localhost guest\n',
    'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
    'etc/resolv.conf': '', // dockerd insists on one
    'etc/os-release': 'ID=flock-guest\nPRETTY_NAME="flock test guest"\n',
  };
  for (const [path, text] of Object.entries(files)) await writeFile(join(root, path), text);
  await symlink('/proc/self/mounts', join(root, 'etc/mtab'));
}

async function makeRoot(parts: ImageParts, release: string, root: string): Promise<void> {
  for (const dir of [
    'usr/bin',
    'usr/sbin',
    'usr/lib',
    'usr/lib64',
    'dev',
    'proc',
    'sys',
    'run',
    'tmp',
    'etc',
    'root',
    'mnt',
    'var/lib',
    'project',
    'out',
  ]) {
    await mkdir(join(root, dir), { recursive: true });
  }
  for (const dir of ['bin', 'sbin', 'lib', 'lib64']) await symlink(`usr/${dir}`, join(root, dir));
  await symlink('/run', join(root, 'var/run'));

  // busybox first, so that the real programs replace its applets.
  const busybox = join(parts.userlandDir, 'bin/busybox');
  await place(busybox, join(root, 'bin/busybox'));
  for (const applet of (await run(busybox, ['--list'], { timeoutMs: minuteMs })).split('\n')) {
    if (applet !== '' && applet !== 'busybox') await symlink('busybox', join(root, 'bin', applet));
  }
  // dpkg-deb -x right into the root would replace its links (bin -> usr/bin) by folders.
  for (const [from, to] of [
    ['bin', 'usr/bin'],
    ['sbin', 'usr/sbin'],
    ['lib', 'usr/lib'],
    ['usr', 'usr'],
    ['etc', 'etc'],
  ] as const) {
    const source = join(parts.userlandDir, from);
    if (await exists(source)) await cp(source, join(root, to), { recursive: true, verbatimSymlinks: true });
  }
  await rm(join(root, 'usr/share/doc'), { recursive: true, force: true });
  for (const pkg of parts.hostPackages) for (const path of await packageFiles(pkg)) await place(path, join(root, path));
  // The names that Debian's alternatives system would link.
  if (await exists(join(root, 'usr/sbin/xtables-nft-multi'))) {
    for (const name of [
      'iptables',
      'iptables-save',
      'iptables-restore',
      'ip6tables',
      'ip6tables-save',
      'ip6tables-restore',
    ]) {
      await place(join(root, `usr/sbin/${name.replace('tables', 'tables-nft')}`), join(root, 'usr/sbin', name));
    }
  }
  await mkdir(join(root, 'usr/local/bin'), { recursive: true });
  await copyFile(parts.node, join(root, 'usr/local/bin/node'));
  await place(join(guestDir, 'start-dockerd'), join(root, 'usr/local/bin/start-dockerd'));
  await place(join(guestDir, 'init'), join(root, 'init'));
  await addLibraries(root);
  await configure(root);

  const modules = join(root, 'lib/modules', release);
  await cp(join(parts.kernelDir, 'lib/modules', release), modules, { recursive: true, verbatimSymlinks: true });
  for (const dir of uselessModules) await rm(join(modules, dir), { recursive: true, force: true });
  await cp(parts.modulesDir, join(modules, 'extra'), { recursive: true });
  await run('depmod', ['-b', root, release], { timeoutMs: minuteMs });
}

async function makeInitramfs(parts: ImageParts, release: string, dir: string, output: string): Promise<void> {
  const busybox = join(parts.userlandDir, 'bin/busybox');
  for (const sub of ['bin', 'dev', 'lib', 'root']) await mkdir(join(dir, sub), { recursive: true });
  await place(busybox, join(dir, 'bin/busybox'));
  await place(join(guestDir, 'initramfs-init'), join(dir, 'init'));
  const kernel = join(parts.kernelDir, 'lib/modules', release, 'kernel');
  const files = await readdir(kernel, { recursive: true });
  for (const name of virtioModules) {
    const file = files.find((path) => path.endsWith(`/${name}.ko`));
    if (file === undefined) throw new Error(`kernel ${release} has no module ${name}`);
    await place(join(kernel, file), join(dir, `lib/${name}.ko`));
  }
  const pack = 'set -o pipefail; cd "$1"; "$2" find . | "$2" cpio -o -H newc | gzip -1 > "$3"';
  await run('bash', ['-c', pack, 'bash', dir, busybox, output], { timeoutMs: minuteMs });
}

/** An ext4 image of a directory. It is sparse: free space costs nothing. */
export async function ext4Image(fromDir: string, image: string, freeMb: number): Promise<void> {
  const entries = (await readdir(fromDir, { recursive: true })).length;
  const usedKb = Number.parseInt(await run('du', ['-s', '-k', fromDir], { timeoutMs: 2 * minuteMs }), 10);
  // Node modules are many small files: the default of one inode per 16 KB could run out.
  const size = `${Math.ceil((usedKb * 1.1 + entries) / 1024) + freeMb}M`;
  await run(
    'mkfs.ext4',
    [
      '-q',
      '-F',
      '-m',
      '0',
      '-N',
      `${entries + 65_536}`,
      '-O',
      '^has_journal,^metadata_csum',
      '-E',
      'lazy_itable_init=1,root_owner=0:0',
      '-d',
      fromDir,
      image,
      size,
    ],
    { timeoutMs: 10 * minuteMs },
  );
}

/** Leaves vmlinuz, initrd.gz and root.img in outDir. */
export async function buildImage(parts: ImageParts, outDir: string): Promise<void> {
  const release = (await readdir(join(parts.kernelDir, 'lib/modules')))[0];
  if (release === undefined) throw new Error(`no kernel in ${parts.kernelDir}`);
  await makeRoot(parts, release, join(outDir, 'root'));
  await makeInitramfs(parts, release, join(outDir, 'initramfs'), join(outDir, 'initrd.gz'));
  await copyFile(join(parts.kernelDir, `boot/vmlinuz-${release}`), join(outDir, 'vmlinuz'));
  await ext4Image(join(outDir, 'root'), join(outDir, 'root.img'), freeMbOfRoot);
  for (const dir of ['root', 'initramfs']) await rm(join(outDir, dir), { recursive: true });
}

/** Everything of this folder that shapes the image, for the name it has in the cache. */
export async function imageSources(): Promise<string> {
  const scripts = (await readdir(guestDir)).sort().map((name) => join(guestDir, name));
  return (await Promise.all([import.meta.filename, ...scripts].map((path) => readFile(path, 'utf8')))).join('\0');
}
