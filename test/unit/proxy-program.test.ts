import assert from 'node:assert/strict';
import { stat, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeAuthority } from '../../controller/cluster/ca.ts';
import { forgetIdentity } from '../../controller/cluster/files.ts';
import { dockerTimes } from '../../controller/docker/watch.ts';
import { keys } from '../../controller/model/cluster.ts';
import type { NodeName } from '../../controller/model/names.ts';
import { openEmbeddedStore } from '../../controller/store/embedded.ts';
import type { Store } from '../../controller/store/store.ts';
import { type ProxyNodeDoc, proxyKeys } from '../../proxy/model/keys.ts';
import { parseRouteText } from '../../proxy/model/labels.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import type { Pause } from '../../proxy/model/records.ts';
import { servingTimes } from '../../proxy/serving.ts';
import { dockerAnswer, here, idOf, pauseFor, there } from '../support/proxy-fakes.ts';
import { createProxyProgram, type ProxyProgram } from '../support/proxy-program.ts';
import { until } from '../support/until.ts';

const web = parseServiceName('web');
const labels = { 'flock.service': 'web', 'flock.route': 'http://www.example.com -> 8080' };
const waitMs = 4_000;

describe('the proxy’s program', () => {
  let program: ProxyProgram;
  beforeEach(async () => {
    program = await createProxyProgram();
  });
  afterEach(() => program.dispose());

  const put = (digit: string, more: object = {}, given: Readonly<Record<string, string>> = labels) => {
    program.docker.containers.set(idOf(digit), dockerAnswer(idOf(digit), `c-${digit}`, given, more));
    program.docker.changed(idOf(digit));
  };
  const set = (store: Store, key: string, value: object) =>
    store.transact([{ kind: 'set', key, value: JSON.stringify(value) }]);
  const endpoints = () =>
    [...(program.stack().table().services.get(web)?.endpoints.values() ?? [])]
      .flat()
      .map(({ host, port }) => `${host}:${port}`);
  const serves = (...wanted: readonly string[]) =>
    until(`web is served by ${wanted}`, waitMs, () => (endpoints().join() === wanted.join() ? true : undefined));
  const routes = () =>
    program
      .api()
      .seen()
      ?.collected.records.routes.map(({ id }) => id) ?? [];
  const store = () => until('there is a store', waitMs, () => attempt(() => program.api().store()));
  const entry = (key: string) => program.cluster.entries().find((one) => one.key === key);
  const nodeDoc = (): ProxyNodeDoc | undefined => {
    const found = entry(proxyKeys.node(here));
    return found === undefined ? undefined : JSON.parse(found.value);
  };
  const member = async (name: NodeName) => {
    const client = program.cluster.connect('a person');
    const session = await client.createSession({ name, ttlMs: 600_000, lockDelayMs: 0 });
    await client.transact([
      { kind: 'set', key: keys.node(name), value: '{}' },
      { kind: 'lock', key: keys.alive(name), value: '{}', session },
    ]);
    return { client, session };
  };
  const pauseWeb = (client: Store, pause: Pause | null) => set(client, proxyKeys.service(web), { name: web, pause });
  /** A member with one container of its own, which the cluster knows. */
  const joined = async () => {
    const { client } = await member(here);
    await program.join();
    put('a');
    await program.start();
    await serves('172.17.0.2:8080');
    await until('the node is known', waitMs, nodeDoc);
    return client;
  };

  it('serves what labels say, and nothing of it any more when the container is gone', async () => {
    await program.start();
    await until('an empty table is served', waitMs, () => (program.stack().generation() > 0 ? true : undefined));
    put('a');
    await serves('172.17.0.2:8080');
    assert.deepEqual([...program.stack().table().listeners.keys()], ['http *:80']);
    assert.equal(program.world().containers().get(idOf('a'))?.pid, 4321);
    put('a', { State: { Status: 'exited', Pid: 0, StartedAt: '' } });
    await serves();
    assert.deepEqual(
      [...program.stack().table().listeners.keys()],
      ['http *:80'],
      'a stopped service keeps its routes',
    );
    program.docker.containers.delete(idOf('a'));
    program.docker.changed(idOf('a'));
    await until('the listener is gone', waitMs, () =>
      program.stack().table().listeners.size === 0 ? true : undefined,
    );
  });

  it('leads nobody to a container whose program does not listen yet, unless there is no other', async () => {
    const second = { NetworkSettings: { Networks: { bridge: { IPAddress: '172.17.0.3', Gateway: '172.17.0.1' } } } };
    put('a');
    await program.start();
    await serves('172.17.0.2:8080');
    program.refusing.add('172.17.0.3');
    put('b', second);
    await until('it is known', waitMs, () =>
      program.api().seen()?.documents.containers.length === 2 ? true : undefined,
    );
    await sleep(300);
    await serves('172.17.0.2:8080');
    program.refusing.clear();
    await serves('172.17.0.2:8080', '172.17.0.3:8080');
    program.refusing.add('172.17.0.3');
    put('b', { ...second, State: { Status: 'running', Pid: 4322, StartedAt: '2026-01-01T00:00:02Z' } });
    await serves('172.17.0.2:8080');
    put('a', { State: { Status: 'exited', Pid: 0, StartedAt: '' } });
    await serves('172.17.0.3:8080');
  });

  it('gives its stack nothing while nothing changes', async () => {
    put('a');
    await program.start();
    await serves('172.17.0.2:8080');
    await sleep(200);
    const before = program.stack().tables.length;
    for (let round = 0; round < 20; round += 1) {
      program.docker.changed(idOf('a'));
      await sleep(20);
    }
    assert.equal(program.stack().tables.length, before);
  });

  it('counts the tables up, over a restart, too', async () => {
    put('a');
    await program.start();
    await serves('172.17.0.2:8080');
    await program.stop();
    const last = program.stack().generation();
    await program.start();
    await serves('172.17.0.2:8080');
    assert.ok(program.stack().generation() > last);
  });

  it('says that it is well when the newest table is served, and why if it is not', async () => {
    program.docker.away(true);
    await program.start();
    const health = (what: string, status: number) =>
      until(what, waitMs, async () => {
        const answer = await program.ask('/healthz').catch(() => null);
        return answer?.status === status ? answer.body : undefined;
      });
    assert.match(await health('it waits', 503), /ECONNREFUSED|has not answered/);
    program.docker.away(false);
    assert.match(await health('it is well', 200), /"healthy":true/);
    program.stack().fail('HAProxy does not answer');
    put('a');
    assert.match(await health('a layer is broken', 503), /layer haproxy: HAProxy does not answer/);
    program.stack().fail(null);
    await health('it was tried again', 200);
  });

  it('tells Prometheus what is served, by names that stay', async () => {
    put('a');
    await program.start();
    await serves('172.17.0.2:8080');
    const route = routes()[0] ?? null;
    const request = { method: 'GET', host: 'www.example.com', path: '/', status: 200 };
    program.world().observe({ route, service: web, client: '10.0.0.9', durationMs: 12, weight: 1, request });
    program.world().observe({
      route: null,
      service: null,
      client: '10.0.0.9',
      durationMs: 1,
      weight: 1,
      request: { ...request, status: 404 },
    });
    program
      .world()
      .observe({ route: 'link x', service: web, client: '10.0.0.9', durationMs: 1, weight: 1, request: null });
    const { body } = await program.ask('/metrics');
    const named = 'route="http://www.example.com",service="web"';
    for (const line of [
      `flock_proxy_requests_total{${named},status="200"} 1`,
      'flock_proxy_requests_total{route="none",service="none",status="404"} 1',
      `flock_proxy_request_seconds_bucket{le="0.025",${named}} 1`,
      'flock_proxy_connections_total{route="link x",service="web"} 1',
      'flock_proxy_service_backends{service="web"} 1',
      'flock_proxy_up{what="store"} 1',
      'flock_proxy_up{what="docker"} 1',
    ])
      assert.ok(body.includes(line), `${line} in\n${body}`);
    program.docker.containers.delete(idOf('a'));
    program.docker.changed(idOf('a'));
    await until('the route is gone', waitMs, () => (routes().length === 0 ? true : undefined));
    assert.ok((await program.ask('/metrics')).body.includes(named), 'told a last time');
    assert.ok(!(await program.ask('/metrics')).body.includes(named));
  });

  it('takes certificates from the folder and, before that, the store, and says why one can’t be used', async () => {
    const { certificate, key } = makeAuthority('c1', Date.now());
    await writeFile(`${program.paths.certificates}/shop.crt`, certificate);
    await writeFile(`${program.paths.certificates}/shop.key`, key);
    const https = (name: string) => `https://${name}.example -> 1 certificate=${name}`;
    put('a', {}, { 'flock.service': 'web', 'flock.route.a': https('shop'), 'flock.route.b': https('other') });
    await program.start();
    const problem = (name: string) => program.api().seen()?.problems.get(`certificate ${name}`);
    assert.match(await until('one is missing', waitMs, () => problem('other')), /flockctl certificate add other/);
    assert.equal(problem('shop'), undefined);
    assert.equal(program.world().certificate('shop')?.certificate, certificate);
    assert.notEqual(program.world().secureContext('shop'), null);
    const tables = program.stack().tables.length;
    const stored = { name: 'shop', createdAtMs: 1, certificate: 'no PEM', key };
    await set(await store(), proxyKeys.certificate('shop'), stored);
    await until('it is unusable', waitMs, () => /can't be used/.exec(problem('shop') ?? '') ?? undefined);
    assert.equal(program.world().certificate('shop'), null);
    assert.ok(program.stack().tables.length > tables, 'layers are told');
  });

  it('tells the cluster of its containers and what it serves, and nothing more while nothing changes', async () => {
    await joined();
    const key = proxyKeys.container(here, idOf('a'));
    const found = await until('the container is known', waitMs, () => entry(key));
    assert.deepEqual(Object.keys(JSON.parse(found.value).inner.ports), ['8080']);
    assert.equal(nodeDoc()?.address, '10.0.0.1');
    const before = program.cluster.entries().map(({ key: one, index }) => `${one} ${index}`);
    for (let round = 0; round < 10; round += 1) {
      program.docker.changed(idOf('a'));
      await sleep(20);
    }
    assert.deepEqual(
      program.cluster.entries().map(({ key: one, index }) => `${one} ${index}`),
      before,
    );
    program.docker.containers.delete(idOf('a'));
    program.docker.changed(idOf('a'));
    await until('the container is gone', waitMs, () => (entry(key) === undefined ? true : undefined));
  });

  it('uses other nodes’ containers while they live, and cleans up after nodes that are gone', async () => {
    const client = await joined();
    const mine = await until('it is known, and listens', waitMs, () => {
      const found = JSON.parse(entry(proxyKeys.container(here, idOf('a')))?.value ?? '{}');
      return found.healthy === true ? found : undefined;
    });
    const { session } = await member(there);
    const inner = { address: '10.0.0.2', ports: { '8080': 24_007 } };
    const key = proxyKeys.container(there, idOf('b'));
    await set(client, key, { ...mine, id: idOf('b'), node: there, inner });
    await serves('172.17.0.2:8080', '10.0.0.2:24007');
    program.cluster.endSession(session);
    await serves('172.17.0.2:8080');
    assert.notEqual(entry(key), undefined);
    await client.transact([{ kind: 'delete', key: keys.node(there) }]);
    await until('its documents are gone', waitMs, () => (entry(key) === undefined ? true : undefined));
  });

  it('acknowledges a pause, drains as it says, once, and forgets both after the release', async () => {
    const client = await joined();
    await pauseWeb(client, pauseFor(60_000));
    await until('it is acknowledged', waitMs, () => (nodeDoc()?.pauses.join() === 'pause-1' ? true : undefined));
    assert.deepEqual(program.stack().drained, []);
    const drained = pauseFor(60_000, 'pause-1', 5_000);
    await pauseWeb(client, drained);
    const report = { pause: 'pause-1', untilMs: drained.drain?.untilMs, requests: 0, tunnels: 2, tunnelsClosed: 2 };
    await until('it is reported', waitMs, () => (nodeDoc()?.drains.length === 1 ? true : undefined));
    assert.deepEqual(nodeDoc()?.drains, [report]);
    assert.equal(program.stack().drained.length, 1);
    assert.ok((program.stack().drained[0]?.timeoutMs ?? 0) > 3_000);
    await pauseWeb(client, null);
    await until('all is forgotten', waitMs, () => {
      const now = nodeDoc();
      return now?.pauses.length === 0 && now.drains.length === 0 ? true : undefined;
    });
  });

  it('leaves a drain’s tunnels alone where the pause says so', async () => {
    const client = await joined();
    await pauseWeb(client, {
      ...pauseFor(60_000),
      drain: { untilMs: Date.now() + 5_000, tunnels: 'leave' },
    });
    await until('it is drained', waitMs, () => program.stack().drained[0]);
    assert.equal(program.stack().drained[0]?.tunnels, 'leave');
  });

  it('waits a moment after a release for somebody who serves it, and no longer', async () => {
    const client = await joined();
    await pauseWeb(client, pauseFor(60_000));
    await until('it is paused', waitMs, () => (program.stack().pauses().length === 1 ? true : undefined));
    put('a', { State: { Status: 'exited', Pid: 0, StartedAt: '' } });
    await serves();
    await pauseWeb(client, null);
    await until('the release was seen', waitMs, () =>
      program.api().seen()?.documents.services[0]?.pause === null ? true : undefined,
    );
    assert.deepEqual(program.stack().pauses(), ['pause-1'], 'nobody serves it yet');
    put('a');
    await serves('172.17.0.2:8080');
    assert.deepEqual(program.stack().pauses(), []);

    await pauseWeb(client, pauseFor(60_000, 'pause-2'));
    await until('it is paused', waitMs, () => (program.stack().pauses().length === 1 ? true : undefined));
    put('a', { State: { Status: 'exited', Pid: 0, StartedAt: '' } });
    await serves();
    await pauseWeb(client, null);
    await until('it is let go', 8_000, () => (program.stack().pauses().length === 0 ? true : undefined));
    assert.deepEqual(endpoints(), []);
  });

  it('does not acknowledge what a layer has not taken', async () => {
    const client = await joined();
    program.stack().fail('HAProxy does not answer');
    await pauseWeb(client, pauseFor(60_000, 'pause-1', 1_000));
    await until('the table was tried', waitMs, () =>
      program.stack().table().services.get(web)?.pause ? true : undefined,
    );
    await until('it is told', waitMs, () => nodeDoc()?.problems['layer haproxy']);
    assert.deepEqual([nodeDoc()?.pauses, program.stack().drained], [[], []]);
    program.stack().fail(null);
    await until('it is acknowledged', waitMs, () => (nodeDoc()?.pauses.length === 1 ? true : undefined));
  });

  it('lets a pause end at its time by itself, also while the store is away', async () => {
    const client = await joined();
    await pauseWeb(client, pauseFor(600));
    await until('it is paused', waitMs, () => (program.stack().pauses().length === 1 ? true : undefined));
    program.cluster.cut('here');
    await until('it is over', waitMs, () => (program.stack().pauses().length === 0 ? true : undefined));
    assert.deepEqual(endpoints(), ['172.17.0.2:8080']);
  });

  it('serves the last table when it starts while the store is away, with Docker’s newest word, and then the newest', async () => {
    const client = await joined();
    const made = { id: 'r1', service: web, createdAtMs: 1, ...parseRouteText('tcp://:81 -> 8080') };
    await set(client, proxyKeys.route('r1'), made);
    await until('the route is there', waitMs, () => (routes().includes('r1') ? true : undefined));
    await program.stop();
    assert.equal((await stat(program.paths.saved)).mode & 0o777, 0o600);
    program.cluster.cut('here');
    put('a', { NetworkSettings: { Networks: { bridge: { IPAddress: '172.17.0.8', Gateway: '172.17.0.1' } } } });
    await program.start();
    await serves('172.17.0.8:8080');
    assert.ok(program.stack().table().listeners.has('tcp *:81'));
    await client.transact([{ kind: 'delete', key: proxyKeys.route('r1') }]);
    program.cluster.heal('here');
    await until('the route is gone', 2 * waitMs, () =>
      program.stack().table().listeners.has('tcp *:81') ? undefined : true,
    );
  });

  it('waits longer for Docker than its first look may take: what had an address before the host’s boot may not have it now', async () => {
    assert.ok(servingTimes.dockerGraceMs > dockerTimes.firstPatienceMs + dockerTimes.settleMs);
    await joined();
    await program.stop();
    const moved = { NetworkSettings: { Networks: { bridge: { IPAddress: '172.17.0.9', Gateway: '172.17.0.1' } } } };
    put('a', moved);
    // Longer than the store is waited for.
    program.docker.beforeInspect.set(idOf('a'), () => sleep(450));
    await program.start();
    await serves('172.17.0.9:8080');
    const hosts = program
      .stack()
      .tables.flatMap(({ services }) => [...services.values()])
      .flatMap(({ endpoints }) => [...endpoints.values()].flat())
      .map(({ host }) => host);
    assert.deepEqual([...new Set(hosts)], ['172.17.0.9']);
  });

  it('takes nothing away at a start before it knows what there is', async () => {
    await joined();
    await program.stop();
    program.docker.away(true);
    await program.start();
    await serves('172.17.0.2:8080');
    assert.deepEqual(
      program.stack().tables.filter(({ listeners }) => listeners.size === 0),
      [],
    );
    await sleep(200);
    assert.notEqual(entry(proxyKeys.container(here, idOf('a'))), undefined);
  });

  it('changes to the cluster’s store when the host becomes a member, with what people have made, and back', async () => {
    put('a');
    await program.start();
    const made = { id: 'r1', service: web, createdAtMs: 1, ...parseRouteText('tcp://:81 -> 8080') };
    await set(await store(), proxyKeys.route('r1'), made);
    await until('the route is there', waitMs, () => (routes().includes('r1') ? true : undefined));
    const before = program.stack().tables.length;
    await member(here);
    await program.join();
    await until('the cluster has the route', waitMs, () => entry(proxyKeys.route('r1')));
    await until('the cluster has the node', waitMs, nodeDoc);
    assert.equal(program.api().store().kind, 'memory');

    await forgetIdentity(program.paths.cluster);
    await until('the host is alone again', waitMs, () =>
      attempt(() => program.api().store())?.kind === 'embedded' ? true : undefined,
    );
    await until('the route is kept', waitMs, () => (routes().includes('r1') ? true : undefined));
    const file = await openEmbeddedStore(program.paths.store);
    assert.notEqual(await file.get(proxyKeys.route('r1')), null);
    await file.close();
    for (const table of program.stack().tables.slice(before))
      assert.ok(table.listeners.has('tcp *:81') && table.listeners.has('http *:80'), 'never without its routes');
  });

  it('says nothing in a cluster that has removed it', async () => {
    const client = await joined();
    await client.transact([{ kind: 'delete', key: keys.node(here) }]);
    await sleep(100);
    for (const { key } of program.cluster.entries())
      if (key.startsWith('proxy/')) await client.transact([{ kind: 'delete', key }]);
    put('a', { State: { Status: 'exited', Pid: 0, StartedAt: '' } });
    await serves();
    await sleep(200);
    assert.deepEqual(
      program.cluster.entries().filter(({ key }) => key.startsWith('proxy/')),
      [],
    );
  });

  it('serves the rest when a document can’t be read, and says which', async () => {
    const client = await joined();
    await client.transact([{ kind: 'set', key: proxyKeys.route('bad'), value: '{' }]);
    await until('it is told', waitMs, () =>
      program
        .api()
        .seen()
        ?.problems.get(`store ${proxyKeys.route('bad')}`),
    );
    assert.deepEqual(endpoints(), ['172.17.0.2:8080']);
  });

  it('follows the host’s settings, and keeps the old ones where the file is wrong', async () => {
    await writeFile(program.paths.settings, '{"acessLog": true}');
    await program.start();
    const settings = () =>
      until('it answers', waitMs, async () => (await program.ask('/healthz').catch(() => undefined))?.body);
    assert.match(await settings(), /acessLog.*It may have: accessLog, embedded/);
    await writeFile(program.paths.settings, '{}');
    await until('it is well', waitMs, async () => (/"settings":"ok"/.test(await settings()) ? true : undefined));
  });
});

function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
