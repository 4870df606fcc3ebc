import assert from 'node:assert/strict';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { nearNames } from '../../controller/model/near-names.ts';
import {
  describeMissing,
  drainedNodes,
  livingNodes,
  pausedNodes,
  releasedNodes,
} from '../../proxy/api/acknowledgement.ts';
import { linkRows, routeRows, serviceRow } from '../../proxy/api/rows.ts';
import { collect, type Documents, noDocuments, shortId } from '../../proxy/model/collect.ts';
import type { ProxyNodeDoc } from '../../proxy/model/keys.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import { parseServiceRoute } from '../../proxy/model/route-text.ts';
import { listenerKeyOf, routeState, type Seen } from '../../proxy/model/status.ts';
import { buildTable } from '../../proxy/model/table.ts';
import { containerDoc } from '../support/api-proxies.ts';

const one = parseNodeName('host-1');
const two = parseNodeName('host-2');
const three = parseNodeName('host-3');
const nowMs = 1_800_000_000_000;

function nodeDoc(name: NodeName, more: Partial<ProxyNodeDoc> = {}): ProxyNodeDoc {
  const doc = { name, address: '192.0.2.1', version: '1', startedAtMs: 1, pauses: [], drains: [], problems: {} };
  return { ...doc, ...more };
}
/** As host-1 sees it. */
function see(documents: Partial<Documents>, problems: Readonly<Record<string, string>> = {}): Seen {
  const all = { ...noDocuments, ...documents };
  const collected = collect(all, one, nowMs);
  const table = buildTable({ ...collected.records, generation: 1 }, one);
  return { documents: all, collected, table, problems: new Map(Object.entries(problems)) };
}
const route = (id: string, text: string) => ({ id, createdAtMs: 1, ...parseServiceRoute(text) });
const web = containerDoc('web', { 'flock.service': 'web' });
const states = (seen: Seen) => routeRows(seen).map(({ state, reason }) => [state, reason]);

describe('the state of a route', () => {
  const routes = [route('a', 'http://a.example.com -> web:80')];

  it('is serving while a healthy container is there', () => {
    assert.deepEqual(states(see({ routes, containers: [web] })), [['serving', null]]);
  });

  it('names its containers where none is healthy, and the missing service', () => {
    const sick = [
      { ...web, healthy: false },
      containerDoc('web-2', { 'flock.service': 'web' }, { node: two, state: 'exited', healthy: false }),
    ];
    const text = 'no healthy container: web on host-1 is not healthy, web-2 on host-2 is exited';
    assert.deepEqual(states(see({ routes, containers: sick })), [['no-container', text]]);
    const [[state, reason] = []] = states(see({ routes }));
    assert.equal(state, 'conflict');
    assert.match(String(reason), /start a container with the label flock\.service=web/);
  });

  it('is paused until the end of its pause', () => {
    const pause = { id: 'p', untilMs: nowMs + 1_000, drain: null };
    const services = [{ name: parseServiceName('web'), pause }];
    const text = `until ${new Date(pause.untilMs).toISOString()}`;
    assert.deepEqual(states(see({ routes, containers: [web], services })), [['paused', text]]);
    const over = [{ name: parseServiceName('web'), pause: { ...pause, untilMs: nowMs } }];
    assert.deepEqual(states(see({ routes, containers: [web], services: over })), [['serving', null]]);
  });

  it('has the problems of its port, its certificate and itself, here before elsewhere', () => {
    const there = [nodeDoc(two, { problems: { 'http *:80': 'in use' } })];
    const documents = { routes, containers: [web], nodes: there };
    assert.deepEqual(states(see(documents)), [['problem', 'on host-2: in use']]);
    assert.deepEqual(states(see(documents, { a: 'too many' })), [['problem', 'too many']]);
    const https = { routes: [route('b', 'https://b.example.com -> web:80')], containers: [web] };
    assert.deepEqual(states(see(https, { 'certificate b.example.com': 'no such file' })), [
      ['problem', 'no such file'],
    ]);
    assert.deepEqual(states(see(https, { 'tls *:443': 'in use' })), [['problem', 'in use']]);
    const other = route('c', 'http://c.example.com:81 -> web:80');
    assert.equal(routeState(other, see({ routes: [other], containers: [web], nodes: there })).state, 'serving');
  });

  it('is a conflict for the younger of two claims', () => {
    const both = [...routes, { ...route('b', 'tcp://:80 -> web:80'), createdAtMs: 2 }];
    const found = routeRows(see({ routes: both, containers: [web] })).map(({ id, state }) => [id, state]);
    assert.deepEqual(found, [
      ['a', 'serving'],
      ['b', 'conflict'],
    ]);
  });

  it('knows listeners as the table does', () => {
    const texts = [
      'http://a -> s:1',
      'https://a -> s:1',
      'tls://b:1443 -> s:1',
      'tcp://192.0.2.1:5 -> s:1',
      'tcp://:6 -> s:1',
    ];
    const all = texts.map((text, index) => route(`r${index}`, text));
    const seen = see({ routes: all, containers: [containerDoc('s', { 'flock.service': 's' })] });
    assert.deepEqual(seen.table.conflicts, []);
    assert.deepEqual(new Set(all.map(({ entrance }) => listenerKeyOf(entrance))), new Set(seen.table.listeners.keys()));
  });
});

