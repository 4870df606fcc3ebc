/** Builds build/rootfs, the root file system of all flock images, and build/plugin, what `docker plugin create` takes. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, copyFile, lstat, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { CommandError, createCommands } from '../plugin/exec.ts';
import { bundle, type Entries, entries, type Script } from './bundle.ts';
import { ensureInstalled } from './debian.ts';
import { nodeBinary, pluginDir, repository, rootfsDir } from './paths.ts';
import { runProgram, say } from './steps.ts';
import { fetchPackages, libraryClosure, libraryPath, loader, type Packages, strip, toolFile, tools } from './tools.ts';

export type Build = {
  readonly version: string;
  /** The last commit that changed what is in the image, or "unknown". */
  readonly commit: string;
  /** Of everything that is in the image: equal digests are equal images. */
  readonly digest: string;
};

export type BuildResult = Build & { readonly changed: boolean };

const commands = createCommands();
/** In an image; says what it was built from. */
export const versionFile = '/flock/version.json';

/** Empty folders: what is mounted over, and what programs expect to exist. */
const directories = [
  ...['/dev', '/proc', '/sys', '/tmp', '/root', '/run/docker/plugins', '/run/lock', '/run/flock', '/host/run'],
  ...['/mnt/flock', '/var/lib', '/etc/zfs', '/usr/bin', '/usr/sbin', `/usr${libraryPath}`, '/usr/lib64', '/flock'],
];

const links: Readonly<Record<string, string>> = {
  '/bin': 'usr/bin',
  '/sbin': 'usr/sbin',
  '/lib': 'usr/lib',
  '/lib64': 'usr/lib64',
  '/var/run': '/run',
  '/var/lock': '/run/lock',
  '/etc/mtab': '/proc/self/mounts',
  // zfs-fuse's clients look for the daemon's socket below /var/run/zfs; the daemon runs on the host.
  '/run/zfs': '/host/run/zfs',
};

const files: Readonly<Record<string, string>> = {
  '/etc/passwd': 'root:x:0:0:root:/root:/usr/sbin/nologin\n',
  '/etc/group': 'root:x:0:\n',
  // glibc has "files" and "dns" built in, so no libnss_*.so is needed.
  '/etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
};

/** Builds what has changed since the last build; nothing when nothing has. */
export async function buildRootfs(from: Entries = entries): Promise<BuildResult> {
  const packages = await fetchPackages();
  const scripts = (await Promise.all(Object.entries(from).map(([name, entry]) => bundle(name, entry)))).flat();
  const name = await versionName();
  const digest = await digestOf([
    JSON.stringify(name),
    packages.fingerprint,
    ...scripts.map(({ contents }) => contents),
  ]);
  const present = await readBuild(join(rootfsDir, versionFile));
  const changed = present?.digest !== digest || !existsSync(join(pluginDir, 'rootfs'));
  if (changed) await build(packages, scripts, { ...name, digest });
  await copyFile(join(repository, 'config.json'), join(pluginDir, 'config.json'));
  return { ...name, digest, changed };
}

/** What a version file says, or null when it is none of ours. */
export async function readBuild(file: string): Promise<Build | null> {
  if (!existsSync(file)) return null;
  const { version, commit, digest } = JSON.parse(await readFile(file, 'utf8')) as Partial<Build>;
  return version === undefined || commit === undefined || digest === undefined ? null : { version, commit, digest };
}

export function describeBuild({ version, commit }: Build): string {
  return commit === 'unknown' ? version : `${version} (${commit})`;
}

async function build(packages: Packages, scripts: readonly Script[], identity: Build): Promise<void> {
  if (!(await hasStrip())) await ensureInstalled(['binutils']);
  const root = `${rootfsDir}.new`;
  await rm(root, { recursive: true, force: true });
  for (const path of directories) await mkdir(join(root, path), { recursive: true });
  for (const [path, target] of Object.entries(links)) await symlink(target, join(root, path));
  for (const [path, text] of Object.entries(files)) await writeFile(join(root, path), text);

  await strip(nodeBinary, join(root, '/usr/bin/node'));
  const sources = [{ file: nodeBinary, libraryDirs: [] as string[] }];
  for (const tool of tools) {
    const file = await toolFile(packages, tool);
    await install(file, join(root, tool.to), 0o755);
    sources.push({ file, libraryDirs: [packages.dir(tool.set), packages.dir('system')] });
  }
  for (const [name, file] of await libraryClosure(sources)) await install(file, join(root, libraryPath, name), 0o644);
  await install(loader, join(root, loader), 0o755);

  for (const { name, contents } of scripts) await writeFile(join(root, '/flock', name), contents);
  // They are ES modules, whatever Node would guess from the name.
  await writeFile(join(root, '/flock/package.json'), '{"type":"module"}\n');
  await writeFile(join(root, versionFile), `${JSON.stringify(identity)}\n`);

  await rm(rootfsDir, { recursive: true, force: true });
  await rename(root, rootfsDir);
  await rm(pluginDir, { recursive: true, force: true });
  await mkdir(pluginDir, { recursive: true });
  // Docker doesn't follow a linked rootfs, so it has the same files under a second name.
  await commands.run('cp', ['-al', rootfsDir, join(pluginDir, 'rootfs')]);
}

async function install(from: string, to: string, mode: number): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await copyFile(from, to);
  await chmod(to, mode);
}

async function digestOf(parts: readonly (string | Uint8Array)[]): Promise<string> {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  for (const name of ['rootfs.ts', 'tools.ts']) hash.update(await readFile(join(import.meta.dirname, name)));
  const nodePackage = JSON.parse(await readFile(join(dirname(nodeBinary), '../package.json'), 'utf8')) as {
    readonly version: string;
  };
  return hash.update(nodePackage.version).digest('hex');
}

async function versionName(): Promise<{ readonly version: string; readonly commit: string }> {
  const { version } = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8')) as {
    readonly version: string;
  };
  const inputs = ['plugin', 'controller', 'packaging', 'config.json', 'package-lock.json'];
  try {
    const commit = await commands.run('git', ['-C', repository, 'log', '-1', '--format=%h', '--', ...inputs]);
    return { version, commit: commit === '' ? 'unknown' : commit };
  } catch (error) {
    // no git, or no repository, or no commit yet: a source archive builds too
    if (error instanceof CommandError) return { version, commit: 'unknown' };
    throw error;
  }
}

async function hasStrip(): Promise<boolean> {
  return (process.env['PATH'] ?? '').split(':').some((dir) => existsSync(join(dir, 'strip')));
}

/** "127.0 MB: usr/bin/node 108.5, ...": the size and the three largest files. */
export async function describeSize(dir: string): Promise<string> {
  const files = (await filesBelow(dir)).toSorted((a, b) => b.bytes - a.bytes);
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const largest = files.slice(0, 3).map(({ path, bytes }) => `${relative(dir, path)} ${megabytes(bytes)}`);
  return `${megabytes(total)} MB: ${largest.join(', ')}`;
}

type SizedFile = { readonly path: string; readonly bytes: number };

async function filesBelow(dir: string): Promise<readonly SizedFile[]> {
  const found: SizedFile[] = [];
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) found.push(...(await filesBelow(path)));
    else if (entry.isFile()) found.push({ path, bytes: (await lstat(path)).size });
  }
  return found;
}

if (import.meta.main) {
  await runProgram(async () => {
    const build = await buildRootfs();
    const size = await describeSize(rootfsDir);
    say('image', `${rootfsDir} ${build.changed ? 'built' : 'is up to date'}: ${describeBuild(build)}, ${size}`);
  });
}
