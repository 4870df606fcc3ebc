import assert from 'node:assert/strict';
import { image } from '../../../packaging/proof.ts';
import type { Members } from '../../support/cluster/members.ts';
import { askWeb, curl, load, reconnecting, runWeb, servedEverywhere } from '../../support/cluster/web.ts';
import { until } from '../../support/until.ts';

type RouteRow = { readonly state: string; readonly reason: string | null };

/** Any request to any node reaches the service. */
export function routes(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;
  const labelled = ['flock.service=web', 'flock.route=http://www.example.test -> 8080'];

  describe('routes by labels', () => {
    it('a container on one host is reached at every one, and sees the client', async () => {
      await runWeb(n(1), 'web-1', labelled);
      await servedEverywhere(hosts(), 'www.example.test');
      for (const entry of hosts()) {
        const answer = await askWeb(n(3), `http://${entry.address}/a/b?c=d`, 'www.example.test');
        assert.ok(answer !== null);
        assert.deepEqual([answer.name, answer.url], ['web-1', '/a/b?c=d']);
        assert.equal(answer.headers['x-forwarded-for'], n(3).address);
        assert.equal(answer.headers['host'], 'www.example.test');
      }
      assert.equal(await curl(n(2), `http://${n(2).address}/`, 'other.example.test'), null);
    });

    it('containers of one service on several hosts share its requests, and one that ends fails nobody', async () => {
      await runWeb(n(1), 'web-1', labelled);
      await runWeb(n(2), 'web-2', labelled);
      await servedEverywhere(hosts(), 'www.example.test');
      const seen = new Set<string>();
      await until('both have answered', 15_000, async () => {
        seen.add((await askWeb(n(3), `http://${n(3).address}/`, 'www.example.test'))?.name ?? '');
        return seen.has('web-1') && seen.has('web-2') ? true : undefined;
      });
      const loads = hosts().map((entry) => load(n(3), entry, 'www.example.test', { seconds: 4 }));
      await n(1).docker('stop', '-t', '3', 'web-1');
      for (const { failed, requests, text } of await Promise.all(loads)) {
        assert.ok(requests > 20, text);
        // A request that ran in the container when it ended can be lost by its death; nothing else may.
        assert.ok(failed <= 8, text);
      }
      for (const entry of hosts())
        assert.equal((await askWeb(n(1), `http://${entry.address}/`, 'www.example.test'))?.name, 'web-2');
    });

    it('wildcards and paths lead to different services', async () => {
      await runWeb(n(1), 'wide', ['flock.service=wide', 'flock.route=http://*.example.test -> 8080']);
      await runWeb(n(2), 'shop', ['flock.service=shop', 'flock.route=http://*.example.test/shop -> 8080']);
      await servedEverywhere(hosts(), 'a.example.test');
      const nameOf = async (path: string) =>
        (await askWeb(n(3), `http://${n(3).address}${path}`, 'any.example.test'))?.name;
      await until('the longer path is served', 10_000, async () =>
        (await nameOf('/shop/cart')) === 'shop' ? true : undefined,
      );
      assert.equal(await nameOf('/shopping'), 'wide');
      assert.equal(await nameOf('/'), 'wide');
    });

    it('a tcp route is a port of every node', async () => {
      await runWeb(n(1), 'raw', ['flock.service=raw', 'flock.route=tcp://:7001 -> 8080']);
      await servedEverywhere(hosts(), 'x', 7001);
      // In the kernel, the local container sees who has connected.
      const { client } = (await askWeb(n(2), `http://${n(1).address}:7001/`, 'x')) ?? {};
      assert.equal(client, `::ffff:${n(2).address}`);
      const ended = new AbortController();
      const clients = hosts().map((entry) => reconnecting(n(3), `http://${entry.address}:7001/`, 'x', ended.signal));
      // The kernel does not try another one where a connection is refused.
      const slow = ['-e', 'LISTEN_AFTER_MS=3000'];
      await runWeb(n(2), 'raw-2', ['flock.service=raw', 'flock.route=tcp://:7001 -> 8080'], slow);
      await until('both have answered', 15_000, async () =>
        (await askWeb(n(3), `http://${n(3).address}:7001/`, 'x'))?.name === 'raw-2' ? true : undefined,
      );
      ended.abort();
      for (const { good, bad } of await Promise.all(clients)) {
        assert.ok(good > 5);
        assert.deepEqual(bad, []);
      }
    });
  });

  describe('routes by flockctl', () => {
    it('are added, listed and removed, and a port in use is named', async () => {
      await runWeb(n(2), 'web-1', ['flock.service=web']);
      await until('the service is known', 10_000, () =>
        n(1)
          .flockctl('route', 'add', 'http://added.example.test -> web:8080')
          .then(
            () => true,
            () => undefined,
          ),
      );
      await servedEverywhere(hosts(), 'added.example.test');
      await n(1).docker('run', '-d', '--name', 'squatter', '-p', '7002:80', image, 'sleep', '1000');
      await n(1).flockctl('route', 'add', 'tcp://:7002 -> web:8080');
      await until('the port in use is told', 15_000, async () => {
        const rows = (await n(1).json('route', 'ls')) as readonly RouteRow[];
        return rows.some(({ state, reason }) => state === 'problem' && /7002.*in use/.test(reason ?? ''))
          ? true
          : undefined;
      });
      assert.ok((await askWeb(n(1), `http://${n(1).address}/`, 'added.example.test')) !== null);
      for (const { id } of (await n(1).json('route', 'ls')) as readonly { readonly id: string }[])
        await n(1).flockctl('route', 'rm', id);
      await until('the route is gone', 10_000, async () =>
        (await curl(n(3), `http://${n(3).address}/`, 'added.example.test')) === null ? true : undefined,
      );
      await assert.rejects(n(1).flockctl('route', 'add', 'http://a.test -> nobody:80'), /nobody/);
    });
  });

  describe('inner ports', () => {
    it('are for cluster nodes only', async () => {
      await runWeb(n(1), 'web-1', labelled);
      await servedEverywhere(hosts(), 'www.example.test');
      const documents = await n(1).consulApi('GET', '/v1/kv/flock/proxy/containers/n1?recurse');
      const [{ Value = '' } = {}] = documents as readonly { readonly Value?: string }[];
      const { inner } = JSON.parse(Buffer.from(Value, 'base64').toString()) as {
        readonly inner: { readonly address: string; readonly ports: Readonly<Record<string, number>> };
      };
      const port = inner.ports['8080'];
      assert.ok(port !== undefined && inner.address === n(1).address);
      const url = `http://${n(1).address}:${port}/`;
      assert.ok((await curl(n(2), url, 'x')) !== null);
      // Not even containers, which look like their node to the other one.
      const fetch = ['run', '--rm', image, 'nc', '-w', '3', n(1).address, String(port), '-e', 'true'];
      for (const host of [n(1), n(2)]) await assert.rejects(host.docker(...fetch), host.name);
      // As it does where something listens for everybody.
      await n(2).docker(...fetch.with(7, '80'));
    });
  });
}
