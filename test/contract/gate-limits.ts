import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { served } from './gate-http.ts';
import { ask, type Context, once, open, soon, talk } from './gate-support.ts';

export function gateLimits(context: Context): void {
  it('refuses headers of 100 KB and serves those of 14 KB, and answers with 30 KB', async () => {
    const { port } = await served(context, (req, res) => {
      if (req.url === '/big') res.setHeader('x-big', 'x'.repeat(30_000));
      res.end(String(req.headers['x-big']?.length));
    });
    const head = (bytes: number) => `GET / HTTP/1.1\r\nHost: a\r\nX-Big: ${'x'.repeat(bytes)}\r\n\r\n`;
    const refused = context.rewrites ? /^HTTP\/1\.1 400 / : /^HTTP\/1\.1 431 /;
    assert.match(await talk(port, head(100_000)), refused);
    assert.match(await talk(port, `GET /${'x'.repeat(100_000)} HTTP/1.1\r\nHost: a\r\n\r\n`), refused);
    // The service here is Node, which takes 16 KiB itself.
    assert.match(await talk(port, head(14_000)), /\b14000\b/);
    assert.match(await talk(port, 'GET /big HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 200 OK\r\nx-big: x{30000}\r\n/);
  });

  it('answers 408 to headers that come at a byte a second', async () => {
    const { port } = await served(context, (_req, res) => res.end(), { headersMsMax: 1_500 });
    const client = await open(port);
    let text = '';
    client.on('data', (piece) => {
      text += piece;
    });
    client.write('GET / HTTP/1.1\r\nX: ');
    const timer = setInterval(() => client.write('a'), 1_000);
    context.later(() => clearInterval(timer));
    await once(client, 'end');
    assert.match(text, /^HTTP\/1\.1 408 /);
    client.destroy();
  });

  it('ends a request whose client has fallen silent', async () => {
    // HAProxy has the service's time count while a body is on its way.
    const limits = { clientSilenceMsMax: 300, ...(context.rewrites ? { serviceSilenceMsMax: 300 } : {}) };
    const { port, proxy } = await served(context, (req) => req.resume(), limits);
    const client = await open(port);
    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf');
    await soon('it arrived', async () => (await proxy.inFlight('web')).requests === 1);
    await soon('it was ended', async () => (await proxy.inFlight('web')).requests === 0);
    client.destroy();
  });

  it('serves beside thousands of idle connections', async () => {
    // Both ends of them are files of this process, of which it may have 20,000 in places; bench/proxy-hold.ts opens 10,000.
    const { port } = await served(context, (_req, res) => res.end('ok'));
    const idle = await Promise.all(Array.from({ length: 4_000 }, () => open(port)));
    const startMs = performance.now();
    for (let index = 0; index < 20; index += 1) assert.equal((await ask(port)).body, 'ok');
    assert.ok(performance.now() - startMs < 5_000);
    for (const socket of idle) socket.destroy();
    await sleep(50);
  });
}
