import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import {
  answersFrom,
  checkNoted,
  counterOf,
  loadCounter,
  notedBy,
  ownerOf,
  startCounter,
} from '../../support/cluster/counting.ts';
import { copiesOf, createVolume, fill, type Members, settled, sumOf } from '../../support/cluster/members.ts';
import {
  describe as describeMove,
  forgotten,
  known,
  move,
  reaches,
  startMove,
  workloadsOf,
} from '../../support/cluster/moving.ts';
import type { RequestLoad } from '../../support/cluster/request-load.ts';
import { load, runWeb, servedEverywhere } from '../../support/cluster/web.ts';
import { until } from '../../support/until.ts';

/** In a further part of the host's own addresses, by which the counter knows where it runs. */
const networks = { front: 1, back: 2 } as const;
const db = 'db';
const app = counterOf('app');
const plain = { name: 'plain', host: 'plain.example.test' };
const databaseVolumes = ['db-data', 'db-log'] as const;
const volumes = [app.volume, ...databaseVolumes];
const servesAgainMsMax = 90_000;
/** What nobody changes is in all copies by then. */
const replicatedMs = 3_000;

/** What shares volumes goes as one, in order, with networks and all; what only shares a network stays. */
export function groups(members: () => Members): void {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;

  /** Both of them on the first host: the database with two volumes, and what has these and one of its own. Options of the volumes. */
  async function begin(ofDatabase: readonly string[] = [], ofApp: readonly string[] = []): Promise<void> {
    for (const volume of databaseVolumes) await createVolume(n(1), volume, ofDatabase);
    const mounts = ['--volume-driver=flock', '-v', 'db-data:/db', '-v', 'db-log:/log:ro'];
    await n(1).docker(
      ...['run', '-d', '--name', db, '--stop-timeout', '2', '--network', 'front', '--network-alias', 'database'],
      ...[...mounts, 'flock/busybox:latest', 'sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1 & wait $!; done'],
    );
    const run = ['--volumes-from', db, '--network', 'front', '--network-alias', 'shop', '-p', '9099:8080'];
    await startCounter(n(1), app, { volume: ofApp, run });
    await n(1).docker('network', 'connect', '--alias', 'behind', 'back', app.name);
    for (const name of [db, app.name]) await known(members(), n(1), name);
    await until('both networks of it are known', 20_000, async () =>
      (await workloadsOf(members())).some(({ name, spec }) => name === app.name && 'back' in spec.networks)
        ? true
        : undefined,
    );
    await answersFrom(hosts(), app, 'n1');
  }

  /** All of it is on this host and nothing of it elsewhere, as it was, and in the order that it needs. */
  async function allOn(host: ClusterHost, before: unknown): Promise<void> {
    const up = hosts().filter((one) => one.isUp());
    await answersFrom(up, app, host.name, servesAgainMsMax);
    for (const volume of volumes) assert.equal((await ownerOf(members(), volume)).name, host.name, volume);
    assert.deepEqual(await shapesOn(host), before);
    const docs = (await workloadsOf(members())).filter(({ name }) => name === db || name === app.name);
    assert.deepEqual(
      docs.map(({ name, node, wanted, move: part }) => [name, node, wanted, part]).toSorted(),
      [app.name, db].map((name) => [name, host.name, 'running', null]),
    );
    const startedAt = async (name: string) =>
      Date.parse(await host.docker('inspect', '--format', '{{.State.StartedAt}}', name));
    assert.ok((await startedAt(db)) < (await startedAt(app.name)), 'the database has to be started first');
    for (const other of up.filter((one) => one !== host))
      await until(`nothing of it is on ${other.name}`, 20_000, async () => {
        const names = (await other.docker('ps', '-a', '--format', '{{.Names}}')).split('\n');
        return names.includes(db) || names.includes(app.name) ? undefined : true;
      });
    // By the names that they have in their network.
    await host.docker('exec', db, 'ping', '-c', '1', '-W', '5', 'shop');
    const dns = "require('node:dns').lookup('database', (error) => process.exit(error === null ? 0 : 1))";
    await host.docker('exec', app.name, '/usr/bin/node', '-e', dns);
    const neighbour = ['run', '--rm', '--network', 'back', 'flock/busybox:latest'];
    await host.docker(...neighbour, 'ping', '-c', '1', '-W', '5', 'behind');
  }

  async function nothingLost(host: ClusterHost, loads: readonly RequestLoad[]): Promise<void> {
    const results = await Promise.all(loads.map((one) => one.stop()));
    const { answered, failed, faults } = checkNoted(await notedBy(host, app), results);
    assert.deepEqual([failed, faults], [[], []]);
    assert.ok(answered > 50, `${answered} requests`);
  }

  const shapesOn = (host: ClusterHost) => Promise.all([db, app.name].map((name) => shapeOf(host, name)));

  describe('services that hang together', () => {
    before(async () => {
      for (const host of hosts())
        for (const [name, part] of Object.entries(networks))
          await host.docker('network', 'create', '--subnet', `172.${20 + host.number}.${part}.0/24`, name);
    });
    after(async () => {
      for (const host of hosts()) await host.docker('network', 'rm', ...Object.keys(networks));
    });

    it('a database with two volumes, and what has --volumes-from it, a volume of its own and two networks, move together, whichever is named', async () => {
      await begin();
      // In the same network, and no part of it.
      const labels = [`flock.service=${plain.name}`, `flock.route=http://${plain.host} -> 8080`];
      await runWeb(n(1), plain.name, labels, ['--network', 'front', '--stop-timeout', '2']);
      await known(members(), n(1), plain.name);
      await servedEverywhere(hosts(), plain.host);
      const sum = await fill(n(1), 'db-data', 20);
      const before = await shapesOn(n(1));
      const loads = loadCounter(hosts(), app);
      const wrk = load(n(3), n(2), plain.host, { seconds: 15, connections: 2 });
      for (const [named, to] of [
        [db, n(2)],
        [app.name, n(3)],
      ] as const) {
        const doc = await move(members(), n(1), named, to);
        assert.deepEqual(
          doc.members.map(({ name }) => name),
          [db, app.name],
        );
        await allOn(to, before);
        assert.equal(await sumOf(to, 'db-data'), sum);
        assert.equal(await n(1).docker('inspect', '--format', '{{.State.Running}}', plain.name), 'true');
      }
      const networkOf = async (host: ClusterHost) => await shapeOf(host, plain.name);
      const own = await networkOf(n(1));
      const { members: alone } = await move(members(), n(2), plain.name, n(2));
      assert.equal(alone.length, 1);
      assert.deepEqual(await networkOf(n(2)), own);
      await nothingLost(n(3), loads);
      const { failed, requests, text } = await wrk;
      assert.equal(failed, 0, text);
      assert.ok(requests > 50, text);
      await n(2).docker('rm', '-f', plain.name);
      await forgotten(members(), plain.name);
    });

    it('one of them can’t be started on the target, where the other runs already: both are back, and go when it can', async () => {
      await begin();
      const sum = await fill(n(1), 'db-data', 150);
      const before = await shapesOn(n(1));
      await n(2).docker('create', '--name', 'other', '-p', '9099:80', 'flock/busybox:latest', 'sleep', '10000');
      const loads = loadCounter(hosts(), app);
      const moving = startMove(members(), n(3), db, n(2));
      await reaches(members(), moving, 'copying');
      await n(2).docker('start', 'other');
      const { move: doc, said, failed } = await moving.over;
      assert.ok(failed, said);
      assert.equal(doc.step, 'failed', describeMove(doc));
      assert.equal(doc.failure?.step, 'starting', describeMove(doc));
      assert.match(doc.failure?.reason ?? '', /app.*(9099|port)/);
      assert.match(await n(3).flockctl('moves', 'show', doc.id), /9099|port/);
      await allOn(n(1), before);
      assert.equal(await sumOf(n(1), 'db-data'), sum);
      await n(2).docker('rm', '-f', 'other');
      await move(members(), n(3), db, n(2));
      await allOn(n(2), before);
      assert.equal(await sumOf(n(2), 'db-data'), sum);
      await nothingLost(n(2), loads);
    });

    it('their host is killed, and the copies of their volumes are on two others: both are made on one of these', async () => {
      const database = ['replicas=1', 'remote-replicas=0'];
      await begin(database, ['replicas=0', 'remote-replicas=1']);
      const sum = await fill(n(1), 'db-data', 20);
      const before = await shapesOn(n(1));
      await until('all volumes have their copy', 60_000, async () => {
        const copies = await copiesOf(n(1));
        const places = copies.flatMap(({ volume, node, snapshot }) => (snapshot === null ? [] : [`${volume} ${node}`]));
        return volumes.every((one) => places.includes(`${one} ${one === app.volume ? 'n3' : 'n2'}`)) ? true : undefined;
      });
      await sleep(replicatedMs);
      await settled(members());
      await n(1).kill();
      const nodes = await until('both are made elsewhere', servesAgainMsMax, async () => {
        // Consul may have to elect another leader first.
        const all = await workloadsOf(members()).catch(() => []);
        const docs = all.filter(({ name }) => name === db || name === app.name);
        return docs.length === 2 && docs.every(({ node, containerId }) => node !== 'n1' && containerId !== null)
          ? docs.map(({ node }) => node)
          : undefined;
      });
      const now = nodes[0] === 'n2' ? n(2) : n(3);
      assert.deepEqual(nodes, [now.name, now.name]);
      await allOn(now, before);
      assert.equal(await sumOf(now, 'db-data'), sum);
      await n(1).boot();
      await settled(members(), 120_000);
      await allOn(now, before);
    });
  });
}

