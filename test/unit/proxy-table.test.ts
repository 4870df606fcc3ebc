import assert from 'node:assert/strict';
import { parseNodeName } from '../../controller/model/names.ts';
import { diffTable } from '../../proxy/model/diff.ts';
import { parseRouteText } from '../../proxy/model/labels.ts';
import { matchRoute } from '../../proxy/model/match.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import {
  decode,
  type LinkDoc,
  type ProxyRecords,
  type RouteDoc,
  routeSchema,
  type ServiceDoc,
  serviceSchema,
  type UpstreamDoc,
  upstreamSchema,
} from '../../proxy/model/records.ts';
import { buildTable, emptyTable } from '../../proxy/model/table.ts';

const here = parseNodeName('here');

function service(name: string, more: Partial<ServiceDoc> = {}): ServiceDoc {
  return {
    name: parseServiceName(name),
    createdAtMs: 0,
    balance: 'round-robin',
    stateful: false,
    pause: null,
    ...more,
  };
}
/** `text`: as in a label; its age is its place. */
function route(createdAtMs: number, serviceName: string, text: string): RouteDoc {
  return { id: `r${createdAtMs}`, service: parseServiceName(serviceName), createdAtMs, ...parseRouteText(text) };
}
function upstream(serviceName: string, container: string, more: Partial<UpstreamDoc> = {}): UpstreamDoc {
  const inner = { address: '192.0.2.9', ports: { '80': 20_080 } };
  return {
    container,
    service: parseServiceName(serviceName),
    node: here,
    startedAtMs: 0,
    healthy: true,
    address: '172.17.0.2',
    inner,
    ...more,
  };
}
function link(id: string, port: number, serviceName: string, client = 'app'): LinkDoc {
  const place = { node: here, client: '172.17.0.9', gateway: '172.17.0.1', port: 30_000 + port };
  return { id, client, createdAtMs: 0, host: null, port, service: parseServiceName(serviceName), targetPort: 1, place };
}
function records(more: Partial<ProxyRecords>): ProxyRecords {
  return { generation: 1, services: [], routes: [], links: [], upstreams: [], peers: [], ...more };
}

