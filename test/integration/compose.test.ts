import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { importImage } from '../support/app-image.ts';
import { onEachBackend } from '../support/suite-hosts.ts';
import { until } from '../support/until.ts';

const file = resolve(import.meta.dirname, '../../examples/redis/compose.yaml');

onEachBackend('the compose example', (flock) => {
  before(async () => await importImage(flock(), 'redis:7', ['/usr/bin/redis-server', '/usr/bin/redis-cli']));

  const compose = (...args: readonly string[]) => flock().host.run('docker-compose', ['-f', file, ...args], 120_000);
  const redis = (...args: readonly string[]) => compose('exec', '-T', 'db', 'redis-cli', ...args);
  const answering = () =>
    until('redis answers', 20_000, async () =>
      (await redis('ping').catch(() => '')).includes('PONG') ? true : undefined,
    );

  it('makes the volume with its options and keeps the data over down and up', async () => {
    await compose('up', '-d');
    await answering();
    assert.match(await redis('set', 'key', 'value'), /OK/);
    await compose('down');
    await compose('up', '-d');
    await answering();
    assert.match(await redis('get', 'key'), /value/);
    const [volume] = (await flock().json('volume', 'inspect', 'redis_data')) as { sizeBytes: number }[];
    assert.equal(volume?.sizeBytes, 256 * 1024 ** 2);
  });

  it('moves the volume to the trash with down -v, and brings it back', async () => {
    await compose('down', '-v');
    assert.doesNotMatch(await flock().docker('volume', 'ls', '-q'), /redis_data/);
    await flock().flockctl('trash', 'restore', 'redis_data');
    // Docker forgot the options with the volume, and Compose v1 compares them; this changes nothing else.
    await flock().docker('volume', 'create', '-d', 'flock:latest', '-o', 'size=256M', 'redis_data');
    await compose('up', '-d');
    await answering();
    assert.match(await redis('get', 'key'), /value/);
    await compose('down');
  });
});
