import assert from 'node:assert/strict';
import type { NodeName } from '../../controller/model/names.ts';
import { compose, problemsOf } from '../../proxy/composing.ts';
import { collect, type Documents, type MemberSeen, nextPauseEndMs, noDocuments } from '../../proxy/model/collect.ts';
import type { ContainerDoc } from '../../proxy/model/containers.ts';
import type { ProxyNodeDoc } from '../../proxy/model/keys.ts';
import { parseLinkText, parseRouteText, readLabels } from '../../proxy/model/labels.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import { ownContainers } from '../../proxy/model/own.ts';
import { noPorts, portKeys, portRange } from '../../proxy/model/ports.ts';
import { buildTable } from '../../proxy/model/table.ts';
import { here, idOf, there } from '../support/proxy-fakes.ts';

type Labels = Readonly<Record<string, string>>;

function container(digit: string, labels: Labels, more: Partial<ContainerDoc> = {}): ContainerDoc {
  return {
    id: idOf(digit),
    name: `c-${digit}`,
    createdAtMs: 1,
    startedAtMs: 2,
    state: 'running',
    healthy: true,
    address: '172.17.0.2',
    gateway: '172.17.0.1',
    ...readLabels(labels),
    node: here,
    inner: { address: '10.0.0.1', ports: {} },
    linkPorts: {},
    ...more,
  };
}
const nodeDoc = (name: NodeName, address: string): ProxyNodeDoc => ({
  name,
  address,
  version: '1',
  startedAtMs: 0,
  pauses: [],
  drains: [],
  problems: {},
});
const web = { 'flock.service': 'web', 'flock.route': 'http://www.example.com -> 8080' };
const documents = (more: Partial<Documents>): Documents => ({ ...noDocuments, ...more });
const bothAlive = new Map([
  [here, { alive: true }],
  [there, { alive: true }],
]);

describe('the records that the table is made of', () => {
  it('come from labels and from flockctl, and say which', () => {
    const made = { id: 'made', service: parseServiceName('web'), createdAtMs: 5, ...parseRouteText('tcp://:81 -> 81') };
    const { records, origins } = collect(documents({ containers: [container('a', web)], routes: [made] }), here, 10);
    const label = `${'a'.repeat(12)}/flock.route`;
    assert.deepEqual(
      records.routes.map(({ id }) => id),
      ['made', label],
    );
    assert.deepEqual(origins.get('made'), { kind: 'flockctl' });
    assert.deepEqual(origins.get(label), { kind: 'label', label: 'flock.route', container: 'c-a', node: here });
    assert.deepEqual(
      records.services.map(({ name }) => name),
      ['web'],
    );
  });

  it('leave out dead nodes’ containers and those of nodes that are gone, but never this node’s', () => {
    const containers = [container('a', web), container('b', web, { node: there })];
    const healthy = (members: Documents['members']) =>
      collect(documents({ containers, members }), here, 10).records.upstreams.map((one) => [one.node, one.healthy]);
    assert.deepEqual(healthy(bothAlive), [
      [here, true],
      [there, true],
    ]);
    const dead = new Map([...bothAlive.keys()].map((name) => [name, { alive: false }]));
    assert.deepEqual(healthy(dead), [
      [here, true],
      [there, false],
    ]);
    assert.deepEqual(healthy(new Map()), [[here, true]]);
  });

  it('have those of a node that is cut off from the store only while nobody else serves', () => {
    const members = new Map<NodeName, MemberSeen>([...bothAlive, [there, { alive: false, reached: true }]]);
    const healthy = (...containers: readonly ContainerDoc[]) =>
      collect(documents({ containers, members }), here, 10).records.upstreams.map((one) => one.healthy);
    const [far, near] = [container('a', web, { node: there }), container('b', web)];
    assert.deepEqual(healthy(far), [true]);
    assert.deepEqual(healthy(far, near), [false, true]);
    assert.deepEqual(healthy(far, { ...near, healthy: false }), [true, false], 'it has just been made');
    assert.deepEqual(healthy({ ...far, healthy: false }), [false]);
  });

  it('leave out a container whose volume is on a failed pool, where another one serves', () => {
    const failed = new Map<NodeName, MemberSeen>([...bothAlive, [here, { alive: true, poolLost: true }]]);
    const healthy = (...containers: readonly ContainerDoc[]) =>
      collect(documents({ containers, members: failed }), there, 10).records.upstreams.map((one) => one.healthy);
    const [stuck, plain] = [container('a', web, { hasVolume: true }), container('b', web)];
    const other = container('c', web, { node: there, hasVolume: true });
    assert.deepEqual(healthy(stuck, other), [false, true]);
    assert.deepEqual(healthy(stuck), [true], 'it may still read');
    assert.deepEqual(healthy(stuck, { ...other, healthy: false }), [true, false]);
    assert.deepEqual(healthy(stuck, { ...other, healthy: false, starting: true }), [false, false], 'it soon serves');
    assert.deepEqual(healthy(plain, other), [true, true], 'it needs no pool');
  });

  it('have a pause until its time is over, and a paused service also without containers', () => {
    const name = parseServiceName('moving');
    const services = [{ name, pause: { id: 'p', untilMs: 1_000, drain: null } }];
    const at = (nowMs: number) => collect(documents({ services }), here, nowMs).records.services;
    assert.equal(at(999)[0]?.pause?.id, 'p');
    assert.deepEqual(at(1), at(2), 'the same each time');
    assert.deepEqual(at(1_000), []);
    assert.equal(nextPauseEndMs(services, 10), 1_000);
    assert.equal(nextPauseEndMs(services, 1_000), null);
  });

  it('have a link for each container that is called as flockctl was told, once it has a port', () => {
    const link = { id: 'l1', container: 'c-a', createdAtMs: 1, ...parseLinkText('3306 -> mysql:3306') };
    const linksOf = (more: Partial<ContainerDoc>) =>
      collect(documents({ containers: [container('a', {}, more)], links: [link] }), here, 10);
    assert.deepEqual(linksOf({}).records.links, []);
    const { records, storedLinks } = linksOf({ linkPorts: { '3306': 24_001 } });
    const id = `l1/${'a'.repeat(12)}`;
    assert.deepEqual(records.links[0]?.place, {
      node: here,
      client: '172.17.0.2',
      gateway: '172.17.0.1',
      port: 24_001,
    });
    assert.equal(storedLinks.get(id), 'l1');
  });

  it('name problems of labels and of services whose containers disagree', () => {
    const containers = [
      container('a', { ...web, 'flock.balance': 'least-connections' }),
      container('b', { ...web, 'flock.tpyo': '' }, { createdAtMs: 9 }),
    ];
    const { problems, records } = collect(documents({ containers }), here, 10);
    assert.deepEqual(
      problems.map(({ where }) => where),
      ['container c-b on here', 'service web'],
    );
    assert.equal(records.services[0]?.balance, 'round-robin', 'as the newest says');
  });
});