describe('the table', () => {
  it('gives a route to the older of two claims and reports the other', () => {
    const table = buildTable(
      records({
        services: [service('a'), service('b')],
        routes: [
          route(2, 'b', 'http://x.example -> 80'),
          route(1, 'a', 'http://X.example -> 80'),
          route(3, 'b', 'http://x.example/b -> 80'),
          route(4, 'a', 'http://x.example -> 80'),
          route(5, 'b', 'tcp://:80 -> 1'),
          route(6, 'c', 'http://y.example -> 80'),
        ],
      }),
      here,
    );
    assert.equal(matchRoute(table, 'http *:80', 'x.example', '/')?.service, 'a');
    assert.equal(matchRoute(table, 'http *:80', 'x.example', '/b/c')?.service, 'b');
    assert.deepEqual(
      table.conflicts.map(({ id, kind }) => [id, kind]),
      [
        ['r6', 'service-missing'],
        ['r2', 'route-taken'],
        ['r5', 'port-taken'],
      ],
    );
    assert.match(table.conflicts[1]?.text ?? '', /http:\/\/x\.example belongs to service a/);
  });

  it('lets https and tls share a port, but not a host, and tcp share one by address', () => {
    const table = buildTable(
      records({
        services: [service('a'), service('b')],
        routes: [
          route(1, 'a', 'https://x.example -> 80'),
          route(2, 'b', 'tls://y.example -> 80'),
          route(3, 'b', 'tls://x.example -> 80'),
          route(4, 'a', 'tcp://192.0.2.1:5 -> 80'),
          route(5, 'b', 'tcp://192.0.2.2:5 -> 80'),
          route(6, 'b', 'tcp://:5 -> 80'),
        ],
      }),
      here,
    );
    assert.deepEqual([...table.listeners.keys()], ['tls *:443', 'tcp 192.0.2.1:5', 'tcp 192.0.2.2:5']);
    assert.deepEqual(matchRoute(table, 'tls *:443', 'x.example', '/')?.mode, { certificate: 'x.example' });
    assert.equal(matchRoute(table, 'tls *:443', 'y.example', '/')?.mode, 'tls');
    assert.deepEqual(
      table.conflicts.map(({ id }) => id),
      ['r3', 'r6'],
    );
  });

  it('has healthy containers only, at the address that this node reaches them', () => {
    const elsewhere = parseNodeName('elsewhere');
    const table = buildTable(
      records({
        services: [service('a'), service('b', { stateful: true })],
        routes: [route(1, 'a', 'http://a -> 80'), route(2, 'b', 'http://b -> 81')],
        upstreams: [
          upstream('a', 'c1'),
          upstream('a', 'c2', { healthy: false }),
          upstream('a', 'c3', { node: elsewhere }),
          upstream('a', 'c4', { node: elsewhere, inner: { address: '192.0.2.9', ports: {} } }),
          upstream('b', 'c6', { startedAtMs: 2 }),
          upstream('b', 'c5', { startedAtMs: 1 }),
        ],
      }),
      here,
    );
    assert.deepEqual(table.services.get(parseServiceName('a'))?.endpoints.get(80), [
      { id: 'c1', host: '172.17.0.2', port: 80 },
      { id: 'c3', host: '192.0.2.9', port: 20_080 },
    ]);
    assert.deepEqual(
      table.services
        .get(parseServiceName('b'))
        ?.endpoints.get(81)
        ?.map(({ id }) => id),
      ['c5'],
    );
    assert.deepEqual(
      table.conflicts.map(({ kind }) => kind),
      ['several-places'],
    );
  });

  it('keeps links of different containers apart', () => {
    const links = [link('1', 3306, 'a'), link('2', 3306, 'b'), link('3', 3306, 'b', 'other')];
    const table = buildTable(records({ services: [service('a'), service('b')], links }), here);
    assert.deepEqual(
      [...table.links.values()].map(({ client, service }) => [client, service]),
      [
        ['app', 'a'],
        ['other', 'b'],
      ],
    );
    assert.deepEqual(
      table.conflicts.map(({ id, kind }) => [id, kind]),
      [['2', 'link-taken']],
    );
  });

  it('finds one of 10,000 routes without looking at the others', () => {
    const routes = Array.from({ length: 10_000 }, (_, index) =>
      route(index, 'a', `http://${index % 2 === 0 ? '' : '*.'}h${index}.example/p -> 80`),
    );
    const table = buildTable(records({ services: [service('a')], routes }), here);
    assert.equal(matchRoute(table, 'http *:80', 'h4998.example', '/p/x?y=/z')?.route, 'r4998');
    assert.equal(matchRoute(table, 'http *:80', 'deep.below.h4999.example', '/p')?.route, 'r4999');
    assert.equal(matchRoute(table, 'http *:80', 'h4999.example', '/p'), null);
    assert.equal(matchRoute(table, 'http *:80', 'h4998.example', '/px'), null);
    assert.equal(matchRoute(table, 'http *:80', 'h4998.example', '/?/p'), null);
    assert.equal(matchRoute(table, 'http *:81', 'h4998.example', '/p'), null);
  });

  it('goes on to wider hosts when no path fits, and takes the longest prefix', () => {
    const table = buildTable(
      records({
        services: [service('a')],
        routes: [
          route(1, 'a', 'http://x.a.example/x -> 80'),
          route(2, 'a', 'http://*.a.example/x/y -> 80'),
          route(3, 'a', 'http://*.example -> 80'),
          route(4, 'a', 'http:// -> 80'),
          route(5, 'a', 'http://x.a.example/x/y/z -> 80'),
        ],
      }),
      here,
    );
    const find = (host: string, path: string) => matchRoute(table, 'http *:80', host, path)?.route;
    assert.equal(find('x.a.example', '/x/y'), 'r1');
    assert.equal(find('x.a.example', '/x/y/z/'), 'r5');
    assert.equal(find('y.a.example', '/x/y'), 'r2');
    assert.equal(find('x.a.example', '/y'), 'r3');
    assert.equal(find('example', '/x'), 'r4');
    assert.equal(find('', '/'), 'r4');
  });
});

