import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Context, freePort, open, readAll, soon, tableOf, tcpBackend } from './gate-support.ts';

export function gateTcp(context: Context): void {
  async function before(handle: (socket: Socket) => void, limits = {}) {
    const backend = await tcpBackend(context, handle);
    const proxy = await context.start(limits);
    const port = await freePort();
    await proxy.apply(tableOf({ [`tcp://:${port} -> 1`]: 'db' }, { db: [backend.port] }));
    return { port, proxy, backend };
  }

  it('serves servers that speak first', async () => {
    // node-tcp-proxy dials only after the client's first byte: MySQL, SMTP and SSH hang.
    const { port } = await before((socket) => socket.end('welcome'));
    assert.equal((await readAll(await open(port))).toString(), 'welcome');
  });

  it('delivers the answer after the client has ended its side', async () => {
    // node-tcp-proxy loses it.
    const { port } = await before((socket) => void readAll(socket).then((all) => socket.end(`got ${all}`)));
    const client = await open(port);
    client.end('question');
    assert.equal((await readAll(client)).toString(), 'got question');
  });

  it('delivers 8 MiB whole when the service closes at once after them', async () => {
    // node-tcp-proxy delivers nothing of it.
    const data = randomBytes(8 * 1024 * 1024);
    const { port, proxy } = await before((socket) => socket.resume().end(data));
    const client = await open(port);
    client.pause();
    await sleep(200);
    client.resume();
    const got = await readAll(client);
    assert.equal(createHash('sha256').update(got).digest('hex'), createHash('sha256').update(data).digest('hex'));
    client.end();
    await soon('the tunnel ended', async () => (await proxy.inFlight('db')).tunnels === 0);
  });

  it('delivers them to a client that still writes, too', async () => {
    const data = randomBytes(8 * 1024 * 1024);
    const { port } = await before((socket) => {
      socket.resume();
      socket.end(data);
    });
    const client = await open(port);
    const timer = setInterval(() => client.writable && client.write('more'), 5);
    context.later(() => clearInterval(timer));
    const got = await readAll(client);
    assert.equal(got.length, data.length);
    client.destroy();
  });

  it('slows a service down to the speed of its reader', async () => {
    // node-tcp-proxy takes all of it into memory.
    let written = 0;
    const { port } = await before((socket) => {
      const more = () => {
        while (written < 200 * 1024 * 1024 && !socket.destroyed) {
          written += 65_536;
          if (!socket.write(Buffer.alloc(65_536))) return void socket.once('drain', more);
        }
      };
      more();
    });
    const client = await open(port);
    client.pause();
    await sleep(500);
    assert.ok(written < 40 * 1024 * 1024, `${written} bytes were read for a client that reads nothing`);
    client.destroy();
  });

  it('gives resets on, in both directions', async () => {
    let errorOfService: unknown = null;
    const { port, proxy } = await before((socket) => {
      socket.on('error', (error) => {
        errorOfService = error;
      });
      socket.on('data', (piece) => {
        if (piece.toString() === 'reset') socket.resetAndDestroy();
      });
    });
    const one = await open(port);
    one.write('hello');
    await soon('it is joined', async () => (await proxy.inFlight('db')).tunnels === 1);
    await sleep(50);
    one.resetAndDestroy();
    await soon('the service knows', () => errorOfService !== null);
    const two = await open(port);
    two.write('reset');
    const error = await new Promise((done) => two.once('error', done));
    assert.match(String(error), /ECONNRESET/);
    await soon('nothing is left', async () => {
      const { tunnels, requests } = await proxy.inFlight('db');
      return tunnels + requests === 0;
    });
  });

  it('goes to another container when one takes no connections, and resets when there is none', async () => {
    const backend = await tcpBackend(context, (socket) => socket.end('ok'));
    const proxy = await context.start();
    const [port, dead] = [await freePort(), await freePort()];
    await proxy.apply(tableOf({ [`tcp://:${port} -> 1`]: 'db' }, { db: [dead, backend.port] }));
    for (let index = 0; index < 4; index += 1) assert.equal((await readAll(await open(port))).toString(), 'ok');
    await proxy.apply(tableOf({ [`tcp://:${port} -> 1`]: 'db' }, { db: [dead] }));
    await assert.rejects(open(port).then(readAll), /ECONNRESET/);
  });
}
