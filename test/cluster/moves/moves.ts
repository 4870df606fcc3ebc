import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { createdLabel, workloadLabel } from '../../../controller/model/container-spec.ts';
import type { MoveDoc } from '../../../controller/model/move.ts';
import { pauseMsOf } from '../../../controller/model/move-summary.ts';
import { importApp } from '../../support/app-import.ts';
import { appUserOption, appVolumeOptions, nginx } from '../../support/apps.ts';
import { startBrowser } from '../../support/cluster/browser.ts';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import {
  answersFrom,
  checkNoted,
  counterOf,
  loadCounter,
  notedBy,
  startCounter,
} from '../../support/cluster/counting.ts';
import { createVolume, type Members, stashesOf, volumeOf } from '../../support/cluster/members.ts';
import { describe as describeMove, happened, known, move, workloadsOf } from '../../support/cluster/moving.ts';
import { load } from '../../support/cluster/web.ts';

/** FLOCK_MOVES: how often the service is moved (`make cluster-moves`). */
const count = Number(process.env['FLOCK_MOVES'] || 8);

/** Nobody notices that a service goes to another host. */
export function movesUnderLoad(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;
  const next = (host: ClusterHost) => n((host.number % hosts().length) + 1);

  describe('moves under load', () => {
    it(`${count} times: no request fails, none is lost, none is done twice`, async function () {
      this.timeout(120_000 + count * 40_000);
      const counter = counterOf('web');
      await startCounter(n(1), counter);
      await known(members(), n(1), 'web');
      await answersFrom(hosts(), counter, 'n1');
      const startMs = performance.now();
      // Clients wait in each pause, four tenths of the time; asking so often they get 200 answers a second on average all the same.
      const loads = loadCounter(hosts(), counter, null, { pauseMs: 35 });
      const browser = startBrowser(n(3), n(2), counter.host);
      const done: MoveDoc[] = [];
      let at = n(1);
      for (let index = 0; index < count; index += 1) {
        await sleep(700);
        const to = next(at);
        // Asked of each of the hosts in turn: of the source, the target, and the third one.
        done.push(await move(members(), n((index % hosts().length) + 1), 'web', to));
        at = to;
      }
      await sleep(1_000);
      const seconds = (performance.now() - startMs) / 1000;
      const longest = Math.max(...loads.map((one) => one.seen().longestMs));
      const results = await Promise.all(loads.map((one) => one.stop()));
      const shown = await browser.stop();
      const { answered, failed, faults } = checkNoted(await notedBy(at, counter), results);
      console.log(
        `      ${answered} requests and ${shown.loads} loads of a page in ${Math.round(seconds)} s (${Math.round(answered / seconds)} a second), the longest took ${longest} ms; pauses of ${done.map(pauseMsOf).join(', ')} ms`,
      );
      const slowest = done.toSorted((a, b) => (pauseMsOf(a) ?? 0) - (pauseMsOf(b) ?? 0)).at(-1);
      if (slowest !== undefined)
        console.log(`      the slowest was ${describeMove(slowest).replaceAll('\n', '\n      ')}`);
      assert.deepEqual(failed, []);
      assert.deepEqual(faults, []);
      assert.ok(answered > count * 50, `${answered} requests`);
      assert.deepEqual(shown.failed, []);
      assert.ok(shown.loads > count, `${shown.loads} loads of the page`);

      const docs = await workloadsOf(members());
      assert.deepEqual(
        docs.map(({ name, node, move: part }) => [name, node, part]),
        [['web', at.name, null]],
      );
      assert.equal((await volumeOf(members(), counter.volume)).doc.owner, at.name);
      for (const host of hosts()) {
        const names = (await host.docker('ps', '-a', '--format', '{{.Names}}')).split('\n');
        assert.equal(names.includes('web'), host === at, `${host.name} has ${names.join(', ')}`);
      }
      assert.ok((await happened(members(), 'move-done', /web/)).length >= Math.min(count, 8));
      // Nothing was lost, so nothing is kept as if it were.
      for (const host of hosts()) assert.deepEqual(await stashesOf(host), []);
    });
  });
}

