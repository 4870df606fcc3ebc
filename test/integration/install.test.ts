import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Docker } from '../../packaging/docker.ts';
import { pluginDir } from '../../packaging/paths.ts';
import { pushPlugin } from '../../packaging/plugin.ts';
import { image } from '../../packaging/proof.ts';
import { onEachBackend } from '../support/suite-hosts.ts';
import { until } from '../support/until.ts';

const registry = '127.0.0.1:5000';

/** On each host the plugin that the suite installed is replaced by one from a registry, as a user without this repository has it. */
onEachBackend('docker plugin install and upgrade from a registry', (flock, backend) => {
  let next = '';
  const client: Docker = { version: '', run: (args) => flock().docker(...args) };

  before(async () => {
    await flock().docker('plugin', 'disable', '-f', 'flock');
    await flock().docker('plugin', 'rm', '-f', 'flock');
    const config = join(flock().host.disk, 'registry.yml');
    await writeFile(
      config,
      `version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: ${join(flock().host.disk, 'registry')}\nhttp:\n  addr: ${registry}\n`,
    );
    await flock().host.daemon('registry', 'docker-registry', ['serve', config]);
    await pushWhenReady('1', pluginDir);
    next = await otherVersion();
    await pushPlugin(client, { registry, version: '2', dir: next });
  });
  after(async () => await rm(next, { recursive: true, force: true }));

  async function pushWhenReady(version: string, dir: string): Promise<void> {
    await until('the registry answers', 20_000, () =>
      pushPlugin(client, { registry, version, dir }).catch(() => undefined),
    );
  }

  /** The same build under another version, with one setting more than the old manifest had. */
  async function otherVersion(): Promise<string> {
    const dir = await mkdtemp(join(tmpdir(), 'flock-next-'));
    await cp(pluginDir, dir, { recursive: true, verbatimSymlinks: true });
    const file = join(dir, 'rootfs/flock/version.json');
    const version = JSON.parse(await readFile(file, 'utf8'));
    await rm(file);
    await writeFile(file, JSON.stringify({ ...version, version: '99.0.0' }));
    const manifest = JSON.parse(await readFile(join(dir, 'config.json'), 'utf8'));
    manifest.env.push({ name: 'FLOCK_NEW_IN_99', description: '', value: 'x', settable: ['value'] });
    await writeFile(join(dir, 'config.json'), JSON.stringify(manifest));
    return dir;
  }

  it('installs under the alias flock and works with the settings given at the install', async () => {
    await flock().host.run('rm', ['-rf', '/var/lib/flock/settings.json']);
    await flock().docker(
      'plugin',
      'install',
      '--grant-all-permissions',
      '--alias',
      'flock',
      `${registry}/flock:1`,
      `FLOCK_SETTINGS=backend=${backend} trash=48h`,
    );
    assert.equal(await flock().sh('installed', 'echo data > /data/file; cat /data/file'), 'data');
    assert.equal(((await flock().json('settings', 'ls')) as { trashMs: number }).trashMs, 48 * 3_600_000);
  });

  it('is upgraded under a running container: data, options and settings are kept', async () => {
    await flock().docker('volume', 'create', '-d', 'flock', '-o', 'size=64M', '-o', 'protect=true', 'kept');
    await flock().docker(
      'run',
      '-d',
      '--name',
      'busy',
      '--network=none',
      '-v',
      'kept:/data',
      image,
      'sh',
      '-c',
      'i=0; while :; do i=$((i+1)); echo $i >> /data/log && sync /data/log || exit 1; usleep 20000; done',
    );
    await flock().disable();
    await flock().docker(
      'plugin',
      'upgrade',
      '--grant-all-permissions',
      '--skip-remote-check',
      'flock',
      `${registry}/flock:2`,
    );
    await flock().enable();
    // Docker knows of it before its own socket is there.
    const version = await until('the new plugin answers', 20_000, () =>
      flock()
        .flockctl('version')
        .catch(() => undefined),
    );
    assert.match(version, /flock 99\.0\.0/);
    assert.equal(await flock().docker('inspect', '--format', '{{.State.Running}}', 'busy'), 'true');
    const [volume] = (await flock().json('volume', 'inspect', 'kept')) as {
      sizeBytes: number;
      protect: boolean;
      mounts: number;
    }[];
    assert.deepEqual([volume?.sizeBytes, volume?.protect, volume?.mounts], [64 * 1024 ** 2, true, 1]);
    assert.equal(((await flock().json('settings', 'ls')) as { trashMs: number }).trashMs, 48 * 3_600_000);
    const seen = Number(await flock().sh('kept', 'tail -n 1 /data/log'));
    await until('the container still writes to the same data', 5_000, async () =>
      Number(await flock().sh('kept', 'tail -n 1 /data/log')) > seen ? true : undefined,
    );
    await flock().docker('rm', '-f', 'busy');
    assert.equal(await flock().sh('installed', 'cat /data/file'), 'data');
  });
});
