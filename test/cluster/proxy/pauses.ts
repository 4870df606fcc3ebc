import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { serviceView } from '../../../controller/model/proxy-api.ts';
import type { Members } from '../../support/cluster/members.ts';
import { askWeb, load, reconnecting, runWeb, servedEverywhere } from '../../support/cluster/web.ts';
import { until } from '../../support/until.ts';

const servicesOf = (answer: unknown) => z.array(serviceView).parse(answer);

/** A service can stand still on all nodes at once, and nobody gets an error. */
export function pauses(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;
  const labelled = [
    ...['flock.service=web', 'flock.route=http://www.example.test -> 8080', 'flock.route.raw=tcp://:7001 -> 8080'],
  ];

  describe('pause, drain and release', () => {
    it('the container is replaced by one on another host under load through all nodes: nothing fails', async () => {
      await runWeb(n(1), 'web-1', labelled);
      await servedEverywhere(hosts(), 'www.example.test');
      await servedEverywhere(hosts(), 'x', 7001);
      const ended = new AbortController();
      const loads = hosts().map((entry) => load(n(3), entry, 'www.example.test', { seconds: 12 }));
      const clients = hosts().map((entry) => reconnecting(n(2), `http://${entry.address}:7001/`, 'x', ended.signal));
      for (const [from, to] of [
        [1, 2],
        [2, 1],
      ] as const) {
        await sleep(500);
        await n(3).flockctl('service', 'pause', 'web', '--for', '30s');
        await n(3).flockctl('service', 'drain', 'web', '--for', '3s');
        await n(from).docker('rm', '-f', `web-${from}`);
        await runWeb(n(to), `web-${to}`, labelled);
        await until('the new container is known everywhere', 15_000, async () => {
          const lists = await Promise.all(hosts().map(async (host) => servicesOf(await host.json('service', 'ls'))));
          const isKnown = lists.every((services) =>
            services.some(({ name, containers: { total, healthy } }) => name === 'web' && total === 1 && healthy === 1),
          );
          return isKnown ? true : undefined;
        });
        await n(3).flockctl('service', 'release', 'web');
        for (const entry of hosts())
          assert.equal((await askWeb(n(2), `http://${entry.address}/`, 'www.example.test'))?.name, `web-${to}`);
      }
      ended.abort();
      for (const { failed, requests, text } of await Promise.all(loads)) {
        assert.ok(requests > 100, text);
        assert.equal(failed, 0, text);
      }
      for (const { good, bad } of await Promise.all(clients)) {
        assert.ok(good > 3);
        assert.deepEqual(bad, []);
      }
    });

    it('drain waits for what runs, and says what is left', async () => {
      await runWeb(n(1), 'web-1', labelled);
      await servedEverywhere(hosts(), 'www.example.test');
      const slow = askWeb(n(3), `http://${n(2).address}/slow`, 'www.example.test');
      await sleep(150);
      await n(3).flockctl('service', 'pause', 'web', '--for', '20s');
      await n(3).flockctl('service', 'drain', 'web', '--for', '5s');
      // It was let to its end, while the pause still holds.
      assert.equal((await slow)?.name, 'web-1');
      const held = askWeb(n(3), `http://${n(2).address}/`, 'www.example.test');
      assert.equal(await Promise.race([held, sleep(500, 'held')]), 'held');
      await n(1).flockctl('service', 'release', 'web');
      assert.equal((await held)?.name, 'web-1');
    });

    it('a pause that nobody releases ends by itself', async () => {
      await runWeb(n(1), 'web-1', labelled);
      await servedEverywhere(hosts(), 'www.example.test');
      await n(3).flockctl('service', 'pause', 'web', '--for', '2s');
      for (const entry of hosts())
        assert.equal((await askWeb(n(3), `http://${entry.address}/`, 'www.example.test'))?.name, 'web-1');
    });
  });
}
