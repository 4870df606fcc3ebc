import assert from 'node:assert/strict';
import { parseNodeName } from '../../controller/model/names.ts';
import { defaultLimits } from '../../proxy/gate/limits.ts';
import { parseRouteText } from '../../proxy/model/labels.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import type { ServiceDoc } from '../../proxy/model/records.ts';
import { buildTable, type Table } from '../../proxy/model/table.ts';
import { afterChanges, changesOf, type Had } from '../../proxy/stack/haproxy/changes.ts';
import { renderConfiguration } from '../../proxy/stack/haproxy/configuration.ts';
import { layoutBelow } from '../../proxy/stack/haproxy/layout.ts';
import { makePlan, ownersOf } from '../../proxy/stack/haproxy/plan.ts';
import { noSlots, type Slots } from '../../proxy/stack/haproxy/slots.ts';
import type { Wanted } from '../../proxy/stack/haproxy/wanted.ts';

const layout = layoutBelow('/f', '/gate');
const parts = { layout, limits: defaultLimits, hasIpv6: true, log: { port: 9, every: 16 } };

function tableOf(
  routes: Readonly<Record<string, string>>,
  addresses: Readonly<Record<string, readonly string[]>>,
  more: Partial<ServiceDoc> = {},
): Table {
  const node = parseNodeName('here');
  return buildTable(
    {
      generation: 1,
      services: Object.keys(addresses).map((name) => ({
        name: parseServiceName(name),
        createdAtMs: 0,
        balance: 'round-robin',
        stateful: false,
        pause: null,
        ...more,
      })),
      routes: Object.entries(routes).map(([text, service], index) => ({
        id: `route-${index}`,
        service: parseServiceName(service),
        createdAtMs: index,
        ...parseRouteText(text),
      })),
      links: [],
      peers: [],
      upstreams: Object.entries(addresses).flatMap(([service, list]) =>
        list.map((address, index) => ({
          container: `${service}-${index}`,
          service: parseServiceName(service),
          node,
          startedAtMs: index,
          healthy: true,
          address,
          inner: { address: '10.0.0.1', ports: {} },
        })),
      ),
    },
    node,
  );
}

function plan(table: Table, slots: Slots = noSlots, certificates: readonly string[] = []) {
  return makePlan({
    table,
    slots,
    isBusy: () => false,
    certificates: new Map(certificates.map((name) => [name, { text: `pem of ${name}`, digest: name }])),
    blocked: new Set(),
  });
}

/** A worker that has come up with this. */
function hadOf(wanted: Wanted): Had {
  const servers = new Map([...wanted.servers].map(([backend, list]) => [backend, disabled(list, false)]));
  return { maps: wanted.maps, servers };
}

function disabled(list: ReadonlyMap<string, unknown>, isDisabled: boolean) {
  return new Map([...list.keys()].map((name) => [name, { isDisabled }]));
}

