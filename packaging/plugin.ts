/** The managed plugin on this host's Docker daemon: made, replaced, enabled, removed, pushed. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError, createCommands } from '../plugin/exec.ts';
import { type Docker, dockerRoot, requireDocker } from './docker.ts';
import { buildDir, pluginDir } from './paths.ts';
import { type Build, buildRootfs, describeBuild, readBuild, versionFile } from './rootfs.ts';
import { runProgram, say } from './steps.ts';

export const pluginName = 'flock';

export type Installed = {
  readonly id: string;
  readonly enabled: boolean;
  /** "NAME=value", as set by the manifest or `docker plugin set`. */
  readonly env: readonly string[];
  /** What its root file system was built from; null when it does not say. */
  readonly build: Build | null;
};

const commands = createCommands();
const createMsMax = 300_000;

export async function findPlugin(docker: Docker, name = pluginName): Promise<Installed | null> {
  let text: string;
  try {
    text = await docker.run(['plugin', 'inspect', name, '--format', '{{.ID}} {{.Enabled}} {{json .Settings.Env}}']);
  } catch (error) {
    if (error instanceof CommandError && /No such plugin|not found/i.test(error.stderr)) return null;
    throw error;
  }
  const [, id = '', enabled, env = '[]'] = /^(\S+) (true|false) (.*)$/.exec(text) ?? [];
  return {
    id,
    enabled: enabled === 'true',
    env: (JSON.parse(env) ?? []) as string[],
    build: await readBuild(join(await dockerRoot(docker), 'plugins', id, 'rootfs', versionFile)),
  };
}

/**
 * Makes the plugin of build/plugin the one that is installed and enabled. A plugin from another build is replaced; containers that
 * use its volumes go on, and the volumes are known again as soon as the new one runs. Answers what was done.
 */
export async function installPlugin(
  docker: Docker,
  build: Build,
  options: { readonly firstSettings: string; readonly restart: boolean },
): Promise<string> {
  const name = describeBuild(build);
  const present = await findPlugin(docker);
  if (present !== null && present.build?.digest === build.digest) {
    if (present.enabled && !options.restart) return `${name} is installed and enabled`;
    if (present.enabled) await disable(docker);
    await enable(docker);
    return `${name} was installed, ${options.restart ? 'started again' : 'enabled'}`;
  }
  if (present !== null) {
    if (present.enabled) await disable(docker);
    await docker.run(['plugin', 'rm', '-f', pluginName]);
  }
  await docker.run(['plugin', 'create', pluginName, pluginDir], { timeoutMs: createMsMax });
  const settable = present === null ? [`FLOCK_SETTINGS=${options.firstSettings}`] : await settableEnv(present.env);
  if (settable.length > 0) await docker.run(['plugin', 'set', pluginName, ...settable]);
  await enable(docker);
  return present === null
    ? `${name} created and enabled`
    : `${name} in place of ${present.build === null ? 'another one' : describeBuild(present.build)}, with its settings`;
}

/** Takes the plugin away; its data stays. False when there was none. */
export async function removePlugin(docker: Docker): Promise<boolean> {
  const present = await findPlugin(docker);
  if (present === null) return false;
  if (present.enabled) await disable(docker);
  await docker.run(['plugin', 'rm', '-f', pluginName]);
  return true;
}

/** Pushes a build (a folder such as build/plugin) to a registry under `REGISTRY/flock:VERSION`. Answers that name. */
export async function pushPlugin(
  docker: Docker,
  options: { readonly registry: string; readonly version: string; readonly dir: string },
): Promise<string> {
  const name = `${options.registry}/${pluginName}:${options.version}`;
  // left by a push that failed
  if ((await findPlugin(docker, name)) !== null) await docker.run(['plugin', 'rm', '-f', name]);
  const copy = join(buildDir, 'push');
  await rm(copy, { recursive: true, force: true });
  try {
    await commands.run('cp', ['-al', options.dir, copy]);
    // Docker 20.10 refuses to make two plugins of the same content ("already exists"), and one may be installed here.
    await writeFile(join(copy, 'rootfs/flock/pushed-as'), `${name}\n`);
    await docker.run(['plugin', 'create', name, copy], { timeoutMs: createMsMax });
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
  try {
    await docker.run(['plugin', 'push', name], { timeoutMs: createMsMax });
  } finally {
    await docker.run(['plugin', 'rm', '-f', name]);
  }
  return name;
}

/** -f: Docker refuses without it while it knows any volume, used or not. */
async function disable(docker: Docker): Promise<void> {
  await docker.run(['plugin', 'disable', '-f', pluginName]);
}

async function enable(docker: Docker): Promise<void> {
  try {
    await docker.run(['plugin', 'enable', pluginName]);
  } catch (cause) {
    throw new Error('Docker did not start the plugin: the daemon log (journalctl -u docker, or dockerd.log) says why', {
      cause,
    });
  }
}

/** What a user may have set on the old plugin, as far as the new manifest still has it. */
async function settableEnv(old: readonly string[]): Promise<readonly string[]> {
  const manifest = JSON.parse(await readFile(join(pluginDir, 'config.json'), 'utf8')) as {
    readonly env: readonly { readonly name: string; readonly settable: readonly string[] | null }[];
  };
  const names = manifest.env.filter(({ settable }) => settable !== null).map(({ name }) => name);
  return old.filter((setting) => names.includes(setting.split('=', 1)[0] ?? ''));
}

if (import.meta.main) {
  await runProgram(async () => {
    const docker = await requireDocker();
    const build = await buildRootfs();
    say('plugin', await installPlugin(docker, build, { firstSettings: '', restart: false }));
  });
}
