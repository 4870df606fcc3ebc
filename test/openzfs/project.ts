/** The part of this repository that tests in a guest need. */
import { cp, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { repository } from '../../packaging/paths.ts';
import { createCommands } from '../../plugin/exec.ts';

const sources = ['package.json', 'controller', 'packaging', 'plugin', 'test'];
/** What the sources import while a test runs; esbuild and the like stay here. */
const packages = ['execa', 'zod', 'mocha'];

type Manifest = { readonly dependencies?: Readonly<Record<string, string>> };

/** `more`: other files or folders of the repository, such as build/rootfs. */
export async function copyProject(target: string, more: readonly string[]): Promise<void> {
  const modules = [...(await dependencyFolders(packages))].map((name) => `node_modules/${name}`);
  const { run } = createCommands();
  for (const path of [...sources, ...modules]) {
    await cp(join(repository, path), join(target, path), { recursive: true, verbatimSymlinks: true });
  }
  for (const path of more) {
    await mkdir(join(target, path, '..'), { recursive: true });
    // Not Node's own: it loses times and sparse files, and takes three times as long.
    await run('cp', ['-a', join(repository, path), join(target, path)], { timeoutMs: 120_000 });
  }
}

/** These packages and all that they depend on. npm lays them out flat except where two versions meet; those are inside already. */
async function dependencyFolders(names: readonly string[], found = new Set<string>()): Promise<ReadonlySet<string>> {
  for (const name of names) {
    if (found.has(name)) continue;
    const text = await readFile(join(repository, 'node_modules', name, 'package.json'), 'utf8').catch(() => null);
    if (text === null) continue;
    found.add(name);
    const { dependencies = {} } = JSON.parse(text) as Manifest;
    await dependencyFolders(Object.keys(dependencies), found);
  }
  return found;
}
