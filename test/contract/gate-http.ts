import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { Agent, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ask,
  type Context,
  freePort,
  httpBackend,
  once,
  open,
  type ProxyUnderTest,
  readAll,
  soon,
  tableOf,
  talk,
} from './gate-support.ts';

/** A proxy with one route for every host to this handler. */
export async function served(
  context: Context,
  handle: (req: IncomingMessage, res: ServerResponse) => void,
  limits = {},
): Promise<{
  readonly port: number;
  readonly proxy: ProxyUnderTest;
  readonly backend: Awaited<ReturnType<typeof httpBackend>>;
}> {
  const backend = await httpBackend(context, handle);
  const proxy = await context.start(limits);
  const port = await freePort();
  await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [backend.port] }));
  return { port, proxy, backend };
}

export function gateHttp(context: Context): void {
  it('serves many requests over few connections to the service', async () => {
    // http-proxy without an agent opens one per request.
    const { port, backend } = await served(context, (_req, res) => res.end('ok'));
    for (let index = 0; index < 10; index += 1) assert.equal((await ask(port)).body, 'ok');
    // Each of HAProxy's threads may have one of its own, and one more where one is just being given back.
    assert.ok(backend.connections() <= 4, `${backend.connections()} connections`);
  });

  it('keeps the path as it came', async () => {
    // http-proxy joins what it has parsed and makes /a//b/ into /a/b/.
    const { port } = await served(context, (req, res) => res.end(req.url));
    for (const path of ['/a//b/', '//', '/a/../b', '/%2e%2E/x?y=//z&q=http://a/', '/?', '/;a=b', '/a?b?c'])
      assert.equal((await ask(port, { path })).body, path);
    assert.match(await talk(port, 'OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n'), /\r\n\r\n\*$/);
  });

  it('passes no hop-by-hop headers on, in neither direction', async () => {
    // http-proxy passes all of them on both ways, those that Connection names included.
    const { port } = await served(context, (req, res) => {
      res.writeHead(200, {
        connection: 'x-inner, keep-alive',
        'keep-alive': 'timeout=5',
        'x-inner': 'secret',
        'proxy-authenticate': 'Basic',
        'x-kept': '1',
      });
      res.end(JSON.stringify(req.headers));
    });
    const reply = await ask(port, {
      headers: {
        connection: 'x-mine, Keep-Alive, content-length, host, x-forwarded-for',
        'x-mine': 'a',
        'keep-alive': '5',
        te: 'trailers',
        'proxy-authorization': 'Basic x',
        'proxy-connection': 'keep-alive',
        upgrade: 'h2c',
        'http2-settings': 'AAMAAABkAAQAoAAAAAIAAAAA',
        'x-kept': '2',
      },
    });
    const seen = JSON.parse(reply.body);
    for (const name of [
      'x-mine',
      'keep-alive',
      'te',
      'proxy-authorization',
      'proxy-connection',
      'upgrade',
      'http2-settings',
    ])
      assert.equal(seen[name], undefined, name);
    assert.equal(seen['x-kept'], '2');
    assert.equal(seen['x-forwarded-for'], '127.0.0.1');
    assert.equal(reply.headers['x-inner'], undefined);
    assert.equal(reply.headers['proxy-authenticate'], undefined);
    assert.equal(reply.headers['x-kept'], '1');
  });

  it('tells the service who the client is, and believes no claims', async () => {
    // http-proxy appends to what the client claims, and services take the first.
    const { port } = await served(context, (req, res) => res.end(JSON.stringify(req.headers)));
    const headers = {
      host: `Shop.example:${port}`,
      'x-forwarded-for': '6.6.6.6',
      x_forwarded_for: '6.6.6.6',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'evil',
      'x-real-ip': '6.6.6.6',
      forwarded: 'for=6.6.6.6',
    };
    const seen = JSON.parse((await ask(port, { headers })).body);
    assert.equal(seen['x-forwarded-for'], '127.0.0.1');
    assert.equal(seen['x-forwarded-proto'], 'http');
    assert.equal(seen['x-forwarded-host'], `Shop.example:${port}`);
    assert.equal(seen['forwarded'], `for=127.0.0.1;host="Shop.example:${port}";proto=http`);
    assert.equal(seen['host'], `Shop.example:${port}`);
    assert.equal(seen['x-real-ip'], undefined);
    assert.equal(seen['x_forwarded_for'], undefined);
  });

  it('keeps repeated headers apart and passes statuses without a body on', async () => {
    const { port } = await served(context, (req, res) => {
      if (req.url === '/cookies')
        res
          .writeHead(
            200,
            [
              ['Set-Cookie', 'a=1'],
              ['Set-Cookie', 'b=2'],
            ].flat(),
          )
          .end();
      else res.writeHead(Number(req.url?.slice(1)), 'My Words', { 'x-a': 'b' }).end();
    });
    assert.deepEqual((await ask(port, { path: '/cookies' })).headers['set-cookie'], ['a=1', 'b=2']);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    context.later(() => agent.destroy());
    for (const status of [204, 304, 404, 500])
      assert.equal((await ask(port, { path: `/${status}`, agent })).status, status);
    assert.equal((await ask(port, { path: '/200', method: 'HEAD', agent })).body, '');
    assert.match(await talk(port, 'GET /200 HTTP/1.0\r\n\r\n'), /^HTTP\/1\.1 200 My Words\r\n/);
  });

  it('carries large bodies both ways unchanged', async () => {
    const { port } = await served(context, (req, res) => req.pipe(res));
    const send = randomBytes(8 * 1024 * 1024).toString('latin1');
    const reply = await ask(port, { method: 'POST', send });
    const hash = (text: string) => createHash('sha256').update(text).digest('hex');
    assert.equal(hash(reply.body), hash(send));
  });

  it('slows a service down to the speed of its reader', async () => {
    let written = 0;
    const { port } = await served(context, (_req, res) => {
      const piece = Buffer.alloc(64 * 1024);
      const more = () => {
        while (written < 200 * 1024 * 1024) {
          written += piece.length;
          if (!res.write(piece)) return void res.once('drain', more);
        }
      };
      more();
    });
    const socket = await open(port);
    socket.pause();
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await sleep(500);
    assert.ok(written < 40 * 1024 * 1024, `${written} bytes were read for a client that reads nothing`);
    socket.destroy();
  });

  it('passes early hints and trailers on', async () => {
    // http-proxy drops both.
    const { port } = await served(context, (req, res) => {
      req.resume();
      req.on('end', () => {
        res.writeEarlyHints({ link: '</a.css>; rel=preload' });
        res.writeHead(200, { trailer: 'x-sum' });
        res.write('body');
        res.addTrailers({ 'x-sum': `got ${req.trailers['x-check']}` });
        res.end();
      });
    });
    const text = await talk(
      port,
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-check\r\n\r\n1\r\na\r\n0\r\nx-check: 7\r\n\r\n',
    );
    assert.match(text, /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 200/i);
    assert.match(text, /0\r\nx-sum: got 7\r\n\r\n$/);
  });

  it('sends headers on before there is a body', async () => {
    const { port } = await served(context, (_req, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.flushHeaders();
    });
    const asked = request({ host: '127.0.0.1', port, agent: false });
    asked.on('error', () => {});
    asked.end();
    const response = (await once(asked, 'response')) as IncomingMessage;
    assert.equal(response.headers['content-type'], 'text/event-stream');
    asked.destroy();
  });

  it('answers "100 Continue" and gives the body on', async () => {
    const { port } = await served(
      context,
      (req, res) => void readAll(req).then((body) => res.end(`${req.headers.expect} ${body}`)),
    );
    const text = await talk(port, 'PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi');
    assert.match(text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200/);
    assert.match(text, /undefined hi$/);
  });

  it('opens WebSockets and carries them both ways', async () => {
    const backend = await httpBackend(
      context,
      (_req, res) => res.end(),
      (server) => {
        server.on('upgrade', (req: IncomingMessage, socket: Socket) => {
          socket.write(`${switched}x-path: ${req.url}\r\n\r\nhello `);
          socket.write(`${req.headers['x-forwarded-for']} ${req.headers['upgrade']} `);
          socket.pipe(socket);
        });
      },
    );
    const proxy = await context.start();
    const port = await freePort();
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [backend.port] }));
    const socket = await open(port);
    let text = '';
    socket.on('data', (piece) => {
      text += piece;
    });
    socket.write(`${upgrade('/a//b')}first `);
    await soon('the echo came', () => text.endsWith('first '));
    assert.match(text, /^HTTP\/1\.1 101 /);
    assert.match(text, /x-path: \/a\/\/b\r\n/);
    assert.match(text, /hello 127\.0\.0\.1 websocket first $/);
    assert.deepEqual(await proxy.inFlight('web'), { requests: 0, tunnels: 1, held: 0 });
    socket.end();
    await soon('the tunnel ended', async () => (await proxy.inFlight('web')).tunnels === 0);
  });

  it('gives a refused upgrade on as a whole answer', async () => {
    // http-proxy announces chunks and sends none.
    const backend = await httpBackend(
      context,
      (_req, res) => res.end(),
      (server) => {
        server.on('upgrade', (_req: IncomingMessage, socket: Socket) => {
          socket.end('HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\nx-why: no\r\n\r\n4\r\nnope\r\n0\r\n\r\n');
        });
      },
    );
    const proxy = await context.start();
    const port = await freePort();
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [backend.port] }));
    const text = await talk(port, upgrade('/'));
    assert.match(text, /^HTTP\/1\.1 403 Forbidden\r\n/);
    assert.match(text, /x-why: no\r\n/);
    const isChunked = /chunked/i.test(text);
    assert.match(text, isChunked ? /\r\n\r\n4\r\nnope\r\n0\r\n\r\n$/ : /\r\n\r\nnope$/);
    await soon('it is over', async () => {
      const { tunnels, requests } = await proxy.inFlight('web');
      return tunnels + requests === 0;
    });
  });

  it('serves a request that offers HTTP/2 as it is, and opens no tunnels', async () => {
    const { port } = await served(context, (_req, res) => res.end('plain'));
    const text = await talk(port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n');
    assert.match(text, /plain/);
    assert.match(
      await talk(port, 'CONNECT example.com:25 HTTP/1.1\r\nHost: example.com:25\r\n\r\n'),
      /^HTTP\/1\.1 405 /,
    );
  });
}

/** A service's yes to `upgrade`, but for the empty line; the key's answer is that of RFC 6455 1.3. */
export const switched =
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n';

export function upgrade(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n`;
}
