import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createSecureServer, request as secureRequest } from 'node:https';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ask,
  type Context,
  freePort,
  httpBackend,
  once,
  soon,
  tableOf,
  talk,
  testCertificate,
} from './gate-support.ts';

export function gateRoutes(context: Context): void {
  const named = (name: string) =>
    httpBackend(context, (_req: IncomingMessage, res: ServerResponse) => void res.end(name));

  it('find the service by host and path, however the host is written', async () => {
    const port = await freePort();
    const names = ['www', 'shop', 'wild', 'ip', 'any'];
    const backends = await Promise.all(names.map(named));
    const proxy = await context.start();
    await proxy.apply(
      tableOf(
        {
          [`http://www.example.com:${port} -> 1`]: 'www',
          [`http://www.example.com:${port}/shop -> 1`]: 'shop',
          [`http://*.example.com:${port} -> 1`]: 'wild',
          [`http://[::1]:${port} -> 1`]: 'ip',
          [`http://:${port}/open -> 1`]: 'any',
        },
        Object.fromEntries(names.map((name, index) => [name, [backends[index]?.port ?? 0]])),
      ),
    );
    const get = async (host: string, path = '/') => {
      const { status, body } = await ask(port, { path, headers: { host } });
      return status === 200 ? body : status;
    };
    for (const host of [
      'www.example.com',
      'WWW.Example.com',
      'www.example.com.',
      `www.example.com:${port}`,
      'www.example.com:',
    ])
      assert.equal(await get(host), 'www', host);
    assert.equal(await get('www.example.com', '/shop'), 'shop');
    assert.equal(await get('www.example.com', '/shop/a?b'), 'shop');
    assert.equal(await get('www.example.com', '/shopping'), 'www');
    assert.equal(await get('a.b.example.com'), 'wild');
    assert.equal(await get('example.com'), 404);
    assert.equal(await get('[0:0::1]:80'), 'ip');
    assert.equal(await get('elsewhere', '/open'), 'any');
    assert.equal(await get('elsewhere', '/'), 404);
    for (const host of ['a b', 'www.example.com:x', '[::1', 'www..example.com', 'user@www.example.com'])
      assert.equal(await get(host), 400, host);
    assert.match(
      await talk(port, 'GET http://www.example.com/shop HTTP/1.1\r\nHost: www.example.com\r\n\r\n'),
      /shop$/,
    );
    // Never the other host's: RFC 9112 3.2.2 has the target count, HAProxy refuses two that differ.
    const differing = await talk(port, 'GET http://www.example.com/shop HTTP/1.1\r\nHost: elsewhere\r\n\r\n');
    assert.match(differing, context.rewrites ? /^HTTP\/1\.1 400 / : /shop$/);
  });

  it('listen where the table says and nowhere else, and leave others alone when a port is in use', async () => {
    const [taken, first, second] = [await freePort(), await freePort(), await freePort()];
    const squatter = createServer().listen(taken);
    await once(squatter, 'listening');
    context.later(() => squatter.close());
    const backend = await named('web');
    const proxy = await context.start();
    const status = await proxy.apply(
      tableOf(
        { [`http://:${taken} -> 1`]: 'web', [`tcp://:${taken + 0} -> 1`]: 'web', [`http://:${first} -> 1`]: 'web' },
        { web: [backend.port] },
      ),
    );
    assert.deepEqual(
      status.map(({ key, state }) => [key, state]),
      [
        [`http *:${taken}`, 'failed'],
        [`http *:${first}`, 'listening'],
      ],
    );
    const failed = status.find((one) => one.state === 'failed');
    assert.match(failed?.problem ?? '', new RegExp(`port ${taken} is in use`));
    assert.equal((await ask(first)).body, 'web');
    await proxy.apply(tableOf({ [`http://:${second} -> 1`]: 'web' }, { web: [backend.port] }));
    assert.equal((await ask(second)).body, 'web');
    await assert.rejects(ask(first), /ECONNREFUSED/);
    // The same port for another protocol.
    await proxy.apply(tableOf({ [`tcp://127.0.0.1:${second} -> 1`]: 'web' }, { web: [backend.port] }));
    await soon('it is opened', () => proxy.status().every(({ state }) => state === 'listening'));
    assert.equal((await ask(second)).body, 'web');
  });

  it('share requests in turn, or by what containers have to do', async () => {
    const counts = [0, 0, 0];
    const waiting: ServerResponse[] = [];
    const backends = await Promise.all(
      counts.map((_, index) =>
        httpBackend(context, (req, res) => {
          counts[index] = (counts[index] ?? 0) + 1;
          if (req.url === '/slow') waiting.push(res);
          else res.end(String(index));
        }),
      ),
    );
    const proxy = await context.start();
    const port = await freePort();
    const ports = backends.map((backend) => backend.port);
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: ports }));
    for (let index = 0; index < 9; index += 1) await ask(port);
    assert.deepEqual(counts, [3, 3, 3]);
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: ports }, { balance: 'least-connections' }));
    const slow: ReturnType<typeof ask>[] = [];
    // One after the other: two at once may be given to the same one.
    for (const count of [1, 2]) {
      slow.push(ask(port, { path: '/slow' }));
      while (waiting.length < count) await sleep(5);
    }
    const free = new Set<string>();
    for (let index = 0; index < 6; index += 1) {
      free.add((await ask(port)).body);
      // The client has an answer a moment before its request counts as over.
      await sleep(20);
    }
    assert.equal(free.size, 1, 'only the container without slow requests');
    for (const res of waiting) res.end();
    await Promise.all(slow);
  });

  it('pass TLS through or end it, on one port, by the server name', async () => {
    const { key, cert } = testCertificate();
    const port = await freePort();
    const secure = createSecureServer({ key, cert }, (req, res) => res.end(`${req.headers.host}`)).listen(
      0,
      '127.0.0.1',
    );
    await once(secure, 'listening');
    context.later(() => secure.close());
    context.later(() => secure.closeAllConnections());
    const address = secure.address();
    const inner = typeof address === 'object' && address !== null ? address.port : 0;
    const backend = await httpBackend(
      context,
      (req, res) => void res.end(`inside ${req.headers['x-forwarded-proto']}`),
    );
    const proxy = await context.start();
    await proxy.apply(
      tableOf(
        {
          [`tls://db.example:${port} -> 1`]: 'db',
          [`https://www.example:${port} -> 1 certificate=test`]: 'web',
          [`https://lost.example:${port} -> 1 certificate=lost`]: 'web',
        },
        { db: [inner], web: [backend.port] },
      ),
    );
    const get = (servername: string) =>
      new Promise<string>((resolve, reject) => {
        const asked = secureRequest({
          host: '127.0.0.1',
          port,
          servername,
          headers: { host: servername },
          rejectUnauthorized: false,
          agent: false,
        });
        asked.on('error', reject).on('response', (response) => {
          response.on('data', (piece) => resolve(String(piece)));
        });
        asked.end();
      });
    assert.equal(await get('db.example'), 'db.example');
    assert.equal(await get('www.example'), 'inside https');
    await assert.rejects(get('lost.example'));
    await assert.rejects(get('other.example'));
  });
}