describe('what a node says of its own containers', () => {
  const own = { node: here, address: '10.0.0.1', isMember: true };
  const linked = { ...web, 'flock.link': '3306 -> mysql:3306' };

  it('has inner ports for what routes and links anywhere lead to, and none on a host that is alone', () => {
    const mysql = container('d', { 'flock.service': 'mysql' });
    const elsewhere = container('e', { 'flock.link': '33 -> mysql:3306' }, { node: there });
    const made = ownContainers([mysql], documents({ containers: [elsewhere] }), own, noPorts);
    assert.deepEqual(made.containers[0]?.inner, { address: '10.0.0.1', ports: { '3306': portRange.first } });
    const alone = ownContainers([mysql], documents({ containers: [elsewhere] }), { ...own, isMember: false }, noPorts);
    assert.deepEqual(alone.containers[0]?.inner.ports, {});
  });

  it('keeps its ports, also after a restart that knows them from the documents only', () => {
    const one = container('a', linked);
    const before = ownContainers([one], noDocuments, own, noPorts);
    const ports = [before.containers[0]?.inner.ports, before.containers[0]?.linkPorts];
    const later = ownContainers(
      [container('b', linked), one],
      documents({ containers: before.containers }),
      own,
      noPorts,
    );
    assert.deepEqual([later.containers[1]?.inner.ports, later.containers[1]?.linkPorts], ports);
    assert.notDeepEqual(later.containers[0]?.linkPorts, ports[1]);
  });

  it('tells for which there is no port left', () => {
    const held = Object.fromEntries(
      Array.from({ length: portRange.last - portRange.first }, (_, n) => [portKeys.inner('x', n), portRange.first + n]),
    );
    // All of them are wanted still: by containers that have them in their documents.
    const many = Array.from({ length: 70 }, (_, n) =>
      container('a', {
        'flock.service': `s${n}`,
        ...Object.fromEntries(
          Array.from({ length: 64 }, (_, m) => [`flock.route.r${m}`, `tcp://:${m + 1} -> ${m + 1}`]),
        ),
      }),
    ).map((one, n) => ({ ...one, id: `${n}`.padStart(64, '0') }));
    const made = ownContainers(many, noDocuments, own, { held, last: portRange.last });
    const given = made.containers.flatMap(({ inner }) => Object.values(inner.ports));
    assert.equal(new Set(given).size, portRange.last - portRange.first + 1);
    assert.equal(made.missing.length, 70 * 64 - given.length);
  });
});

