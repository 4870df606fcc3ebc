import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { parseNodeName } from '../../controller/model/names.ts';
import { hostOf } from '../../proxy/model/authority.ts';
import { matchRoute } from '../../proxy/model/match.ts';
import { parseHostPattern, parsePathPrefix, parseServiceName } from '../../proxy/model/names.ts';
import type { RouteDoc } from '../../proxy/model/records.ts';
import { buildTable, type Table } from '../../proxy/model/table.ts';
import { createRandom } from '../simulation/random.ts';
import { ask, type Context, freePort, httpBackend, once } from './gate-support.ts';
import { startHaproxy } from './proxy-haproxy-support.ts';

const labels = ['a', 'b', 'www', 'x-1', 'under_score', 'example'];
const segments = ['shop', 'Shop', 'a', 'b', 'x;y', 'a,b', '%41', 'long-segment'];
const routeCount = 120;
const requestCount = 600;

describe('HAProxy layer: routes', function () {
  this.timeout(60_000);
  let ends: (() => unknown)[] = [];
  const context: Pick<Context, 'later'> = { later: (end) => void ends.push(end) };
  afterEach('end what the test has started', async () => {
    const last = ends;
    ends = [];
    for (const end of last.reverse()) await end();
  });

  it('leads requests where the model says, or to the gate what it can not match', async () => {
    const random = createRandom(7);
    const { pick, chance } = random;
    const some = <T>(list: readonly T[], most: number) =>
      Array.from({ length: random.whole(0, most) }, () => pick(list));
    const [port, other] = [await freePort(), await freePort()];
    const haproxy = await startHaproxy(context);
    const gate = createServer((_req, res) => void res.end('gate')).listen(
      join(haproxy.gateFolder, `http-${port}.sock`),
    );
    await once(gate, 'listening');
    context.later(() => {
      gate.closeAllConnections();
      gate.close();
    });
    const names = Array.from({ length: 12 }, (_, index) => `s${index}`);
    const backends = await Promise.all(names.map((name) => httpBackend(context, (_req, res) => void res.end(name))));
    const routes: RouteDoc[] = Array.from({ length: routeCount }, (_, index) => {
      const kind = random.next();
      const name = [...some(labels, 2), pick(labels)].join('.');
      const host = kind < 0.05 ? '*' : kind < 0.35 ? `*.${name}` : name;
      // A route for everything would leave nothing to miss.
      const path = `/${(host === '*' ? [pick(segments)] : some(segments, 3)).join('/')}`;
      return {
        id: `route-${index}`,
        service: parseServiceName(pick(names)),
        createdAtMs: index,
        entrance: {
          protocol: 'http',
          host: parseHostPattern(host),
          port: chance(0.9) ? port : other,
          path: parsePathPrefix(path),
        },
        targetPort: 1,
      };
    });
    const table = tableOf(
      routes,
      names,
      backends.map((one) => one.port),
    );
    await haproxy.apply(table);
    let [found, missing, held] = [0, 0, 0];
    for (let index = 0; index < requestCount; index += 1) {
      const route = pick(routes);
      const base = chance(0.5) ? route.entrance : pick(routes).entrance;
      const known = base.protocol === 'http' ? base.host.replace(/^\*\.?/, pick(['', 'x.', 'a.b.', 'www.'])) : '';
      const host =
        chance(0.7) && known !== '' ? known : [...some(labels, chance(0.1) ? 10 : 3), pick(labels)].join('.');
      const prefix = route.entrance.protocol === 'http' && chance(0.8) ? route.entrance.path : '';
      const path =
        `${prefix === '/' ? '' : prefix}${pick(['', '/', 'x', '//', '/a', '/shop/', '?q=/shop', '/?'])}` || '/';
      const url = path.startsWith('/') ? path : `/${path}`;
      const written = pick([host, host.toUpperCase(), `${host}:${port}`, host, `${host}.`]);
      const { status, body } = await ask(port, { path: url, headers: { host: written } });
      const target = matchRoute(table, `http *:${port}`, hostOf(written) ?? '', url);
      const isGates = written.endsWith('.') || host.endsWith('.') || host.split('.').length > 8;
      if (isGates) held += 1;
      else if (target === null) missing += 1;
      else found += 1;
      const expected = isGates ? 'gate' : (target?.service ?? 404);
      assert.equal(status === 200 ? body : status, expected, `${written} ${url}`);
    }
    assert.ok(found > 100 && missing > 50 && held > 20, `${found} found, ${missing} missing, ${held} of the gate`);
  });
});

function tableOf(routes: readonly RouteDoc[], names: readonly string[], ports: readonly number[]): Table {
  const node = parseNodeName('elsewhere');
  return buildTable(
    {
      generation: 1,
      services: names.map((name) => ({
        name: parseServiceName(name),
        createdAtMs: 0,
        balance: 'round-robin',
        stateful: false,
        pause: null,
      })),
      routes,
      links: [],
      peers: [],
      upstreams: names.map((name, index) => ({
        container: `${name}-container`,
        service: parseServiceName(name),
        node,
        startedAtMs: 0,
        healthy: true,
        address: '127.0.0.1',
        inner: { address: '127.0.0.1', ports: { '1': ports[index] ?? 0 } },
      })),
    },
    parseNodeName('here'),
  );
}
