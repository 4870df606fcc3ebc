import assert from 'node:assert/strict';
import { z } from 'zod';
import { type WorkloadView, workloadView } from '../../controller/model/controller-api.ts';
import { createDocker } from '../../controller/program/docker.ts';
import { image } from '../../packaging/proof.ts';
import { type PluginHost, startPluginHost } from '../support/plugin-host.ts';
import { startProxy } from '../support/proxy-host.ts';
import { until } from '../support/until.ts';

/** On a host that is in no cluster: nothing moves, but what is to run runs. */
describe('the controller on one host', () => {
  let host: PluginHost | null = null;
  const flock = (): PluginHost => {
    if (host === null) throw new Error('the host did not start');
    return host;
  };
  const mount = (volume: string) => ['--volume-driver=flock', '-v', `${volume}:/data`];
  /** Fails if it is started without its data. */
  const guarded =
    'test -e /data/mark || { test -e /tmp/first && exit 3; date > /data/mark; touch /tmp/first; }; exec sleep 1000';
  const run = (name: string, ...options: readonly string[]) =>
    flock().docker('run', '-d', '--name', name, ...options, image, 'sh', '-c', guarded);
  const inspect = (name: string, format: string) => flock().docker('inspect', '--format', format, name);
  const killProcess = async (name: string) => flock().host.run('kill', ['-9', await inspect(name, '{{.State.Pid}}')]);
  const workloads = async (): Promise<readonly WorkloadView[]> => {
    const socket = '/run/flock/controller-api.sock';
    const text = await flock().host.run('curl', [
      '-sS',
      '--fail',
      '--unix-socket',
      socket,
      'http://flock/v1/workloads',
    ]);
    return z.array(workloadView).parse(JSON.parse(text));
  };
  const seen = (name: string, what: string, is: (view: WorkloadView) => boolean) =>
    until(`${name} is ${what}`, 20_000, async () => (await workloads()).find((view) => view.name === name && is(view)));
  const started = async (name: string) => await inspect(name, '{{.State.StartedAt}} {{.State.Running}}');
  const startedAgain = (name: string, before: string) =>
    until(`${name} runs again`, 40_000, async () => {
      const now = await started(name);
      return now !== before && now.endsWith('true') ? true : undefined;
    });

  before(async () => {
    host = await startPluginHost('btrfs');
    await startProxy(flock());
  });
  after(async () => await host?.dispose());

  it('knows the containers with flock volumes or labels, and not flock’s own', async () => {
    await run('db', ...mount('db'));
    await run('web', '--label', 'flock.service=web', '--device', '/dev/null');
    await run('other');
    const db = await seen('db', 'running', ({ wanted }) => wanted === 'running');
    assert.deepEqual([db.volumes, db.obstacles, db.service], [['db'], [], null]);
    const web = await seen('web', 'running', ({ wanted }) => wanted === 'running');
    assert.match(web.obstacles.join(), /^--device \/dev\/null/);
    assert.deepEqual(
      (await workloads()).map(({ name }) => name),
      ['db', 'web'],
    );
  });

  it('starts a container again whose process is killed, with its volume', async () => {
    const before = await started('db');
    await killProcess('db');
    await startedAgain('db', before);
    assert.equal(await inspect('db', '{{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}'), '0 no', 'Docker did not');
  });

  it('leaves those alone that a person stopped, until a person starts them', async () => {
    for (const words of [['stop', '-t', '1'], ['kill']]) {
      await flock().docker(...words, 'db');
      await seen('db', 'stopped', ({ wanted }) => wanted === 'stopped');
      assert.equal(await inspect('db', '{{.State.Running}}'), 'false');
      await flock().docker('start', 'db');
      await seen('db', 'running', ({ wanted }) => wanted === 'running');
    }
  });

  it('takes no restart for a stop, nor a signal that ends nothing', async () => {
    await flock().docker('restart', '-t', '1', 'db');
    await flock().docker('kill', '-s', 'HUP', 'web');
    await until('web runs, whatever SIGHUP did to it', 20_000, async () =>
      (await inspect('web', '{{.State.Running}}')) === 'true' ? true : undefined,
    );
    for (const name of ['db', 'web']) await seen(name, 'running', ({ wanted }) => wanted === 'running');
  });

  it('brings everything back that was to run when Docker is killed, or the host', async () => {
    await flock().docker('stop', '-t', '1', 'web');
    await seen('web', 'stopped', ({ wanted }) => wanted === 'stopped');
    for (const fault of ['dockerd', 'host']) {
      const before = await started('db');
      if (fault === 'host') await flock().reboot();
      else {
        await flock().killDocker();
        await flock().startDocker();
      }
      await startedAgain('db', before);
      await seen('db', 'running', ({ wanted }) => wanted === 'running');
      assert.equal(await inspect('web', '{{.State.Running}}'), 'false', 'a person had stopped it');
    }
  });

  it('goes on where it was after it was killed itself', async () => {
    await killProcess('flock-controller');
    await until('it answers', 20_000, async () => ((await workloads().catch(() => [])).length > 0 ? true : undefined));
    const before = await started('db');
    await killProcess('db');
    await startedAgain('db', before);
  });

  it('takes it for done when a container has its new name already, and not when another one has it', async () => {
    const docker = createDocker(`/proc/${flock().host.pid}/root/run/docker.sock`);
    const id = await inspect('other', '{{.Id}}');
    for (const _ of [1, 2]) await docker.rename(id, 'another');
    assert.equal(await inspect(id, '{{.Name}}'), '/another');
    await assert.rejects(docker.rename(id, 'db'), /already in use/);
    await docker.rename(id, 'other');
  });

  it('forgets what is removed', async () => {
    await flock().docker('rm', '-f', 'db', 'web', 'other');
    await until('nothing is left', 20_000, async () => ((await workloads()).length === 0 ? true : undefined));
  });
});