describe('the difference of two tables', () => {
  const base = records({
    services: [service('web'), service('db')],
    routes: [route(1, 'web', 'http://a -> 80'), route(2, 'db', 'tcp://:5432 -> 80')],
    links: [link('1', 5432, 'db')],
    upstreams: [upstream('web', 'c1'), upstream('db', 'c2')],
  });
  const from = buildTable(base, here);

  it('is everything at first and nothing when nothing has changed', () => {
    const first = diffTable(emptyTable, from);
    assert.deepEqual(
      first.kernel.map(({ kind, key }) => `${kind} ${key}`),
      ['set inner 20080', 'set tcp *:5432', 'set tcp 172.17.0.1:35432'],
    );
    assert.deepEqual(
      first.haproxy.map(({ kind, key }) => `${kind} ${key}`),
      ['set balance web', 'set route http *:80 a /', 'set server web 80 c1'],
    );
    assert.deepEqual(
      first.gate.map(({ key }) => key),
      ['http *:80', 'tcp *:5432', 'tcp 172.17.0.1:35432'],
    );
    const again = diffTable(from, buildTable({ ...base, generation: 2 }, here));
    assert.deepEqual([again.kernel, again.haproxy, again.gate, again.to], [[], [], [], 2]);
  });

  it('takes what is paused out of the kernel and leads it to the gate in HAProxy', () => {
    const pause = { id: 'm', untilMs: 1, drain: null };
    const to = buildTable({ ...base, services: [service('web', { pause }), service('db', { pause })] }, here);
    const changes = diffTable(from, to);
    assert.deepEqual(
      changes.kernel.map(({ kind, key }) => `${kind} ${key}`),
      ['remove tcp *:5432', 'remove tcp 172.17.0.1:35432'],
    );
    assert.deepEqual(changes.haproxy, [{ kind: 'set', key: 'paused web', value: { kind: 'paused', service: 'web' } }]);
    assert.deepEqual(
      diffTable(to, from).haproxy.map(({ kind, key }) => `${kind} ${key}`),
      ['remove paused web'],
    );
  });

  it('names what went and what moved, removals first', () => {
    const to = buildTable(
      { ...base, routes: base.routes.slice(1), upstreams: [upstream('db', 'c3', { address: '172.17.0.3' })] },
      here,
    );
    const changes = diffTable(from, to);
    assert.deepEqual(
      changes.gate.map(({ kind, key }) => `${kind} ${key}`),
      ['remove http *:80'],
    );
    assert.ok(changes.haproxy.every(({ kind }) => kind === 'remove'));
    assert.deepEqual(
      changes.kernel.map(({ kind, key }) => `${kind} ${key}`),
      ['set inner 20080', 'set tcp *:5432', 'set tcp 172.17.0.1:35432'],
    );
  });
});

describe('records of the proxy', () => {
  it('are read back as they were written, and refused in another shape', () => {
    const written = route(1, 'a', 'https://x.example/a -> 80');
    assert.deepEqual(decode(routeSchema, JSON.stringify(written)), written);
    assert.deepEqual(decode(serviceSchema, JSON.stringify(service('a'))), service('a'));
    assert.deepEqual(decode(upstreamSchema, JSON.stringify(upstream('a', 'c'))), upstream('a', 'c'));
    assert.throws(() => decode(routeSchema, JSON.stringify({ ...written, service: '../x' })));
    assert.throws(() =>
      decode(routeSchema, JSON.stringify({ ...written, entrance: { ...written.entrance, port: 0 } })),
    );
    assert.throws(() => decode(upstreamSchema, JSON.stringify({ ...upstream('a', 'c'), address: 'evil.example' })));
  });
});
