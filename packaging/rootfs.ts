/** Builds the images' root file systems, build/rootfs and build/proxy-rootfs, and build/plugin, what `docker plugin create` takes. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, copyFile, cp, link, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CommandError, createCommands } from '../plugin/exec.ts';
import { bundle, type Script } from './bundle.ts';
import { ensureInstalled } from './debian.ts';
import { type ImagePlan, pluginImage, proxyImage, setsOf } from './images.ts';
import { buildDir, nodeBinary, pluginDir, proxyRootfsDir, repository, rootfsDir } from './paths.ts';
import { describeSize } from './size.ts';
import { runProgram, say } from './steps.ts';
import { fetchPackages, libraryClosure, libraryPath, loader, type Packages, strip, toolFile } from './tools.ts';

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

/** Builds the plugin's image if something has changed since the last build, and makes build/plugin of it. */
export async function buildRootfs(): Promise<BuildResult> {
  const built = await buildImage(pluginImage);
  const copied = await readBuild(join(pluginDir, 'rootfs', versionFile));
  if (copied?.digest !== built.digest) {
    await rm(pluginDir, { recursive: true, force: true });
    await mkdir(pluginDir, { recursive: true });
    // Docker doesn't follow a linked rootfs, so it has the same files under a second name.
    await commands.run('cp', ['-al', rootfsDir, join(pluginDir, 'rootfs')]);
  }
  await copyFile(join(repository, 'config.json'), join(pluginDir, 'config.json'));
  return built;
}

/** Builds the proxy's image if something has changed since the last build. */
export function buildProxyRootfs(): Promise<BuildResult> {
  return buildImage(proxyImage);
}

async function buildImage(plan: ImagePlan): Promise<BuildResult> {
  const packages = await fetchPackages();
  const scripts = (await Promise.all(Object.entries(plan.entries).map(([name, entry]) => bundle(name, entry)))).flat();
  const name = await versionName(plan.sources);
  const digest = await digestOf([
    JSON.stringify(name),
    packages.fingerprint(setsOf(plan)),
    ...scripts.map(({ contents }) => contents),
  ]);
  const present = await readBuild(join(plan.dir, versionFile));
  const changed = present?.digest !== digest;
  if (changed) await build(plan, packages, scripts, { ...name, digest });
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

async function build(plan: ImagePlan, packages: Packages, scripts: readonly Script[], identity: Build): Promise<void> {
  const root = `${plan.dir}.new`;
  await rm(root, { recursive: true, force: true });
  for (const path of plan.directories) await mkdir(join(root, path), { recursive: true });
  for (const [path, target] of Object.entries(plan.links)) await symlink(target, join(root, path));
  for (const [path, text] of Object.entries(plan.files)) await writeFile(join(root, path), text);

  // The same file in all images.
  await link(await strippedNode(), join(root, '/usr/bin/node'));
  const sources = [{ file: nodeBinary, libraryDirs: [] as string[] }];
  for (const tool of plan.tools) {
    const file = await toolFile(packages, tool);
    await install(file, join(root, tool.to), 0o755);
    sources.push({ file, libraryDirs: [packages.dir(tool.set), packages.dir('system')] });
  }
  // Its links as they are: cp makes them absolute otherwise.
  for (const folder of plan.folders)
    await cp(await toolFile(packages, folder), join(root, folder.to), { recursive: true, verbatimSymlinks: true });
  for (const [name, file] of await libraryClosure(sources)) await install(file, join(root, libraryPath, name), 0o644);
  await install(loader, join(root, loader), 0o755);

  for (const { name, contents } of scripts) await writeFile(join(root, '/flock', name), contents);
  // They are ES modules, whatever Node would guess from the name.
  await writeFile(join(root, '/flock/package.json'), '{"type":"module"}\n');
  await writeFile(join(root, versionFile), `${JSON.stringify(identity)}\n`);

  await rm(plan.dir, { recursive: true, force: true });
  await rename(root, plan.dir);
}

/** Node without its symbols, made once for each version. */
async function strippedNode(): Promise<string> {
  const file = join(buildDir, `node-${await nodeVersion()}`);
  if (existsSync(file)) return file;
  if (!(await hasStrip())) await ensureInstalled(['binutils']);
  await strip(nodeBinary, `${file}.new`);
  await rename(`${file}.new`, file);
  return file;
}

async function nodeVersion(): Promise<string> {
  const text = await readFile(join(dirname(nodeBinary), '../package.json'), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}

async function install(from: string, to: string, mode: number): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await copyFile(from, to);
  await chmod(to, mode);
}

async function digestOf(parts: readonly (string | Uint8Array)[]): Promise<string> {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  for (const name of ['images.ts', 'rootfs.ts', 'tools.ts'])
    hash.update(await readFile(join(import.meta.dirname, name)));
  return hash.update(await nodeVersion()).digest('hex');
}

async function versionName(sources: readonly string[]): Promise<{ readonly version: string; readonly commit: string }> {
  const { version } = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8')) as {
    readonly version: string;
  };
  try {
    const commit = await commands.run('git', ['-C', repository, 'log', '-1', '--format=%h', '--', ...sources]);
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

if (import.meta.main) {
  await runProgram(async () => {
    for (const [dir, buildIt] of [
      [rootfsDir, buildRootfs],
      [proxyRootfsDir, buildProxyRootfs],
    ] as const) {
      const built = await buildIt();
      const how = built.changed ? 'built' : 'is up to date';
      say('image', `${dir} ${how}: ${describeBuild(built)}, ${await describeSize(dir)}`);
    }
  });
}
