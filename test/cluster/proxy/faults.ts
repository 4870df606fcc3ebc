import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import type { Members } from '../../support/cluster/members.ts';
import { askWeb, load, reconnecting, runWeb, servedEverywhere } from '../../support/cluster/web.ts';
import { startProxy } from '../../support/proxy-host.ts';
import { until } from '../../support/until.ts';

/** The data plane outlives the proxy's process, HAProxy comes back, and a store that is away changes nothing. */
export function faults(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;
  const labelled = [
    // Or it would come back elsewhere, by its own name.
    'flock.failover=none',
    ...['flock.service=web', 'flock.route=http://www.example.test -> 8080', 'flock.route.raw=tcp://:7001 -> 8080'],
  ];
  const pidOf = async (host: ClusterHost, container: string) =>
    Number(await host.docker('inspect', '--format', '{{.State.Pid}}', container));

  async function killed(host: ClusterHost, container: string): Promise<void> {
    const pid = await pidOf(host, container);
    // As the host's own Docker numbers it.
    await host.host.run('kill', ['-KILL', String(pid)]);
    await until(`${container} is another process`, 20_000, async () => {
      const now = await pidOf(host, container).catch(() => 0);
      return now > 0 && now !== pid ? true : undefined;
    });
  }

  describe('the proxy when things break', () => {
    beforeEach(async () => {
      await runWeb(n(1), 'web-1', labelled);
      await servedEverywhere(hosts(), 'www.example.test');
      await servedEverywhere(hosts(), 'x', 7001);
    });

    it('its process is killed three times under load: nobody notices', async () => {
      const ended = new AbortController();
      const loads = [1, 2].map((entry) => load(n(3), n(entry), 'www.example.test', { seconds: 12 }));
      const clients = [1, 2].map((entry) => reconnecting(n(3), `http://${n(entry).address}:7001/`, 'x', ended.signal));
      for (const host of [n(1), n(2), n(1)]) {
        await sleep(500);
        await killed(host, 'flock-proxy');
      }
      for (const host of [n(1), n(2)]) await startProxy(host);
      ended.abort();
      for (const { failed, requests, text } of await Promise.all(loads)) {
        assert.ok(requests > 100, text);
        assert.equal(failed, 0, text);
      }
      for (const { good, bad } of await Promise.all(clients)) {
        assert.ok(good > 3);
        assert.deepEqual(bad, []);
      }
      // It goes on from where it was.
      await runWeb(n(2), 'second', ['flock.service=second', 'flock.route=http://second.example.test -> 8080']);
      await servedEverywhere(hosts(), 'second.example.test');
    });

    it('HAProxy is killed and is back with all routes', async () => {
      await killed(n(2), 'flock-haproxy');
      await until('the route is served again', 10_000, async () =>
        (await askWeb(n(3), `http://${n(2).address}/`, 'www.example.test')) === null ? undefined : true,
      );
      // Changes reach the new one, too.
      await runWeb(n(2), 'second', ['flock.service=second', 'flock.route=http://second.example.test -> 8080']);
      await servedEverywhere(hosts(), 'second.example.test');
    });

    it('without the store the last table stays, also over a restart of the proxy', async () => {
      const undo = await members().cluster.takeQuorum();
      try {
        const loads = hosts().map((entry) => load(n(3), entry, 'www.example.test', { seconds: 6, connections: 4 }));
        await killed(n(1), 'flock-proxy');
        await killed(n(1), 'flock-haproxy').catch(() => undefined);
        for (const { requests } of await Promise.all(loads)) assert.ok(requests > 50);
        for (const entry of hosts())
          await until(`${entry.name} serves`, 15_000, async () =>
            (await askWeb(n(3), `http://${entry.address}/`, 'www.example.test')) === null ? undefined : true,
          );
        assert.equal((await askWeb(n(3), `http://${n(1).address}:7001/`, 'x'))?.name, 'web-1');
      } finally {
        await undo();
      }
      await members().cluster.waitForConsul();
    });

    it('a host that dies takes its containers out of the routes', async () => {
      await runWeb(n(2), 'web-2', labelled);
      const seen = new Set<string>();
      await until('both have answered', 15_000, async () => {
        seen.add((await askWeb(n(3), `http://${n(3).address}/`, 'www.example.test'))?.name ?? '');
        return seen.size >= 2 && seen.has('web-2') ? true : undefined;
      });
      await n(1).kill();
      let names: readonly (string | undefined)[] = [];
      await until('only the other one is asked', 90_000, async () => {
        const asked = Array.from({ length: 6 }, () => askWeb(n(3), `http://${n(3).address}/`, 'www.example.test'));
        names = (await Promise.all(asked)).map((answer) => answer?.name);
        return names.every((name) => name === 'web-2') ? true : undefined;
      }).catch(async (error: Error) => {
        const seenBy = await Promise.all([
          n(3).flockctl('route', 'ls'),
          n(3).flockctl('node', 'ls'),
          n(3).flockctl('proxy', 'status'),
        ]);
        throw new Error(`${error.message}: ${names.join(' ')}\n${seenBy.join('\n')}`);
      });
    });
  });
}
