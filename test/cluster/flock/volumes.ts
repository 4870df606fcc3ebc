import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { image } from '../../../packaging/proof.ts';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import {
  createVolume,
  fill,
  listed,
  type Members,
  settled,
  snapshotsOf,
  sumOf,
  volumeOf,
  volumesOf,
} from '../../support/cluster/members.ts';
import { startWriter } from '../../support/cluster/records.ts';
import { until } from '../../support/until.ts';

/** Volumes are the same on every node, and come where a container wants them. */
export function volumes(members: () => Members): void {
  const hosts = () => members().cluster.hosts;
  const n = (number: number): ClusterHost => members().n(number);

  /** A change shows on the other nodes a moment later. */
  const untilListed = (host: ClusterHost, wanted: readonly (readonly [name: string, owner: string, size: number])[]) =>
    until(`${host.name} lists ${wanted.join('; ')}`, 5_000, async () => {
      const views = (await listed(host)).map(({ name, owner, sizeBytes }) => [name, owner, sizeBytes]);
      return views.join(';') === wanted.join(';') ? true : undefined;
    });

  describe('volumes follow their containers', () => {
    it('the data is there on every node, as one container after another finds it', async () => {
      for (const host of hosts()) await host.sh('follow', `echo ${host.name} >> /data/x`);
      assert.equal(await n(1).sh('follow', 'cat /data/x'), 'n1\nn2\nn3');
      const { doc } = await volumeOf(members(), 'follow');
      assert.deepEqual([doc.owner, doc.epoch], ['n1', 4]);
    });

    it('the limit of its size goes with it, soon after the data', async () => {
      await createVolume(n(1), 'limited', ['size=16M', 'replicas=1']);
      const script =
        'dd if=/dev/zero of=/data/big bs=1M count=64 conv=fsync 2> /dev/null && echo no limit; rm -f /data/big';
      for (const host of [n(1), n(2), n(1)])
        await until(`${host.name} limits it`, 30_000, async () =>
          (await host.sh('limited', script)) === '' ? true : undefined,
        );
      await n(1).flockctl('volume', 'rm', 'limited');
    });

    it('every node lists and shows the volumes of all', async () => {
      for (const host of hosts()) await createVolume(host, `of-${host.name}`, ['size=64M', 'replicas=0']);
      const wanted = hosts().map(({ name }) => [`of-${name}`, name, 64 * 1024 ** 2] as const);
      for (const host of hosts()) {
        await untilListed(host, wanted);
        const names = (await host.docker('volume', 'ls', '-q', '--filter', 'driver=flock:latest')).split('\n').sort();
        assert.deepEqual(names, ['of-n1', 'of-n2', 'of-n3']);
        for (const name of names) {
          const [inspected] = JSON.parse(await host.docker('volume', 'inspect', name)) as {
            Name: string;
            Driver: string;
          }[];
          assert.deepEqual([inspected?.Name, inspected?.Driver], [name, 'flock:latest']);
          await createVolume(host, name, ['size=64M']);
        }
      }
      assert.equal((await volumesOf(members())).length, 3);
    });

    it('one name created on all nodes at once is one volume', async () => {
      await Promise.all(hosts().map((host) => createVolume(host, 'at-once', ['replicas=0'])));
      const found = (await volumesOf(members())).filter(({ doc }) => doc.name === 'at-once');
      assert.equal(found.length, 1);
      const runs = await Promise.allSettled(hosts().map((host) => host.sh('at-once', `echo ${host.name} >> /data/x`)));
      const wrote = hosts().filter((_host, index) => runs[index]?.status === 'fulfilled');
      assert.ok(wrote.length > 0);
      const lines = (await n(1).sh('at-once', 'sort /data/x')).split('\n');
      assert.deepEqual(
        lines,
        wrote.map(({ name }) => name),
      );
    });

    it('a volume in use is refused elsewhere, naming node and container', async () => {
      const writer = { container: 'busy-writer', volume: 'busy' };
      await startWriter(n(1), writer);
      // Until its own program runs, what holds the volume is a process of Docker's, in no container yet.
      await until('it writes', 10_000, () =>
        n(1)
          .docker('exec', writer.container, 'test', '-s', '/data/records')
          .then(
            () => true,
            () => undefined,
          ),
      );
      const refusal = await n(2).dockerError(
        'run',
        '--rm',
        '-v',
        'busy:/data',
        '--volume-driver=flock',
        'flock/busybox',
        'true',
      );
      assert.match(refusal, /in use by container busy-writer/);
      assert.match(refusal, /node n1/);
      await n(1).docker('rm', '-f', writer.container);
      assert.match(await n(2).sh('busy', 'tail -n 1 /data/records'), / n1 /);
    });

    it('flockctl on a node that is not the owner has the owner do it', async () => {
      await n(1).sh('remote', 'echo one > /data/x');
      await n(2).flockctl('snapshot', 'create', 'remote', 'first');
      assert.ok((await snapshotsOf(n(3), 'remote')).some(({ name }) => name === 'first'));
      await n(3).flockctl('volume', 'resize', 'remote', '80M');
      await untilListed(n(2), [['remote', 'n1', 80 * 1024 ** 2]]);
      await n(2).flockctl('volume', 'set', 'remote', 'protect=true');
      await assert.rejects(n(3).flockctl('volume', 'rm', 'remote'), /protect/);
      await n(2).flockctl('volume', 'set', 'remote', 'protect=false');
      await n(2).docker('volume', 'rm', 'remote');
      for (const host of hosts()) await untilListed(host, []);
      await n(1).flockctl('trash', 'restore', 'remote');
      assert.equal(await n(3).sh('remote', 'cat /data/x'), 'one');
      assert.equal((await volumeOf(members(), 'remote')).doc.owner, 'n3');
    });

    it('snapshots that people make come with the volume, and bring its content back on another node', async () => {
      await createVolume(n(1), 'history', ['replicas=1', 'remote-replicas=1']);
      await n(1).sh('history', 'echo first > /data/x');
      await n(1).flockctl('snapshot', 'create', 'history', 'before');
      await n(1).sh('history', 'echo second > /data/x');
      await settled(members());
      for (const host of [n(2), n(3)]) {
        assert.equal(await host.sh('history', 'cat /data/x'), 'second');
        assert.ok((await snapshotsOf(host, 'history')).some(({ name }) => name === 'before'));
      }
      await n(3).flockctl('rollback', 'history', 'before');
      assert.equal(await n(3).sh('history', 'cat /data/x'), 'first');
      assert.equal(await n(1).sh('history', 'cat /data/x'), 'first');
    });

    it('a large volume on its way is told of in time, with how far it is, and arrives', async () => {
      await createVolume(n(1), 'large', ['replicas=0']);
      const sum = await fill(n(1), 'large', 200);
      await n(1).flockctl('settings', 'set', 'transfer-limit=9M');
      try {
        const startMs = performance.now();
        await n(2).docker(
          'create',
          '--name',
          'reader',
          '--volume-driver=flock',
          '-v',
          'large:/data',
          'flock/busybox',
          'md5sum',
          '/data/blob',
        );
        const refusal = await n(2).dockerError('start', '-a', 'reader');
        assert.ok(performance.now() - startMs < 25_000, 'Docker gave up before it was told why');
        assert.match(refusal, /on its way from node n1 \(\d+ MiB( of \d+ MiB)? sent\)/);
        const answer = await until('the container starts', 60_000, () =>
          n(2)
            .docker('start', '-a', 'reader')
            .catch(() => undefined),
        );
        assert.equal(answer.split(' ')[0], sum.split(' ')[0]);
      } finally {
        await n(1).flockctl('settings', 'set', 'transfer-limit=none');
      }
      assert.equal(await sumOf(n(3), 'large'), sum);
    });

    it('Compose on another node goes on with the data', async () => {
      const file = join(members().cluster.folder, 'compose.yaml');
      await writeFile(
        file,
        `version: "3.7"
services:
  app:
    image: flock/busybox:latest
    command: sh -c "hostname >> /data/x; sync; sleep 1000"
    hostname: app
    stop_grace_period: 0s
    network_mode: none
    volumes: ["data:/data"]
volumes:
  data:
    driver: flock:latest
`,
      );
      for (const [index, host] of hosts().entries()) {
        const compose = (...args: readonly string[]) =>
          host.host.run('docker-compose', ['-p', 'stack', '-f', file, ...args], 120_000);
        await compose('up', '-d');
        await until(`the app on ${host.name} has written`, 20_000, async () => {
          const text = await compose('exec', '-T', 'app', 'cat', '/data/x');
          return text.trim().split('\n').length === index + 1 ? true : undefined;
        });
        await compose('down');
      }
    });

    it('a service that Swarm starts on another node goes on with the data', async () => {
      const [manager, ...workers] = hosts();
      assert.ok(manager !== undefined);
      await manager.docker('swarm', 'init', '--advertise-addr', manager.address);
      const token = (await manager.docker('swarm', 'join-token', '-q', 'worker')).trim();
      for (const worker of workers) await worker.docker('swarm', 'join', '--token', token, `${manager.address}:2377`);
      try {
        const mount = 'type=volume,source=swarmed,target=/data,volume-driver=flock:latest';
        const pace = ['--restart-delay', '1s', '--stop-grace-period', '1s', '--no-resolve-image', '--detach'];
        const script = 'while :; do hostname >> /data/x; sync; sleep 0.2; done';
        await manager.docker(
          'service',
          'create',
          '--name',
          'counter',
          ...pace,
          '--mount',
          mount,
          image,
          'sh',
          '-c',
          script,
        );
        const first = await runningOn(manager, null);
        await until('the first task has written', 20_000, async () => {
          const written = await first.docker('exec', await taskOf(first), 'cat', '/data/x').catch(() => '');
          return written.split('\n').length > 3 ? true : undefined;
        });
        await manager.docker('node', 'update', '--availability', 'drain', first.name);
        const second = await runningOn(manager, first);
        await until('both tasks have written to the one volume', 20_000, async () => {
          const written = await second.docker('exec', await taskOf(second), 'cat', '/data/x').catch(() => '');
          return new Set(written.split('\n').slice(0, -1)).size === 2 ? true : undefined;
        });
      } finally {
        await manager.docker('service', 'rm', 'counter').catch(() => '');
        for (const host of [...workers, manager]) await host.docker('swarm', 'leave', '--force');
      }
    });

    /** The host on which Swarm's task runs; another one than `not`. */
    async function runningOn(manager: ClusterHost, not: ClusterHost | null): Promise<ClusterHost> {
      return await until(
        `the task runs${not === null ? '' : ` on another host than ${not.name}`}`,
        60_000,
        async () => {
          const lines = await manager.docker('service', 'ps', 'counter', '--format', '{{.Node}} {{.CurrentState}}');
          const names = lines.split('\n').flatMap((line) => /^(\S+) Running/.exec(line)?.[1] ?? []);
          return hosts().find(({ name }) => names.includes(name) && name !== not?.name);
        },
      );
    }

    const taskOf = async (host: ClusterHost) => (await host.docker('ps', '-q', '--filter', 'name=counter')).trim();
  });
}
