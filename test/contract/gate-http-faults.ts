import assert from 'node:assert/strict';
import { Agent, type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { served, upgrade } from './gate-http.ts';
import {
  ask,
  type Context,
  freePort,
  httpBackend,
  once,
  open,
  soon,
  tableOf,
  talk,
  tcpBackend,
} from './gate-support.ts';

export function gateHttpFaults(context: Context): void {
  /** A proxy before services that speak bytes. */
  async function before(...handlers: ((socket: Socket) => void)[]) {
    const backends = await Promise.all(handlers.map((handle) => tcpBackend(context, handle)));
    const proxy = await context.start();
    const port = await freePort();
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: backends.map((one) => one.port) }));
    return { port, proxy, backends };
  }
  const answering =
    (text: string, end = true) =>
    (socket: Socket) => {
      socket.once('data', () => {
        if (end) socket.end(text, 'latin1');
        else socket.write(text, 'latin1');
      });
    };

  it('aborts the request to the service when the client leaves', async () => {
    // http-proxy relies on an event that Node has not had since 15.5: the service works on for nobody.
    let isGone = false;
    const { port, proxy } = await served(context, (req) => {
      req.resume();
      req.socket.once('close', () => {
        isGone = true;
      });
    });
    const asked = request({ host: '127.0.0.1', port, agent: false });
    asked.on('error', () => {});
    asked.end();
    await soon('it arrived', async () => (await proxy.inFlight('web')).requests === 1);
    asked.destroy();
    await soon('the service knows', () => isGone);
    await soon('it is counted no more', async () => (await proxy.inFlight('web')).requests === 0);
  });

  it('aborts an upload and a download that the client breaks off', async () => {
    let aborted = 0;
    const { port, proxy } = await served(context, (req, res) => {
      res.once('close', () => {
        if (!res.writableFinished) aborted += 1;
      });
      if (req.method === 'POST') req.resume();
      else res.write('some');
    });
    const up = await open(port);
    up.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome');
    const down = await open(port);
    down.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await soon('both arrived', async () => (await proxy.inFlight('web')).requests === 2);
    await sleep(50);
    up.destroy();
    down.resetAndDestroy();
    await soon('the service knows', () => aborted === 2);
  });

  it('breaks the connection to the client when the service dies in the middle of a body', async () => {
    // http-proxy leaves the client waiting for ever.
    for (const head of ['Content-Length: 100', 'Transfer-Encoding: chunked']) {
      const { port } = await before(answering(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n3\r\nabc\r\n`));
      await assert.rejects(ask(port), /aborted|socket hang up|ECONNRESET/);
    }
  });

  it('survives a WebSocket client that resets its connection before the upgrade', async () => {
    // With http-proxy this is an uncaught exception that ends the process.
    const { port, proxy, backends } = await before((socket) => socket.resume().once('end', () => socket.end()));
    for (let index = 0; index < 20; index += 1) {
      const client = await open(port);
      client.write(upgrade('/'));
      if (index % 2 === 0) await soon('it arrived', () => (backends[0]?.sockets.size ?? 0) > 0);
      client.resetAndDestroy();
    }
    await soon('all are forgotten', async () => {
      const { tunnels, requests } = await proxy.inFlight('web');
      return tunnels + requests === 0;
    });
    await soon('the service knows', () => backends[0]?.sockets.size === 0);
  });

  it('answers 502 for what is no HTTP', async () => {
    for (const text of [
      'SSH-2.0-OpenSSH\r\n',
      'HTTP/1.1 2000 OK\r\n\r\n',
      'HTTP/1.1 020 Hm\r\n\r\n',
      'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello',
      'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello',
      'HTTP/1.1 200 OK\r\nbad\0name: x\r\n\r\n',
      ...(context.rewrites ? [] : ['HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n']),
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n',
      'HTTP/1.1 200 O',
      '',
    ]) {
      const { port } = await before(answering(text));
      const reply = await ask(port);
      assert.equal(reply.status, 502, JSON.stringify(text));
    }
  });

  it('survives early hints and trailers that make no sense', async () => {
    const { port } = await before(
      answering(
        'HTTP/1.1 103 Early Hints\r\nLink: garbage <\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\nok\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nx: y\r\n\r\n',
      ),
    );
    const text = await talk(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', { silenceMs: 200 });
    assert.match(text, /\r\nok\r\n0\r\n(x-forwarded-for: 6\.6\.6\.6\r\n)?x: y\r\n\r\n$/);
  });

  it('does requests that a client sends at once one after the other', async () => {
    const order: string[] = [];
    const { port, proxy } = await served(context, (req, res) => {
      order.push(`begin ${req.url}`);
      req.resume();
      setTimeout(() => {
        order.push(`end ${req.url}`);
        res.end(req.url);
      }, 30);
    });
    const post = (path: string) => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi`;
    const text = await talk(port, `${post('/1')}${post('/2')}${post('/3')}`, { silenceMs: 300 });
    assert.deepEqual(order, ['begin /1', 'end /1', 'begin /2', 'end /2', 'begin /3', 'end /3']);
    assert.match(text, /\/1HTTP[\s\S]*\/2HTTP[\s\S]*\/3$/);
    const client = await open(port);
    client.write(`${post('/4')}${post('/5')}`);
    await soon('the first is there', () => order.includes('begin /4'));
    client.destroy();
    await sleep(100);
    assert.ok(!order.includes('begin /5'));
    assert.equal((await proxy.inFlight('web')).requests, 0);
  });

  it('passes an answer without a length on until its end', async () => {
    const { port } = await before(answering('HTTP/1.0 200 OK\r\n\r\nuntil the end'));
    assert.equal((await ask(port)).body, 'until the end');
  });

  it('does not take what a service adds to its answer for the answer to the next request', async () => {
    const extra = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil';
    const { port } = await before(answering(extra, false));
    for (let index = 0; index < 3; index += 1) assert.equal((await ask(port)).body, 'ok');
  });

  it('repeats a request that met a connection which the service was just closing', async () => {
    let served = 0;
    const { port } = await before((socket) => {
      // Says nothing of a timeout, and is gone at the second request.
      let requests = 0;
      socket.on('data', () => {
        requests += 1;
        if (requests > 1) return void socket.resetAndDestroy();
        served += 1;
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    });
    const agent = new Agent({ keepAlive: true });
    context.later(() => agent.destroy());
    for (let index = 0; index < 4; index += 1) assert.equal((await ask(port, { agent })).body, 'ok');
    assert.equal(served, 4);
  });

  it('does not repeat what might be done twice', async () => {
    let posts = 0;
    const { port } = await before((socket) => {
      let requests = 0;
      socket.on('data', (piece) => {
        requests += 1;
        if (piece.toString().startsWith('POST')) posts += 1;
        if (requests > 1) socket.resetAndDestroy();
        else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    });
    assert.equal((await ask(port)).status, 200);
    assert.equal((await ask(port, { method: 'POST', send: 'x' })).status, 502);
    assert.equal(posts, 1);
  });

  it('goes to another container when one takes no connections, bodies included', async () => {
    const good = await httpBackend(context, (req, res) => req.pipe(res));
    const dead = await freePort();
    const proxy = await context.start({ coolDownMs: 0 });
    const port = await freePort();
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [dead, good.port] }));
    for (let index = 0; index < 6; index += 1) {
      const reply = await ask(port, { method: 'POST', send: `body ${index}` });
      assert.deepEqual([reply.status, reply.body], [200, `body ${index}`]);
    }
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [dead] }));
    assert.equal((await ask(port)).status, 502);
    assert.match(await talk(port, upgrade('/'), { silenceMs: 5_000 }), /^HTTP\/1\.1 50[23] /);
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [] }));
    const reply = await ask(port);
    assert.deepEqual([reply.status, reply.headers['retry-after']], [503, '1']);
  });

  it('gives an early answer to an upload on', async () => {
    const { port } = await before((socket) => {
      socket.once('data', () =>
        socket.end('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig'),
      );
    });
    const text = await talk(
      port,
      `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n${'x'.repeat(10_000)}`,
    );
    assert.match(text, /^HTTP\/1\.1 413 Too Large\r\n/);
    assert.match(text, /big$/);
  });

  it('answers 504 when the service is silent, and cuts an answer that falls silent', async () => {
    const backend = await httpBackend(context, (req, res) => {
      if (req.url === '/half') res.write('half');
    });
    const proxy = await context.start({ serviceSilenceMsMax: 300 });
    const port = await freePort();
    await proxy.apply(tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [backend.port] }));
    assert.equal((await ask(port)).status, 504);
    await assert.rejects(ask(port, { path: '/half' }));
    await soon('it is over', async () => (await proxy.inFlight('web')).requests === 0);
  });

  it('fails nobody while its table changes a hundred times', async () => {
    const handle = (_req: IncomingMessage, res: import('node:http').ServerResponse) => void res.end('ok');
    const [one, two] = [await httpBackend(context, handle), await httpBackend(context, handle)];
    const proxy = await context.start();
    const port = await freePort();
    const routes = { [`http://:${port} -> 1`]: 'web' };
    await proxy.apply(tableOf(routes, { web: [one.port] }));
    const agent = new Agent({ keepAlive: true });
    context.later(() => agent.destroy());
    let isOver = false;
    const clients = Array.from({ length: 8 }, async () => {
      let count = 0;
      for (; !isOver; count += 1) assert.equal((await ask(port, { agent })).body, 'ok');
      return count;
    });
    for (let index = 0; index < 100; index += 1) {
      const more = index % 3 === 0 ? { [`http://host-${index}.example:${port}/x -> 1`]: 'web' } : {};
      await proxy.apply(tableOf({ ...routes, ...more }, { web: index % 2 === 0 ? [two.port] : [one.port, two.port] }));
      await sleep(5);
    }
    isOver = true;
    const counts = await Promise.all(clients);
    assert.ok(
      counts.every((count) => count > 10),
      `${counts}`,
    );
    await once(agent, 'free').catch(() => {});
  }).timeout(20_000);
}
