import { chmod, copyFile, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createCommands } from '../plugin/exec.ts';
import { host, rootfsDir } from './paths.ts';
import { type Build, describeBuild, readBuild, versionFile } from './rootfs.ts';

const commands = createCommands();

/** Installs flockctl with a Node of its own on this host. Answers what was done. */
export async function installFlockctl(build: Build): Promise<string> {
  const present = await readBuild(join(host.programDir, 'version.json'));
  if (present?.digest === build.digest) return `${host.flockctl} is up to date`;
  const fresh = `${host.programDir}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { recursive: true });
  await copyFile(join(rootfsDir, 'usr/bin/node'), join(fresh, 'node'));
  await copyFile(join(rootfsDir, 'flock/flockctl.js'), join(fresh, 'flockctl.js'));
  await copyFile(join(rootfsDir, 'flock/package.json'), join(fresh, 'package.json'));
  await copyFile(join(rootfsDir, versionFile), join(fresh, 'version.json'));
  await rm(host.programDir, { recursive: true, force: true });
  await rename(fresh, host.programDir);
  await mkdir(dirname(host.flockctl), { recursive: true });
  const script = `#!/bin/sh\nexec ${host.programDir}/node ${host.programDir}/flockctl.js "$@"\n`;
  await writeFile(`${host.flockctl}.new`, script);
  await chmod(`${host.flockctl}.new`, 0o755);
  await rename(`${host.flockctl}.new`, host.flockctl);
  return `${host.flockctl} ${present === null ? 'installed' : `brought to ${describeBuild(build)}`}`;
}

export async function removeFlockctl(): Promise<void> {
  await rm(host.flockctl, { force: true });
  await rm(host.programDir, { recursive: true, force: true });
}

/** Runs the installed flockctl and answers what it prints as JSON. */
export async function flockctl(...args: readonly string[]): Promise<unknown> {
  const text = await commands.run(host.flockctl, ['--output', 'json', ...args], { timeoutMs: 140_000 });
  return text === '' ? null : JSON.parse(text);
}
