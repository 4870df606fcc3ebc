import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { Agent, createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import httpProxy from 'http-proxy';
import { ask, freePort, httpBackend, once, open, talk, tcpBackend } from './gate-support.ts';

/**
 * What http-proxy 1.18.1 does without the guards of proxy/gate/forward.ts. A test that fails here means that the package has
 * changed and a guard may go; the contract has the same probes for the gate.
 */
describe('http-proxy as it comes', function () {
  this.timeout(20_000);
  let ends: (() => unknown)[] = [];
  const context = { later: (end: () => unknown) => void ends.push(end) };
  afterEach(async () => {
    const last = ends;
    ends = [];
    for (const end of last.reverse()) await end();
  });

  async function unguarded(target: number, options: httpProxy.ServerOptions = {}): Promise<number> {
    const proxy = httpProxy.createProxyServer({ target: `http://127.0.0.1:${target}`, ...options });
    proxy.on('error', () => {});
    const server = createServer((req, res) => proxy.web(req, res)).listen(0);
    await once(server, 'listening');
    context.later(() => server.close());
    context.later(() => server.closeAllConnections());
    return (server.address() as AddressInfo).port;
  }
  const backend = (handle: (req: IncomingMessage, res: ServerResponse) => void) => httpBackend(context, handle);

  it('works on for a client that has left', async () => {
    let isGone = false;
    const service = await backend((req) => req.socket.once('close', () => (isGone = true)));
    const client = await open(await unguarded(service.port));
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await sleep(100);
    client.destroy();
    await sleep(300);
    assert.equal(isGone, false);
  });

  it('leaves the client waiting when the service dies in the middle of a body', async () => {
    const service = await tcpBackend(context, (socket) => {
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc'));
    });
    const port = await unguarded(service.port);
    const outcome = await Promise.race([ask(port).catch(() => 'broken'), sleep(1_000, 'waiting')]);
    assert.equal(outcome, 'waiting');
  });

  it('makes a second request of the chunked body of a DELETE', async () => {
    let seen = '';
    const service = await tcpBackend(context, (socket) => {
      socket.on('data', (piece) => {
        seen += piece;
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    });
    const agent = new Agent({ keepAlive: true });
    context.later(() => agent.destroy());
    const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n';
    const text = `DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;
    await talk(await unguarded(service.port, { agent }), text, { silenceMs: 300 });
    assert.match(seen, /content-length: 0\r\n[\s\S]*\r\n\r\nGET \/smuggled HTTP\/1\.1/i);
  });

  it('dies of a WebSocket client that resets its connection before the upgrade', async () => {
    const service = await tcpBackend(context, (socket: Socket) => socket.resume());
    const port = await freePort();
    const program = `
      import { createServer } from 'node:http';
      import httpProxy from 'http-proxy';
      const proxy = httpProxy.createProxyServer({ target: 'http://127.0.0.1:${service.port}', ws: true });
      proxy.on('error', () => {});
      createServer().on('upgrade', (req, socket, head) => proxy.ws(req, socket, head)).listen(${port}, () => console.log('up'));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      cwd: import.meta.dirname,
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 10_000,
    });
    context.later(() => child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    const client = await open(port);
    client.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    await sleep(100);
    client.resetAndDestroy();
    assert.equal(await once(child, 'exit'), 1);
  });

  it('rewrites paths', async () => {
    const service = await backend((req, res) => void res.end(req.url));
    assert.equal((await ask(await unguarded(service.port), { path: '/a//b/' })).body, '/a/b/');
  });

  it('passes hop-by-hop headers and the claims of strangers on', async () => {
    const service = await backend((req, res) => {
      res.setHeader('proxy-authenticate', 'Basic');
      res.end(JSON.stringify(req.headers));
    });
    const headers = { te: 'trailers', 'proxy-authorization': 'Basic x', 'x-forwarded-for': '6.6.6.6' };
    const reply = await ask(await unguarded(service.port, { xfwd: true }), { headers });
    const seen = JSON.parse(reply.body);
    assert.equal(seen['te'], 'trailers');
    assert.equal(seen['proxy-authorization'], 'Basic x');
    assert.match(seen['x-forwarded-for'], /^6\.6\.6\.6,/);
    assert.equal(reply.headers['proxy-authenticate'], 'Basic');
  });

  it('opens a connection per request', async () => {
    const service = await backend((_req, res) => void res.end());
    const port = await unguarded(service.port);
    for (let index = 0; index < 10; index += 1) await ask(port);
    assert.equal(service.connections(), 10);
  });

  it('drops trailers and early hints', async () => {
    const service = await backend((_req, res) => {
      res.writeEarlyHints({ link: '</a.css>; rel=preload' });
      res.writeHead(200, { trailer: 'x-sum' });
      res.write('body');
      res.addTrailers({ 'x-sum': '1' });
      res.end();
    });
    const text = await talk(await unguarded(service.port), 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', { silenceMs: 300 });
    assert.doesNotMatch(text, /103 Early Hints/);
    assert.doesNotMatch(text, /x-sum: 1/);
  });
});