/** A container is elsewhere what it was before. */
export function nginxMoved(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;

  describe('moves of Debian’s programs', () => {
    it('nginx, with all that its container was made with, from a host that alone has its image', async () => {
      const counter = { ...counterOf('shop'), volume: 'shop-data' };
      await importApp(n(1), nginx);
      await createVolume(n(1), counter.volume, appVolumeOptions);
      const options = [
        ...['--name', 'shop', '--hostname', 'shop-1', '--label', 'flock.service=shop', '--label', 'kind=a shop'],
        ...['--label', `flock.route=http://${counter.host} -> 8080`, '-e', 'GREETING=good morning', appUserOption],
        ...['--memory', '64m', '--cpus', '0.5', '--restart', 'on-failure:3', '-p', '8099:8080', '--init'],
        ...['--stop-signal', 'SIGQUIT', '--stop-timeout', '5', '--read-only', '--tmpfs', '/tmp:mode=1777'],
        ...['--health-cmd', 'grep -q . /tmp/nginx.pid', '--health-interval', '1s', '--log-opt', 'max-size=1m'],
        ...['--volume-driver=flock', '-v', `${counter.volume}:/data`],
      ];
      await n(1).docker('run', '-d', ...options, nginx.name);
      await known(members(), n(1), 'shop');
      await answersFrom(hosts(), counter, '-');
      const before = await madeWith(n(1), 'shop');
      // Asked of a host that has nothing to do with it.
      assert.match(
        await n(3).flockctl('move', 'shop', 'n2', '--dry-run'),
        new RegExp(`${counter.volume} +(yes|no) +([\\d.]+ [KM]?i?B|what has changed)`),
      );
      const loads = loadCounter(hosts(), counter);
      const wrk = load(n(3), n(2), counter.host, { seconds: 8, connections: 4 });
      for (const to of [2, 3, 1]) {
        await move(members(), n(2), 'shop', n(to));
        assert.deepEqual(await madeWith(n(to), 'shop'), before);
        assert.match(await n(to).host.run('curl', ['-sS', `http://127.0.0.1:8099/ready`]), /ready/);
      }
      const results = await Promise.all(loads.map((one) => one.stop()));
      // What has no id is noted as "-".
      const noted = (await n(1).docker('exec', 'shop', 'cat', '/data/requests')).replaceAll(/^-\n/gm, '');
      const { answered, failed, faults } = checkNoted(noted, results);
      assert.deepEqual([failed, faults], [[], []]);
      assert.ok(answered > 100, `${answered} requests`);
      const { failed: broken, requests, text } = await wrk;
      assert.ok(requests > 50, text);
      assert.equal(broken, 0, text);
    });
  });
}

/** What a container was made with, without what may differ from host to host, and the marks by which flock knows it again. */
async function madeWith(host: ClusterHost, container: string): Promise<unknown> {
  const [found] = JSON.parse(await host.docker('inspect', container)) as [
    {
      readonly Config: Record<string, unknown> & {
        readonly Labels: Record<string, string>;
        readonly Entrypoint: unknown;
      };
      readonly HostConfig: Record<string, unknown>;
      readonly Image: string;
    },
  ];
  const { Config: config, HostConfig: hostConfig, Image: image } = found;
  // A volume that is there already needs no driver, and Docker writes mounts that it was given through its API in another place.
  const { Binds: _binds, Mounts: _mounts, VolumeDriver: _driver, CgroupParent: _parent, ...rest } = hostConfig;
  const { Volumes: _volumes, Labels: labels, Entrypoint: entrypoint, ...own } = config;
  const { [workloadLabel]: _mark, [createdLabel]: _created, ...ownLabels } = labels;
  // None by the user's wish, or by the image's: it comes to the same.
  return { image, config: own, labels: ownLabels, entrypoint: entrypoint ?? [], hostConfig: rest };
}