describe("HAProxy's plan", () => {
  it('has a map of hosts with paths per port, wildcards in another, and a slot per service and port', () => {
    const { wanted, slots } = plan(
      tableOf(
        {
          'http://a.example -> 80': 'web',
          'http://a.example/shop -> 80': 'shop',
          'http://*.example -> 80': 'web',
          'http://:80 -> 81': 'web',
          'http://[::1] -> 80': 'web',
        },
        { web: ['10.0.0.5'], shop: ['10.0.0.6', '10.0.0.7'] },
      ),
    );
    assert.deepEqual(
      [...(wanted.maps.get('http-80') ?? [])],
      [
        ['a.example/', 'hr0'],
        ['a.example/shop/', 'hr1'],
        ['*/', 'hr2'],
      ],
    );
    assert.deepEqual([...(wanted.maps.get('http-80-below') ?? [])], [['example/', 'hr0']]);
    assert.deepEqual(
      [...ownersOf(slots)],
      [
        ['hr0', 'web'],
        ['hr1', 'shop'],
        ['hr2', 'web'],
      ],
    );
    assert.deepEqual(
      [...(wanted.servers.get('hr1')?.values() ?? [])].map(({ host, port }) => [host, port]),
      [
        ['10.0.0.6', 80],
        ['10.0.0.7', 80],
      ],
    );
    assert.deepEqual([...(wanted.servers.get('hr1u')?.keys() ?? [])], [...(wanted.servers.get('hr1')?.keys() ?? [])]);
  });

  it('passes TLS through or ends it by the name, and refuses names without a certificate', () => {
    const table = tableOf(
      {
        'tls://db.example -> 5432 proxy-protocol=v2': 'db',
        'https://www.example -> 80 certificate=good': 'web',
        'https://lost.example -> 80 certificate=lost': 'web',
        'https://*.example -> 80 certificate=good': 'web',
      },
      { db: ['10.0.0.5'], web: ['10.0.0.6'] },
    );
    const { wanted } = plan(table, noSlots, ['good']);
    assert.deepEqual(Object.fromEntries(wanted.maps.get('tls-443') ?? []), {
      'db.example': 'tr0',
      'www.example': 'https-443-good',
      'lost.example': 'none',
    });
    assert.deepEqual([...(wanted.maps.get('tls-443-below') ?? [])], [['example', 'https-443-good']]);
    // The wildcard's certificate may be used to ask for what is passed through.
    assert.equal(wanted.maps.get('https-443')?.get('db.example/'), 'none');
    assert.deepEqual(wanted.structure.tls, [{ port: 443, certificates: ['good'] }]);
    assert.equal([...(wanted.servers.get('tr0')?.values() ?? [])][0]?.proxyProtocol, true);
    assert.equal(wanted.servers.get('tr0u'), undefined);
  });

  it('needs a reload for ports, certificates and stock only', () => {
    const routes = { 'http://a.example -> 80': 'web' };
    const digest = (table: Table, certificates: readonly string[] = []) =>
      renderConfiguration(plan(table, noSlots, certificates).wanted, parts).digest;
    const before = digest(tableOf(routes, { web: ['10.0.0.5'] }));
    assert.equal(digest(tableOf({ ...routes, 'http://b.example/x -> 90': 'web' }, { web: ['10.0.0.6'] })), before);
    assert.notEqual(digest(tableOf({ ...routes, 'http://b.example:81 -> 90': 'web' }, { web: [] })), before);
    const text = renderConfiguration(plan(tableOf(routes, { web: ['10.0.0.5', 'fd00::1'] })).wanted, parts).text;
    assert.match(text, /backend hr0 from hr\n {2}server web-0\.[0-9a-f]{16} 10\.0\.0\.5:80 /);
    assert.match(text, / \[fd00::1\]:80 /);
    assert.match(text, new RegExp(`description ${before}\n`));
  });

  it('adds before it leads there, and removes last', () => {
    const routes = { 'http://a.example -> 80': 'web' };
    const first = plan(tableOf(routes, { web: ['10.0.0.5'] }));
    const had = hadOf(first.wanted);
    const next = plan(tableOf({ 'http://b.example -> 80': 'web' }, { web: ['10.0.0.6'] }), first.slots);
    const [old] = first.wanted.servers.get('hr0')?.keys() ?? [];
    const [fresh] = next.wanted.servers.get('hr0')?.keys() ?? [];
    const options = 'pool-max-conn 256 pool-purge-delay 4000';
    assert.deepEqual(changesOf(had, next.wanted, layout, defaultLimits), [
      `add server hr0/${fresh} 10.0.0.6:80 ${options}`,
      `enable server hr0/${fresh}`,
      `add server hr0u/${fresh} 10.0.0.6:80 ${options}`,
      `enable server hr0u/${fresh}`,
      'add map /f/maps/http-80.map b.example/ hr0',
      'del map /f/maps/http-80.map a.example/',
      `disable server hr0/${old}`,
      `disable server hr0u/${old}`,
    ]);
    const after = afterChanges(had, next.wanted);
    assert.deepEqual(changesOf(after, next.wanted, layout, defaultLimits), []);
    assert.deepEqual(after.servers.get('hr0')?.get(old ?? ''), { isDisabled: true });
    // It comes back before its last connection has ended.
    const back = changesOf(after, first.wanted, layout, defaultLimits);
    assert.deepEqual(back.slice(0, 2), [`enable server hr0/${old}`, `enable server hr0u/${old}`]);
  });

  it('pauses first and releases after everything else', () => {
    const routes = { 'http://a.example -> 80': 'web' };
    const open = plan(tableOf(routes, { web: ['10.0.0.5'] }));
    const pause = { id: 'p', untilMs: 1, drain: null };
    const paused = plan(tableOf(routes, { web: ['10.0.0.6'] }, { pause }), open.slots);
    const pausing = changesOf(hadOf(open.wanted), paused.wanted, layout, defaultLimits);
    assert.equal(pausing[0], 'add map /f/maps/paused.map hr0 1');
    const releasing = changesOf(hadOf(paused.wanted), open.wanted, layout, defaultLimits);
    assert.deepEqual(
      releasing.map((command) => command.split(' ').slice(0, 2).join(' ')),
      ['add server', 'enable server', 'add server', 'enable server', 'del map', 'disable server', 'disable server'],
    );
  });

  it('tells a worker from before a reload only what it can take', () => {
    const first = plan(tableOf({ 'http://a.example -> 80': 'web' }, { web: ['10.0.0.5'] }));
    const next = plan(
      tableOf({ 'http://a.example -> 80': 'web', 'http://a.example:81 -> 80': 'api' }, { web: ['10.0.0.5'], api: [] }),
      first.slots,
    );
    const had = hadOf(first.wanted);
    assert.deepEqual(changesOf(had, next.wanted, layout, defaultLimits), []);
  });
});
