import assert from 'node:assert/strict';
import { parseNodeName } from '../../controller/model/names.ts';
import { kernelElements } from '../../proxy/model/kernel-elements.ts';
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
import { buildTable } from '../../proxy/model/table.ts';

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

  it('has those whose health check has said nothing yet where nobody is healthy', () => {
    const upstreams = [
      upstream('a', 'new', { healthy: false, starting: true }),
      upstream('a', 'ill', { healthy: false }),
      upstream('b', 'new', { healthy: false, starting: true }),
      upstream('b', 'old'),
    ];
    const routes = [route(1, 'a', 'http://a -> 80'), route(2, 'b', 'http://b -> 80')];
    const table = buildTable(records({ services: [service('a'), service('b')], routes, upstreams }), here);
    const idsOf = (name: string) =>
      table.services
        .get(parseServiceName(name))
        ?.endpoints.get(80)
        ?.map(({ id }) => id);
    assert.deepEqual([idsOf('a'), idsOf('b')], [['new'], ['old']]);
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

describe('what the kernel is to have of a table', () => {
  const base = records({
    services: [service('web'), service('db')],
    routes: [route(1, 'web', 'http://a -> 80'), route(2, 'db', 'tcp://:5432 -> 80')],
    links: [link('1', 5432, 'db')],
    upstreams: [upstream('web', 'c1'), upstream('db', 'c2')],
  });
  const keysOf = (changes: Partial<ProxyRecords>) =>
    [...kernelElements(buildTable({ ...base, ...changes }, here)).keys()].toSorted();

  it('is tcp routes, links and inner ports, where they lead', () => {
    assert.deepEqual(keysOf({}), ['inner 20080', 'tcp *:5432', 'tcp 172.17.0.1:35432']);
    const element = kernelElements(buildTable(base, here)).get('tcp 172.17.0.1:35432');
    assert.deepEqual([element?.map, element?.from?.length, element?.endpoints.length], ['links', 1, 1]);
  });

  it('is nothing of what is paused, or has no container: the gate has it', () => {
    const pause = { id: 'm', untilMs: 1, drain: null };
    assert.deepEqual(keysOf({ services: [service('web'), service('db', { pause })] }), ['inner 20080']);
    assert.deepEqual(keysOf({ upstreams: [upstream('web', 'c1')] }), ['inner 20080']);
  });

  it('is nothing of what the kernel can’t do: to pick the least busy of several, or to say who the client is', () => {
    const balanced = [service('web'), service('db', { balance: 'least-connections' })];
    assert.equal(keysOf({ services: balanced }).length, 3);
    const two = [...base.upstreams, upstream('db', 'c3', { address: '172.17.0.3' })];
    assert.deepEqual(keysOf({ services: balanced, upstreams: two }), ['inner 20080']);
    assert.deepEqual(keysOf({ routes: [route(2, 'db', 'tcp://:5432 -> 80 proxy-protocol=v2')], links: [] }), [
      'inner 20080',
    ]);
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
