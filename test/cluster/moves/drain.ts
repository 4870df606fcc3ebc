import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { labels } from '../../../packaging/proxy-containers.ts';
import { answersFrom, counterOf, loadCounter, ownerOf, startCounter } from '../../support/cluster/counting.ts';
import {
  copiesOf,
  createVolume,
  joinAnew,
  type Members,
  startReplicatedWriter,
  volumesOf,
} from '../../support/cluster/members.ts';
import { known, longFlockctl } from '../../support/cluster/moving.ts';
import type { Writer } from '../../support/cluster/records.ts';
import { until } from '../../support/until.ts';

/** Longer than it takes to be seen dead. */
const deadMs = 10_000;
const writer: Writer = { container: 'writer', volume: 'log' };

/** A node is emptied so that it can be rebooted. */
export function drains(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;
  const web = counterOf('web');

  describe('flockctl node drain', () => {
    it('empties a node of containers, volumes and copies, which is rebooted then, without a failed request; undrain opens it again, and drained once more it can be removed', async () => {
      // Wherever two of the nodes are left there is a place for each copy.
      const options = ['replicas=0', 'remote-replicas=1'];
      await startCounter(n(1), web, { volume: options });
      await startReplicatedWriter(n(1), writer, options);
      await createVolume(n(1), 'idle', options);
      const replicated = counterOf('second');
      await startCounter(n(3), replicated, { volume: options });
      for (const [host, name] of [
        [1, 'web'],
        [1, writer.container],
        [3, 'second'],
      ] as const)
        await known(members(), n(host), name);
      await answersFrom(hosts(), web, 'n1');
      await answersFrom(hosts(), replicated, 'n3');
      await until('each volume has a copy', 60_000, async () =>
        (await copiesOf(n(2))).filter(({ snapshot }) => snapshot !== null).length >= 4 ? true : undefined,
      );
      const loads = [web, replicated].flatMap((one) => loadCounter(hosts(), one));
      await longFlockctl(n(2), 'node', 'drain', 'n1');
      for (const { doc } of await volumesOf(members()))
        assert.ok(doc.owner !== 'n1' && !doc.replicas.some((name) => name === 'n1'), `${doc.name} is still there`);
      const left = await n(1).docker('ps', '--format', `{{.Names}} {{.Label "${labels.program}"}}`);
      assert.deepEqual(
        left.split('\n').filter((line) => line.trim().split(' ').length < 2),
        [],
      );
      const results = await Promise.all(loads.map((one) => one.stop()));
      assert.deepEqual(
        results.flatMap(({ workers }) => workers.flatMap(({ failed }) => failed)),
        [],
      );
      const during = [web, replicated].flatMap((one) => loadCounter([n(2), n(3)], one));
      await n(1).kill();
      await sleep(deadMs);
      await n(1).boot();
      await until('n1 is back, and still drained', 60_000, async () =>
        /^n1 +up, draining/m.test(await n(2).flockctl('node', 'ls')) ? true : undefined,
      );
      const rebooted = await Promise.all(during.map((one) => one.stop()));
      assert.deepEqual(
        rebooted.flatMap(({ workers }) => workers.flatMap(({ failed }) => failed)),
        [],
      );
      await n(2).flockctl('node', 'undrain', 'n1');
      const back = await until('n1 takes volumes again', 30_000, () =>
        createVolume(n(1), 'fresh', options)
          .then(() => n(1).sh('fresh', 'echo here > /data/file && cat /data/file'))
          .catch(() => undefined),
      );
      assert.equal(back, 'here');

      await longFlockctl(n(2), 'node', 'drain', 'n1');
      await n(1).kill();
      // It may have been Consul's leader, too.
      await members().cluster.waitForLeader();
      await until('n1 is seen dead', 30_000, async () =>
        /^n1 +DOWN/m.test(
          await n(2)
            .flockctl('node', 'ls')
            .catch(() => ''),
        )
          ? true
          : undefined,
      );
      await n(3).flockctl('node', 'rm', 'n1');
      try {
        assert.doesNotMatch(await n(2).flockctl('node', 'ls'), /^n1 /m);
      } finally {
        await n(1).boot();
        await joinAnew(n(2), n(1));
      }
      await until('n1 is a node again, with its controller', 60_000, async () =>
        /^n1 +up +\d/m.test(await n(2).flockctl('node', 'ls')) ? true : undefined,
      );
      await answersFrom(hosts(), replicated, (await ownerOf(members(), replicated.volume)).name);
      assert.equal(await n(1).sh('fresh', 'cat /data/file'), 'here');
    });
  });
}
