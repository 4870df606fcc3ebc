import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { image } from '../../packaging/proof.ts';
import { onEachBackend } from '../support/suite-hosts.ts';

onEachBackend('docker does not forget', (flock) => {
  const driverOf = (name: string) => flock().docker('volume', 'inspect', '--format', '{{.Driver}}', name);
  const localVolumes = async () => await readdir(join(flock().host.disk, 'docker', 'volumes'));
  /** Without --volume-driver, as after `docker start`: Docker has to remember whose volume it is. */
  const run = (name: string, ...command: readonly string[]) =>
    ['run', '--rm', '--network=none', '-v', `${name}:/data`, image, ...command] as const;

  it('a volume while the state file is damaged, and no container starts on an empty one', async () => {
    await flock().sh('damaged', 'echo precious > /data/file');
    const file = join(flock().host.disk, 'flock', 'state.db');
    await flock().disable();
    await copyFile(file, `${file}.good`);
    for (const journal of ['-wal', '-shm']) await rm(`${file}${journal}`, { force: true });
    await writeFile(file, randomBytes(8192));
    await flock().enable();

    await flock().dockerError(...run('damaged', 'true'));
    assert.match(await flock().flockctlError('volume', 'ls'), /state\.db is damaged/);
    assert.ok(!(await localVolumes()).includes('damaged'));

    await flock().disable();
    await rename(`${file}.good`, file);
    await flock().enable();
    assert.equal(await driverOf('damaged'), 'flock:latest');
    assert.equal(await flock().docker(...run('damaged', 'cat', '/data/file')), 'precious');
  });

  it('a volume when the connection of its question breaks twice', async () => {
    await flock().sh('broken', 'echo precious > /data/file');
    const proxy = await startCuttingProxy(flock().host.pid, 'Get', 2);
    try {
      // Docker repeats the question without its body; whether it gives up or not, there is nothing else to start on.
      const output = await flock()
        .docker(...run('broken', 'cat', '/data/file'))
        .catch(() => 'precious');
      assert.equal(output, 'precious');
      assert.ok(proxy.cut() > 0);
      assert.ok(!(await localVolumes()).includes('broken'));
    } finally {
      await proxy.stop();
    }
    assert.equal(await driverOf('broken'), 'flock:latest');
    assert.equal(await flock().docker(...run('broken', 'cat', '/data/file')), 'precious');
  });
});

onEachBackend('a volume in use', (flock) => {
  const start = (container: string, ...options: readonly string[]) =>
    flock().docker('run', '-d', '--name', container, '--network=none', ...options, image, 'sleep', '600');

  it('is known to be, whatever its path in the container', async () => {
    const points = ['/mnt/flock/volumes/x', '/propagated-mount/volumes/x', '/var/lib/flock/mnt/x'];
    for (const [index, point] of points.entries()) {
      const name = `hidden${index}`;
      await start(name, '--volume-driver=flock', '-v', `${name}:${point}`);
      const { length } = (await flock().json('trash', 'ls')) as readonly unknown[];
      assert.match(await flock().flockctlError('volume', 'rm', name), new RegExp(`in use by container ${name}`));
      assert.equal(((await flock().json('trash', 'ls')) as readonly unknown[]).length, length);
      await flock().docker('rm', '-f', name);
      await flock().flockctl('volume', 'rm', name);
    }
  });

  it('is not whatever a container sees that has all of the host', async () => {
    await start('user', '--volume-driver=flock', '-v', 'seen:/data');
    await start('agent', '-v', '/:/host:ro');
    assert.match(await flock().docker('exec', 'agent', 'cat', '/proc/mounts'), / \/host\S*\/volumes\/seen\./);
    await flock().docker('rm', '-f', 'user');
    await flock().flockctl('volume', 'rm', 'seen');
    await flock().docker('rm', '-f', 'agent');
  });
});

/** Stands between Docker and the plugin, and breaks the first connections of a call that have a body. */
async function startCuttingProxy(hostPid: number, call: string, times: number) {
  const plugins = `/proc/${hostPid}/root/run/docker/plugins`;
  const [plugin = ''] = (await readdir(plugins)).filter((name) => /^[0-9a-f]{64}$/.test(name));
  // A socket's path has at most 107 bytes.
  const folder = await mkdtemp(join(tmpdir(), 'flock-proxy-'));
  await symlink(join(plugins, plugin), join(folder, 'd'));
  const socket = join(folder, 'd', 'flock.sock');
  await rename(socket, `${socket}.real`);
  let cuts = 0;
  const server = createServer((incoming) => {
    incoming.on('error', () => undefined);
    void readRequest(incoming).then((request) => {
      if (cuts < times && request.body !== '' && request.text.includes(`/VolumeDriver.${call} `)) {
        cuts += 1;
        incoming.destroy();
        return;
      }
      const outgoing = connect(`${socket}.real`);
      outgoing.on('error', () => incoming.destroy());
      outgoing.on('close', () => incoming.destroy());
      outgoing.write(request.text);
      outgoing.pipe(incoming);
    });
  });
  await listening(server, socket);
  return {
    cut: () => cuts,
    async stop() {
      server.close();
      await rename(`${socket}.real`, socket);
      await rm(folder, { recursive: true });
    },
  };
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
}

async function readRequest(incoming: Socket): Promise<{ readonly text: string; readonly body: string }> {
  let text = '';
  return await new Promise((resolve) => {
    incoming.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      if (end < 0) return;
      const bytes = Number(/^content-length: (\d+)/im.exec(text.slice(0, end))?.[1] ?? 0);
      const body = text.slice(end + 4);
      if (body.length >= bytes) resolve({ text, body });
    });
  });
}