describe('the list of links', () => {
  it('has one row for each container that is called so, and for each that waits', () => {
    const app = (name: string, more = {}) => containerDoc(name, {}, { linkPorts: { '80': 24_000 }, ...more });
    const elsewhere = app('app', { node: two, address: '172.17.0.7', id: 'f'.repeat(64) });
    const stored = (id: string, container: string) => ({
      ...{ id, container, createdAtMs: 1, host: 'web' as never, port: 80 },
      ...{ service: parseServiceName('web'), targetPort: 8080 },
    });
    const links = [stored('x', 'app'), stored('y', 'none'), stored('z', shortId(elsewhere.id))];
    const nodes = [nodeDoc(two, { problems: { 'tcp 172.17.0.1:24000': 'no nft there' } })];
    const seen = see({
      containers: [web, app('app'), elsewhere, app('stopped', { state: 'exited', address: null })],
      links,
      nodes,
    });
    const rows = linkRows(seen).map(({ id, container, node, state, reason }) => [id, container, node, state, reason]);
    assert.deepEqual(rows, [
      ['x', 'app', 'host-1', 'serving', null],
      ['x', 'app', 'host-2', 'problem', 'on host-2: no nft there'],
      ['z', 'app', 'host-2', 'problem', 'on host-2: no nft there'],
      ['y', 'none', null, 'no-container', 'there is no container none'],
    ]);
    const [service] = seen.collected.records.services;
    assert.ok(service !== undefined);
    assert.equal(serviceRow(service, seen, null).links, 3);
  });
});

describe('what nodes say of a pause', () => {
  const living = [one, two, three];

  it('asks the living ones, and this one in any case', () => {
    const members = new Map([one, two, three].map((name) => [name, { alive: name === two }]));
    assert.deepEqual(livingNodes(members, one), [one, two]);
    assert.deepEqual(livingNodes(null, three), [three]);
  });

  it('is held by those that name it', () => {
    const documents = [nodeDoc(one, { pauses: ['p', 'q'] }), nodeDoc(two, { pauses: ['q'] })];
    const found = pausedNodes('p', living, documents);
    assert.deepEqual(
      found.map(({ done }) => done),
      [true, false, false],
    );
    assert.equal(
      describeMissing(found),
      'host-2 (its proxy says nothing of it: does the container flock-proxy run there?), host-3 (no proxy has ever run there: "make up" on that host starts it)',
    );
    assert.deepEqual(
      releasedNodes('q', living, documents).map(({ done }) => done),
      [false, false, true],
    );
  });

  it('shows the problem of a layer first', () => {
    const late = [nodeDoc(one, { problems: { 'http *:80': 'in use', 'layer haproxy': 'no socket' } })];
    assert.equal(describeMissing(pausedNodes('p', [one], late)), 'host-1 (layer haproxy: no socket)');
  });

  it('takes the report of this drain only', () => {
    const report = { pause: 'p', untilMs: 5, requests: 1, tunnels: 2, tunnelsClosed: 2 };
    const documents = [
      nodeDoc(one, { drains: [{ ...report, untilMs: 4 }, report] }),
      nodeDoc(two, { drains: [{ ...report, pause: 'o' }] }),
    ];
    const { reports, missing } = drainedNodes({ pause: 'p', untilMs: 5 }, [one, two], documents);
    assert.deepEqual(reports, [{ name: one, requests: 1, tunnels: 2, tunnelsClosed: 2 }]);
    assert.equal(describeMissing(missing), 'host-2');
  });

  it('names a few of many', () => {
    const many = Array.from({ length: 10 }, (_, index) => ({ name: `n${index}`, done: false, problem: null }));
    assert.equal(describeMissing(many), 'n0, n1, n2, n3, n4, n5, n6, n7 and 2 more');
  });
});

describe('names that were meant', () => {
  it('are those with few letters different', () => {
    assert.deepEqual(nearNames('wbe', ['web', 'db', 'webshop']), ['web']);
    assert.deepEqual(nearNames('web', ['web-1', 'web-2', 'mysql']), ['web-1', 'web-2']);
    assert.deepEqual(nearNames('nothing', ['web', 'mysql']), []);
    assert.deepEqual(nearNames('msyql', ['mysql', 'web']), ['mysql']);
  });
});