describe('what the table is composed of', () => {
  const own = { node: here, address: '10.0.0.1', isMember: true };
  const theirs = container('b', web, { node: there, inner: { address: '10.0.0.2', ports: { '8080': 24_007 } } });
  const seen = documents({
    containers: [container('a', web, { address: '172.17.0.99' }), theirs],
    nodes: [nodeDoc(here, '10.9.9.9'), nodeDoc(there, '10.0.0.2')],
    members: bothAlive,
  });
  const base = { documents: seen, self: here, clusterId: 'c1' };
  const node = nodeDoc(here, '10.0.0.1');
  const addresses = (list: readonly ContainerDoc[]) => list.map(({ node: name, address }) => `${name} ${address}`);

  it('is Docker’s word about this node and the store’s about the others', () => {
    const now = container('a', web);
    const { documents: made, own: containers } = compose({
      base,
      own,
      local: [now],
      isSameBoot: true,
      ports: noPorts,
      node,
    });
    assert.deepEqual(addresses(made.containers), ['there 172.17.0.2', 'here 172.17.0.2']);
    assert.deepEqual(addresses(containers), ['here 172.17.0.2']);
    assert.deepEqual(
      made.nodes.map(({ address }) => address),
      ['10.0.0.2', '10.0.0.1'],
    );
    const table = buildTable({ ...collect(made, here, 1).records, generation: 1 }, here);
    assert.deepEqual(
      table.services
        .get(parseServiceName('web'))
        ?.endpoints.get(8080)
        ?.map(({ host, port }) => `${host}:${port}`),
      ['172.17.0.2:8080', '10.0.0.2:24007'],
    );
    assert.deepEqual(table.peers, ['10.0.0.2', '10.0.0.1']);
  });

  it('is what was there before while Docker has never answered', () => {
    const made = compose({ base, own, local: null, isSameBoot: true, ports: noPorts, node });
    assert.deepEqual(addresses(made.own), ['here 172.17.0.99']);
  });

  it('has this node’s containers nowhere after a boot, until Docker has answered', () => {
    const made = compose({ base, own, local: null, isSameBoot: false, ports: noPorts, node });
    assert.deepEqual(addresses(made.own), ['here null']);
    const table = buildTable({ ...collect(made.documents, here, 1).records, generation: 1 }, here);
    const places = [...table.services.values()].flatMap(({ endpoints }) => [...endpoints.values()].flat());
    assert.deepEqual(
      places.map(({ host }) => host),
      ['10.0.0.2'],
    );
    assert.deepEqual([...table.inner.keys()], []);
  });

  it('has no container twice when the host has joined a cluster under another name', () => {
    const alone = { documents: documents({ containers: [container('a', web)] }), self: there, clusterId: null };
    const made = compose({ base: alone, own, local: [container('a', web)], isSameBoot: true, ports: noPorts, node });
    assert.deepEqual(addresses(made.documents.containers), ['here 172.17.0.2']);
    assert.deepEqual(Object.keys(made.own[0]?.inner.ports ?? {}), ['8080']);
  });

  it('has nothing of others on a host that is alone, whoever has written there', () => {
    const alone = { documents: { ...seen, members: null }, self: here, clusterId: null };
    const made = compose({
      base: alone,
      own: { ...own, isMember: false },
      local: [],
      isSameBoot: true,
      ports: noPorts,
      node,
    });
    assert.deepEqual([made.documents.containers, made.documents.nodes], [[], [node]]);
  });

  it('has room for so many problems, in an order of their own', () => {
    const many = new Map(Array.from({ length: 1_000 }, (_, n) => [`tcp *:${n}`, 'x'.repeat(5_000)]));
    const made = problemsOf(many);
    assert.ok(JSON.stringify(made).length < 80 * 1024);
    assert.equal(JSON.stringify(made), JSON.stringify(problemsOf(new Map([...many].toReversed()))));
  });
});
