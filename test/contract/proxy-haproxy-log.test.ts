import assert from 'node:assert/strict';
import type { Observation } from '../../proxy/gate/observe.ts';
import { receiveRequestLog } from '../../proxy/stack/haproxy/request-log.ts';
import { ask, type Context, freePort, httpBackend, soon, tableOf } from './gate-support.ts';
import { startHaproxy } from './proxy-haproxy-support.ts';

describe('HAProxy layer: what it tells of its requests', function () {
  this.timeout(30_000);
  let ends: (() => unknown)[] = [];
  const context: Pick<Context, 'later'> = { later: (end) => void ends.push(end) };
  afterEach('end what the test has started', async () => {
    const last = ends;
    ends = [];
    for (const end of last.reverse()) await end();
  });

  it('each of them with the access log, else some, with their routes', async () => {
    const log = { port: await freePort(), every: 1 };
    const haproxy = await startHaproxy(context, { log: () => ({ ...log }) });
    const backend = await httpBackend(context, (req, res) => {
      res.statusCode = req.url === '/no' ? 404 : 200;
      res.end('ok');
    });
    const port = await freePort();
    let table = tableOf({ [`http://a.example:${port}/shop -> 1`]: 'web' }, { web: [backend.port] });
    const seen: Observation[] = [];
    const receiver = receiveRequestLog({
      port: log.port,
      table: () => table,
      every: () => log.every,
      observe: (one) => void seen.push(one),
      onProblem: (text) => assert.fail(text),
    });
    context.later(() => receiver.close());
    await haproxy.apply(table);
    const headers = { host: `a.example:${port}` };
    await ask(port, { path: '/shop/cart?x=1', headers });
    await ask(port, { path: '/nowhere', headers });
    await soon('both are told', () => seen.length === 2);
    const told = seen.map(({ route, service, request }) => [route, service, request?.status, request?.path]);
    assert.deepEqual(told, [
      ['route-0', 'web', 200, '/shop/cart'],
      [null, null, 404, '/nowhere'],
    ]);
    assert.ok(
      seen.every(({ weight, client, durationMs }) => weight === 1 && client === '127.0.0.1' && durationMs < 5_000),
    );

    log.every = 4;
    table = tableOf({ [`http://a.example:${port}/shop -> 1`]: 'web' }, { web: [backend.port] });
    await haproxy.apply(table);
    seen.length = 0;
    for (let count = 0; count < 200; count += 1) await ask(port, { path: '/shop', headers });
    await soon('some are told', () => seen.length > 10);
    assert.ok(seen.length < 120 && seen.every(({ weight }) => weight === 4), `${seen.length} of 200`);
  });
});
