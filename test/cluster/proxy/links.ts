import assert from 'node:assert/strict';
import { importImage } from '../../support/app-image.ts';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import type { Members } from '../../support/cluster/members.ts';
import { until } from '../../support/until.ts';

const redisImage = 'flock-test/redis';

/** A private way from one container to a service, wherever that runs. */
export function links(members: () => Members): void {
  const n = (number: number) => members().n(number);

  before(async () => {
    for (const host of members().cluster.hosts)
      await importImage(host, redisImage, ['/usr/bin/redis-server', '/usr/bin/redis-cli']);
  });

  const runRedis = (host: ClusterHost, name: string, service: string) =>
    host.docker(
      ...['run', '-d', '--name', name, '--label', `flock.service=${service}`, redisImage],
      ...['/usr/bin/redis-server', '--protected-mode', 'no', '--save', ''],
    );
  const runClient = (host: ClusterHost, name: string, link: string | null, options: readonly string[] = []) =>
    host.docker(
      ...['run', '-d', '--name', name, ...(link === null ? [] : ['--label', `flock.link=${link}`]), ...options],
      ...[redisImage, '/bin/busybox', 'sleep', '100000'],
    );
  const redis = (host: ClusterHost, client: string, at: string, ...words: readonly string[]) =>
    host.docker('exec', client, '/usr/bin/redis-cli', '-h', at, ...words).catch((error: Error) => `${error}`);
  const answers = (host: ClusterHost, client: string, at: string, msMax = 20_000) =>
    until(`${client} reaches ${at}`, msMax, async () =>
      (await redis(host, client, at, 'ping')) === 'PONG' ? true : undefined,
    );

  describe('links', () => {
    it('localhost and a name lead to a service on another host, and on after restarts of either end', async () => {
      await runRedis(n(1), 'cache', 'redis');
      await runClient(n(2), 'client', '6379 -> redis:6379');
      await answers(n(2), 'client', '127.0.0.1');
      await answers(n(2), 'client', 'localhost');
      await answers(n(2), 'client', 'redis');
      assert.equal(await redis(n(2), 'client', 'localhost', 'set', 'a', 'b'), 'OK');
      assert.equal(await redis(n(1), 'cache', 'localhost', 'get', 'a'), 'b');
      await n(1).docker('restart', '-t', '1', 'cache');
      await answers(n(2), 'client', 'localhost');
      await n(2).docker('restart', '-t', '1', 'client');
      await answers(n(2), 'client', 'localhost');
      await answers(n(2), 'client', 'redis');
    });

    it('the service may move to another host, and back to where its client is', async () => {
      await runRedis(n(1), 'cache', 'redis');
      await runClient(n(2), 'client', '6379 -> redis:6379');
      await answers(n(2), 'client', 'localhost');
      for (const next of [3, 2]) {
        for (const host of members().cluster.hosts) await host.docker('rm', '-f', 'cache').catch(() => '');
        await runRedis(n(next), 'cache', 'redis');
        await answers(n(2), 'client', 'localhost');
      }
    });

    it('are private: two containers have one port to two services, a third has none', async () => {
      await runRedis(n(1), 'one', 'redis-one');
      await runRedis(n(3), 'two', 'redis-two');
      await n(2).docker('network', 'create', 'apart');
      try {
        await runClient(n(2), 'first', 'db:6379 -> redis-one:6379');
        await runClient(n(2), 'second', 'db:6379 -> redis-two:6379', ['--network', 'apart']);
        await runClient(n(2), 'third', null);
        for (const client of ['first', 'second']) await answers(n(2), client, 'db');
        assert.equal(await redis(n(2), 'first', 'localhost', 'set', 'who', 'one'), 'OK');
        assert.equal(await redis(n(2), 'second', 'localhost', 'set', 'who', 'two'), 'OK');
        assert.equal(await redis(n(1), 'one', 'localhost', 'get', 'who'), 'one');
        assert.equal(await redis(n(3), 'two', 'localhost', 'get', 'who'), 'two');
        assert.match(await redis(n(2), 'third', 'localhost', 'ping'), /refused/);
      } finally {
        await n(2)
          .docker('rm', '-f', 'second')
          .catch(() => '');
        await n(2).docker('network', 'rm', 'apart');
      }
    });

    it('are added and removed by flockctl, too', async () => {
      await runRedis(n(1), 'cache', 'redis');
      await runClient(n(2), 'client', null);
      await until('the service is known', 10_000, () =>
        n(3)
          .flockctl('link', 'add', 'client', '6379 -> redis:6379')
          .then(
            () => true,
            () => undefined,
          ),
      );
      await answers(n(2), 'client', 'localhost');
      const rows = (await n(1).json('link', 'ls')) as readonly { readonly id: string }[];
      for (const { id } of rows) await n(1).flockctl('link', 'rm', id);
      await until('the link is gone', 10_000, async () =>
        /refused/.test(await redis(n(2), 'client', 'localhost', 'ping')) ? true : undefined,
      );
    });
  });
}
