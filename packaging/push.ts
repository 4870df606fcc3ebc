/** `make push REGISTRY=... [VERSION=...]`: the plugin, for `docker plugin install --alias flock REGISTRY/flock:VERSION`. */
import { requireDocker } from './docker.ts';
import { pluginDir } from './paths.ts';
import { pushPlugin } from './plugin.ts';
import { buildRootfs } from './rootfs.ts';
import { runProgram, say } from './steps.ts';

await runProgram(async () => {
  const { REGISTRY: registry = '', VERSION: wanted = '' } = process.env;
  if (registry === '') throw new Error('say where to: make push REGISTRY=registry.example.org:5000/project');
  const docker = await requireDocker();
  const build = await buildRootfs();
  // A tag can't have the "+" of a commit in it.
  const version = wanted === '' ? build.version.replace(/\+.*/, '') : wanted;
  const name = await pushPlugin(docker, { registry, version, dir: pluginDir });
  say('pushed', name);
  console.log(`\nOn each host: docker plugin install --alias flock ${name}`);
});
