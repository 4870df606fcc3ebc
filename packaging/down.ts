/** `make down`: takes the plugin and the proxy away. Volumes, pool and settings stay, and a later `make up` finds them again. */
import { type Docker, findDocker } from './docker.ts';
import { removeFlockctl } from './flockctl.ts';
import { host } from './paths.ts';
import { removePlugin } from './plugin.ts';
import { removeProxy } from './proxy.ts';
import { requireRoot, runProgram, say } from './steps.ts';

function describe(problems: readonly string[] | null): string {
  if (problems === null) return 'there was none';
  const made = 'routes and links made by flockctl are kept';
  return problems.length === 0 ? `removed; ${made}` : `removed; ${made}; what is left of it: ${problems.join('; ')}`;
}

async function down(): Promise<void> {
  requireRoot();
  const docker = await findDocker();
  if (docker === null) throw new Error('no Docker daemon answers, so the plugin can not be removed: start it first');
  const users = await containersOnFlock(docker);
  const running = users.filter(({ state }) => state === 'running' || state === 'paused' || state === 'restarting');
  if (running.length > 0 && process.env['FORCE'] !== '1') {
    throw new Error(
      `running containers use flock volumes: ${names(running)}. Stop them first, or say FORCE=1: they then keep their mounts, but can not be started again before the next "make up"`,
    );
  }
  say('proxy', describe(await removeProxy(docker)));
  say('plugin', (await removePlugin(docker)) ? 'removed' : 'there was none');
  await removeFlockctl();
  say('flockctl', 'removed');
  say('data', `left in ${host.stateDir}: "make up" finds it again`);
  if (users.length > 0) say('note', `these containers need "make up" before they start again: ${names(users)}`);
}

type Container = { readonly name: string; readonly state: string };

async function containersOnFlock(docker: Docker): Promise<readonly Container[]> {
  const ids = (await docker.run(['ps', '-aq', '--no-trunc'])).split('\n').filter((id) => id !== '');
  if (ids.length === 0) return [];
  const format = '{{.Name}} {{.State.Status}}{{range .Mounts}} {{.Driver}}{{end}}';
  const lines = (await docker.run(['inspect', '--format', format, ...ids])).split('\n');
  return lines
    .map((line) => line.split(' '))
    .filter(([, , ...drivers]) => drivers.some((driver) => /^flock(:latest)?$/.test(driver)))
    .map(([name = '', state = '']) => ({ name: name.replace(/^\//, ''), state }));
}

function names(containers: readonly Container[]): string {
  return containers.map(({ name }) => name).join(', ');
}

await runProgram(down);
