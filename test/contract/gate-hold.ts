import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { served, switched, upgrade } from './gate-http.ts';
import {
  ask,
  type Context,
  freePort,
  httpBackend,
  open,
  readAll,
  soon,
  tableOf,
  talk,
  tcpBackend,
} from './gate-support.ts';

export function gateHold(context: Context): void {
  const minute = { deadlineMs: 60_000 };

  it('holds requests with their bodies and serves each once, in order', async () => {
    const seen: string[] = [];
    const { port, proxy, backend } = await served(
      context,
      (req, res) =>
        void readAll(req).then((body) => {
          seen.push(req.url ?? '');
          res.end(`${req.url} ${body.length}`);
        }),
      { releasedMax: 1 },
    );
    await proxy.pause('web', minute);
    const replies: Promise<{ readonly status: number; readonly body: string }>[] = [];
    for (let index = 0; index < 60; index += 1) {
      replies.push(ask(port, { method: 'POST', path: `/${index}`, send: Buffer.alloc(300_000) }));
      await soon('it is held', async () => (await proxy.inFlight('web')).held === index + 1);
    }
    await sleep(100);
    assert.equal(backend.connections(), 0);
    assert.deepEqual(await proxy.inFlight('web'), { requests: 0, tunnels: 0, held: 60 });
    await proxy.release('web', null);
    const texts = (await Promise.all(replies)).map(({ body }) => body);
    assert.deepEqual(
      texts,
      Array.from({ length: 60 }, (_, index) => `/${index} 300000`),
    );
    assert.deepEqual(
      seen,
      Array.from({ length: 60 }, (_, index) => `/${index}`),
    );
  });

  it('releases to other containers than before, at most so many at a time, newcomers last', async () => {
    let [active, most] = [0, 0];
    const order: string[] = [];
    const next = await httpBackend(context, (req, res) => {
      active += 1;
      most = Math.max(most, active);
      order.push(req.url ?? '');
      setTimeout(() => {
        active -= 1;
        res.end('new');
      }, 20);
    });
    const { port, proxy } = await served(context, (_req, res) => res.end('old'), { releasedMax: 4 });
    await proxy.pause('web', minute);
    const held = Array.from({ length: 20 }, () => ask(port, { path: '/held' }));
    await soon('all are held', async () => (await proxy.inFlight('web')).held === 20);
    await proxy.release('web', new Map([[1, [{ id: 'next', host: '127.0.0.1', port: next.port }]]]));
    const late = ask(port, { path: '/late' });
    for (const reply of await Promise.all([...held, late])) assert.equal(reply.body, 'new');
    assert.ok(most <= (context.rewrites ? 5 : 4), `${most} at a time`);
    if (!context.rewrites) assert.equal(order.at(-1), '/late');
  });

  it('answers 503 and when to come again, beyond the count, the bytes and the time', async () => {
    const { port, proxy } = await served(context, (_req, res) => res.end('ok'), {
      heldCountMax: 3,
      heldMsMax: 500,
      heldBytesMax: 100_000,
    });
    await proxy.pause('web', minute);
    const big = ask(port, { method: 'POST', send: Buffer.alloc(65_536) });
    await soon('it is held', async () => (await proxy.inFlight('web')).held === 1);
    const tooMuch = await ask(port, { method: 'POST', send: Buffer.alloc(65_536) });
    assert.deepEqual([tooMuch.status, tooMuch.headers['retry-after']], [503, '2']);
    const small = [ask(port), ask(port)];
    await soon('they are held', async () => (await proxy.inFlight('web')).held === 3);
    assert.equal((await ask(port)).status, 503);
    assert.match(await talk(port, upgrade('/')), /^HTTP\/1\.1 503 [\s\S]*retry-after: 2/);
    for (const reply of await Promise.all([big, ...small])) {
      assert.equal(reply.status, 503);
      assert.equal(reply.headers['retry-after'], '5');
    }
    assert.equal((await proxy.inFlight('web')).held, 0);
    await proxy.release('web', null);
    assert.equal((await ask(port)).status, 200);
  });

  it('reads no more than the limit of a held body', async () => {
    const { port, proxy } = await served(
      context,
      (req, res) => void readAll(req).then((body) => res.end(String(body.length))),
    );
    await proxy.pause('web', minute);
    const client = await open(port);
    const bytes = 64 * 1024 * 1024;
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes}\r\n\r\n`);
    client.write(Buffer.alloc(bytes));
    await sleep(300);
    // What the kernel's buffers took in is not in the proxy.
    assert.ok(
      client.bytesWritten - client.writableLength >= 0 && client.writableLength > 0,
      'the proxy has read it all',
    );
    await proxy.release('web', null);
    let text = '';
    client.on('data', (piece) => {
      text += piece;
    });
    await soon('it is served', () => text.endsWith(String(bytes)));
    client.destroy();
  });

  it('forgets clients that leave while they are held', async () => {
    const { port, proxy, backend } = await served(context, (_req, res) => res.end('ok'));
    await proxy.pause('web', minute);
    const clients = await Promise.all(Array.from({ length: 5 }, () => open(port)));
    for (const [index, client] of clients.entries())
      client.write(index === 0 ? upgrade('/') : 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await soon('all are held', async () => (await proxy.inFlight('web')).held === 5);
    clients[0]?.end();
    clients[1]?.end();
    clients[2]?.resetAndDestroy();
    await soon('three have left', async () => (await proxy.inFlight('web')).held === 2);
    for (const client of clients) client.destroy();
    await soon('all have left', async () => (await proxy.inFlight('web')).held === 0);
    await proxy.release('web', null);
    await sleep(50);
    assert.equal(backend.connections(), 0);
  });

  it('ends a pause by itself at its deadline, to the old containers', async () => {
    const { port, proxy } = await served(context, (_req, res) => res.end('old'));
    const startMs = performance.now();
    await proxy.pause('web', { deadlineMs: 300 });
    assert.equal((await ask(port)).body, 'old');
    // The rest of it may have gone by before the pause was acknowledged.
    assert.ok(performance.now() - startMs >= 250);
  });

  it('pauses and releases by the table, and not again what has ended', async () => {
    const { port, proxy, backend } = await served(context, (_req, res) => res.end('ok'));
    const routes = { [`http://:${port} -> 1`]: 'web' };
    const pause = { id: 'move-1', untilMs: Date.now() + 500, drain: null };
    await proxy.apply(tableOf(routes, { web: [backend.port] }, { pause }));
    const reply = ask(port);
    await soon('it is held', async () => (await proxy.inFlight('web')).held === 1);
    await proxy.apply(tableOf(routes, { web: [backend.port] }));
    assert.equal((await reply).body, 'ok');
    await proxy.apply(tableOf(routes, { web: [backend.port] }, { pause }));
    assert.equal((await ask(port)).body, 'ok');
    await assert.rejects(async () => proxy.pause('nobody', minute), /no service "nobody"/);
  });

  it('counts and drains requests, then ends tunnels', async () => {
    const waiting: ServerResponse[] = [];
    const backend = await httpBackend(
      context,
      (_req, res) => void waiting.push(res),
      (server) => {
        server.on('upgrade', (_req, socket) => {
          socket.write(`${switched}\r\n`);
          socket.pipe(socket);
        });
      },
    );
    const proxy = await context.start();
    const [port, tcpPort] = [await freePort(), await freePort()];
    await proxy.apply(
      tableOf({ [`http://:${port} -> 1`]: 'web', [`tcp://:${tcpPort} -> 1`]: 'web' }, { web: [backend.port] }),
    );
    const reply = ask(port);
    const socket = await open(port);
    socket.write(upgrade('/'));
    const raw = await open(tcpPort);
    const ended = Promise.all([readAll(socket), readAll(raw)]);
    await soon('all are counted', async () => waiting.length === 1 && (await proxy.inFlight('web')).tunnels === 2);
    assert.deepEqual(await proxy.inFlight('web'), { requests: 1, tunnels: 2, held: 0 });
    await proxy.pause('web', minute);
    const later = ask(port);
    const early = await proxy.drain('web', 100);
    assert.deepEqual([early.requests, early.tunnelsClosed], [1, 2]);
    await ended;
    setTimeout(() => waiting[0]?.end('done'), 50);
    const drained = await proxy.drain('web', 5_000);
    assert.deepEqual([drained.requests, drained.tunnels, drained.held], [0, 0, 1]);
    assert.equal((await reply).body, 'done');
    await proxy.release('web', null);
    await soon('the held one arrived', () => waiting.length === 2);
    waiting[1]?.end('later');
    assert.equal((await later).body, 'later');
    socket.destroy();
    raw.destroy();
  });

  it('holds TCP connections of both kinds, with what they have sent', async () => {
    const backend = await tcpBackend(context, (socket) => {
      socket.write('welcome ');
      void readAll(socket).then((all) => socket.end(`got ${all.length}`));
    });
    const proxy = await context.start({ heldMsMax: 2_000 });
    const port = await freePort();
    await proxy.apply(tableOf({ [`tcp://:${port} -> 1`]: 'db' }, { db: [backend.port] }));
    await proxy.pause('db', minute);
    const [speaker, listener, leaver, halfway] = await Promise.all([open(port), open(port), open(port), open(port)]);
    speaker?.write(Buffer.alloc(1_000_000));
    halfway?.end('all I want');
    await soon('all are held', async () => (await proxy.inFlight('db')).held === 4);
    leaver?.destroy();
    await soon('one has left', async () => (await proxy.inFlight('db')).held === 3);
    assert.equal(backend.connections(), 0);
    await proxy.release('db', null);
    speaker?.end();
    listener?.end();
    const texts = await Promise.all([speaker, listener, halfway].map((socket) => socket && readAll(socket)));
    assert.deepEqual(texts.map(String), ['welcome got 1000000', 'welcome got 0', 'welcome got 10']);
  });

  it('closes TCP connections beyond the limits', async () => {
    const backend = await tcpBackend(context, (socket) => socket.end('ok'));
    const proxy = await context.start({ heldMsMax: 300, heldCountMax: 1 });
    const port = await freePort();
    await proxy.apply(tableOf({ [`tcp://:${port} -> 1`]: 'db' }, { db: [backend.port] }));
    await proxy.pause('db', minute);
    const first = await open(port);
    await soon('it is held', async () => (await proxy.inFlight('db')).held === 1);
    assert.equal((await readAll(await open(port))).length, 0);
    assert.equal((await readAll(first)).length, 0);
    assert.equal(backend.connections(), 0);
  });
}