type Inspected = {
  readonly Id: string;
  readonly Config: { readonly Hostname: string };
  readonly HostConfig: { readonly NetworkMode: string };
  readonly Mounts: readonly {
    readonly Type: string;
    readonly Name: string;
    readonly Destination: string;
    readonly Driver: string;
    readonly RW: boolean;
  }[];
  readonly NetworkSettings: {
    readonly Networks: Readonly<
      Record<string, { readonly Aliases: readonly string[] | null; readonly IPAMConfig: object | null }>
    >;
  };
};

/** Mounts and networks of a container, without what Docker gives to each: ids and addresses. */
async function shapeOf(host: ClusterHost, container: string): Promise<unknown> {
  const [found] = JSON.parse(await host.docker('inspect', container)) as readonly [Inspected];
  const { Id: id, Config, HostConfig, Mounts, NetworkSettings } = found;
  // Docker adds the id and the host name, which is the first container's id, to the aliases.
  const isItsOwn = (alias: string) => id.startsWith(alias) || alias === Config.Hostname;
  return {
    container,
    hostname: Config.Hostname,
    network: HostConfig.NetworkMode,
    networks: Object.entries(NetworkSettings.Networks)
      .map(([name, { Aliases, IPAMConfig }]) => ({
        name,
        aliases: (Aliases ?? []).filter((alias) => !isItsOwn(alias)).toSorted(),
        asked: IPAMConfig ?? {},
      }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    mounts: Mounts.map(({ Type, Name, Destination, Driver, RW }) => ({ Type, Name, Destination, Driver, RW })).toSorted(
      (a, b) => (a.Destination < b.Destination ? -1 : 1),
    ),
  };
}
