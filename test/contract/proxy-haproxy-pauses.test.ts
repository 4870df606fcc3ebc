import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Agent, createServer, type IncomingMessage } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { request as secureRequest } from 'node:https';
import { createServer as createNetServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { issueCertificate, makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import type { Certificate } from '../../proxy/certificates.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import { until } from '../support/until.ts';
import { upgrade } from './gate-http.ts';
import { ask, type Context, freePort, httpBackend, once, open, readAll, tableOf, tcpBackend } from './gate-support.ts';
import { type HaproxyUnderTest, ownCertificate, startHaproxy } from './proxy-haproxy-support.ts';

const web = parseServiceName('web');
const db = parseServiceName('db');

describe('HAProxy layer: pauses, tunnels and TLS', function () {
  this.timeout(60_000);
  let ends: (() => unknown)[] = [];
  const context: Pick<Context, 'later'> = { later: (end) => void ends.push(end) };
  afterEach('end what the test has started', async () => {
    const last = ends;
    ends = [];
    for (const end of last.reverse()) await end();
  });
  const pause = () => ({ id: 'p', untilMs: Date.now() + 60_000, drain: null });

  async function listening<T extends Server>(server: T, at: string | number): Promise<T> {
    const sockets = new Set<Socket>();
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => sockets.delete(socket));
    });
    server.listen(at);
    await once(server, 'listening');
    context.later(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return server;
  }

  /** In place of the gate. */
  function gateDoor(haproxy: HaproxyUnderTest, name: string) {
    const server = createServer((req, res) => void res.end(`held ${JSON.stringify(req.headers)}`));
    return listening(server, join(haproxy.gateFolder, name));
  }

  async function inFlightSoon(haproxy: HaproxyUnderTest, service: typeof web, requests: number, tunnels: number) {
    let seen = '';
    await until(`${requests} requests and ${tunnels} tunnels run`, 5_000, async () => {
      const found = await haproxy.layer.inFlight(service);
      seen = JSON.stringify(found);
      return found.requests === requests && found.tunnels === tunnels ? true : undefined;
    }).catch((error: Error) => {
      throw new Error(`${error.message}: ${seen}`);
    });
  }

  it('sends the requests of a paused service to the gate, also those of old connections and old workers', async () => {
    const haproxy = await startHaproxy(context);
    const port = await freePort();
    await gateDoor(haproxy, `http-${port}.sock`);
    const backend = await httpBackend(context, (_req, res) => void res.end('served'));
    const routes = { [`http://a.example:${port} -> 1`]: 'web', [`http://b.example:${port} -> 1`]: 'api' };
    const services = { web: [backend.port], api: [backend.port] };
    await haproxy.apply(tableOf(routes, services));
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    context.later(() => agent.destroy());
    const get = async (host: string, options = {}) => (await ask(port, { headers: { host }, ...options })).body;
    assert.equal(await get('a.example', { agent }), 'served');
    // A WebSocket keeps the worker that the reload leaves behind.
    const raw = await open(port);
    raw.write('GET / HTTP/1.1\r\nHost: a.example\r\n\r\n');
    let text = '';
    raw.on('data', (piece) => {
      text += piece;
    });
    await until('it was served', 5_000, () => (text.endsWith('served') ? true : undefined));
    const other = await freePort();
    const more = { ...routes, [`http://:${other} -> 1`]: 'web' };
    await haproxy.apply(tableOf(more, services));
    const paused = tableOf(more, services);
    const service = paused.services.get(web);
    assert.ok(service);
    await haproxy.apply({ ...paused, services: new Map([...paused.services, [web, { ...service, pause: pause() }]]) });
    raw.write('GET /again HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n');
    await until('the gate has answered', 5_000, () => (text.includes('held') ? true : undefined));
    assert.match(text, /"x-forwarded-for":"127\.0\.0\.1"/);
    assert.match(
      await get('a.example', { agent }),
      /^held .*"forwarded":"for=127\.0\.0\.1;host=\\"a\.example\\";proto=http"/,
    );
    assert.equal(await get('b.example'), 'served');
    await haproxy.apply(tableOf(more, services));
    assert.equal(await get('a.example', { agent }), 'served');
    raw.destroy();
  });

  it('sends old connections of old workers to the gate, which knows the new containers', async () => {
    const haproxy = await startHaproxy(context);
    const [port, other] = [await freePort(), await freePort()];
    await gateDoor(haproxy, `http-${port}.sock`);
    const backends = await Promise.all(
      ['old', 'new'].map((name) => httpBackend(context, (_req, res) => void res.end(name))),
    );
    const [before = 0, after = 0] = backends.map((backend) => backend.port);
    const routes = { [`http://:${port} -> 1`]: 'web' };
    await haproxy.apply(tableOf(routes, { web: [before] }));
    const raw = await open(port);
    let text = '';
    raw.on('data', (piece) => {
      text += piece;
    });
    raw.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await until('it was served', 5_000, () => (text.endsWith('old') ? true : undefined));
    const more = { ...routes, [`http://:${other} -> 1`]: 'web' };
    await haproxy.apply(tableOf(more, { web: [before] }));
    await haproxy.apply(tableOf(more, { web: [after] }));
    assert.equal((await ask(port)).body, 'new');
    raw.write('GET /again HTTP/1.1\r\nHost: a\r\n\r\n');
    await until('the gate has answered', 5_000, () => (text.includes('held') ? true : undefined));
    raw.destroy();
  });

  it('counts WebSockets apart from requests, of old workers too, and ends them alone', async () => {
    const haproxy = await startHaproxy(context);
    const port = await freePort();
    const waiting: (() => void)[] = [];
    const backend = await httpBackend(
      context,
      (_req, res) => void waiting.push(() => res.end('done')),
      (server) => {
        server.on('upgrade', (req: IncomingMessage, socket: Socket) => {
          const key = `${req.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
          const accept = createHash('sha1').update(key).digest('base64');
          socket.write(
            `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\nhello`,
          );
          socket.pipe(socket);
        });
      },
    );
    const routes = { [`http://:${port} -> 1`]: 'web' };
    await haproxy.apply(tableOf(routes, { web: [backend.port] }));
    const upgraded = async () => {
      const socket = await open(port);
      let text = '';
      socket.on('data', (piece) => {
        text += piece;
      });
      socket.write(`${upgrade('/')} echo`);
      await until('the echo came', 5_000, () => (text.endsWith('hello echo') ? true : undefined));
      assert.match(text, /^HTTP\/1\.1 101 /);
      return socket;
    };
    const first = await upgraded();
    const other = await freePort();
    await haproxy.apply(tableOf({ ...routes, [`http://:${other} -> 1`]: 'web' }, { web: [backend.port] }));
    const second = await upgraded();
    const reply = ask(port);
    await inFlightSoon(haproxy, web, 1, 2);
    const ended = Promise.all([readAll(first), readAll(second)]);
    assert.equal(await haproxy.layer.cutTunnels(web), 2);
    await ended;
    await inFlightSoon(haproxy, web, 1, 0);
    waiting[0]?.();
    assert.equal((await reply).body, 'done');
    await inFlightSoon(haproxy, web, 0, 0);
    assert.equal(await haproxy.layer.cutTunnels(web), 0);
  });

  it('passes TLS through, with the client in a PROXY header where the service wants it, and to the gate while paused', async () => {
    const haproxy = await startHaproxy(context);
    const port = await freePort();
    const seen: Buffer[] = [];
    const backend = await tcpBackend(context, (socket) => {
      socket.on('data', (piece) => seen.push(piece));
    });
    const routes = { [`tls://db.example:${port} -> 1 proxy-protocol=v2`]: 'db' };
    await haproxy.apply(tableOf(routes, { db: [backend.port] }));
    const client = connectTls({ port, host: '127.0.0.1', servername: 'db.example', rejectUnauthorized: false });
    client.on('error', () => {});
    await until('the hello came', 5_000, () => (Buffer.concat(seen).length > 100 ? true : undefined));
    const bytes = Buffer.concat(seen);
    assert.equal(bytes.subarray(0, 12).toString('latin1'), '\r\n\r\n\0\r\nQUIT\n');
    assert.equal(bytes[12], 0x21);
    assert.deepEqual([...bytes.subarray(16, 20)], [127, 0, 0, 1]);
    assert.equal(bytes[16 + bytes.readUInt16BE(14)], 22, 'and then the hello');
    await inFlightSoon(haproxy, db, 0, 1);

    const held: Buffer[] = [];
    const gate = createNetServer((socket) => void socket.on('data', (piece) => held.push(piece)));
    await listening(gate, join(haproxy.gateFolder, `tls-${port}.sock`));
    await haproxy.apply(tableOf(routes, { db: [backend.port] }, { pause: pause() }));
    const later = connectTls({ port, host: '127.0.0.1', servername: 'db.example', rejectUnauthorized: false });
    later.on('error', () => {});
    await until('the gate has it', 5_000, () => (Buffer.concat(held).length > 100 ? true : undefined));
    assert.equal(Buffer.concat(held)[12], 0x21);
    assert.equal(await haproxy.layer.cutTunnels(db), 1);
    await inFlightSoon(haproxy, db, 0, 0);
    client.destroy();
    later.destroy();
  });

  it('ends TLS by name at any depth, in HTTP/2 too, takes new certificates, and says which are missing or bad', async () => {
    const certificates = new Map<string, Certificate>([
      ['good', ownCertificate()],
      ['bad', { ...ownCertificate(), key: makeKey() }],
    ]);
    const haproxy = await startHaproxy(context, { certificate: (name) => certificates.get(name) ?? null });
    const port = await freePort();
    const backend = await httpBackend(context, (req, res) => void res.end(JSON.stringify(req.headers)));
    const table = () =>
      tableOf(
        {
          [`https://*.example:${port} -> 1 certificate=good`]: 'web',
          [`https://bad.example:${port} -> 1 certificate=bad`]: 'web',
          [`https://lost.example:${port} -> 1 certificate=lost`]: 'web',
        },
        { web: [backend.port] },
      );
    await haproxy.apply(table());
    assert.deepEqual([...haproxy.layer.problems().keys()].sort(), ['certificate bad', 'certificate lost']);
    assert.match(haproxy.layer.problems().get('certificate bad') ?? '', /key/);
    const get = (servername: string) =>
      new Promise<{ readonly body: string; readonly serial: string }>((resolve, reject) => {
        const options = { host: '127.0.0.1', port, servername, headers: { host: servername } };
        const asked = secureRequest({ ...options, rejectUnauthorized: false, agent: false });
        asked.on('error', reject).on('response', (response) => {
          const socket = response.socket as import('node:tls').TLSSocket;
          const serial = socket.getPeerCertificate().serialNumber;
          readAll(response).then((body) => resolve({ body: body.toString(), serial }), reject);
        });
        asked.end();
      });
    const { body, serial } = await get('a.b.example');
    assert.match(body, /"x-forwarded-for":"127\.0\.0\.1"/);
    assert.match(body, /"x-forwarded-proto":"https"/);
    for (const name of ['bad.example', 'lost.example', 'example', 'other.org']) await assert.rejects(get(name), name);

    const session = connectHttp2(`https://127.0.0.1:${port}`, { servername: 'x.example', rejectUnauthorized: false });
    context.later(() => session.destroy());
    const stream = session.request({ ':path': '/two', ':authority': 'x.example' });
    assert.match((await readAll(stream)).toString(), /"host":"x\.example"/);

    const authority = makeAuthority('other', Date.now());
    const key = makeKey();
    const node = { clusterId: 'other', name: parseNodeName('other'), address: '127.0.0.1' };
    const certificate = issueCertificate(authority, node, key, Date.now());
    certificates.set('good', { key, certificate });
    certificates.set('lost', { key, certificate });
    await haproxy.apply(table());
    assert.notEqual((await get('a.example')).serial, serial);
    assert.equal((await get('lost.example')).serial, (await get('a.example')).serial);
    assert.deepEqual([...haproxy.layer.problems().keys()], ['certificate bad']);
    session.destroy();
  });

  it('works around a port that another program has, and takes it when it is free', async () => {
    const haproxy = await startHaproxy(context);
    const [taken, port] = [await freePort(), await freePort()];
    const squatter = createNetServer().listen(taken);
    await once(squatter, 'listening');
    const backend = await httpBackend(context, (_req, res) => void res.end('ok'));
    const table = tableOf(
      { [`http://:${taken} -> 1`]: 'web', [`http://:${port} -> 1`]: 'web' },
      { web: [backend.port] },
    );
    await haproxy.apply(table);
    assert.equal((await ask(port)).body, 'ok');
    assert.match(haproxy.layer.problems().get(`http *:${taken}`) ?? '', new RegExp(`port ${taken} is in use`));
    await new Promise((done) => squatter.close(done));
    await haproxy.apply(table);
    assert.equal(haproxy.layer.problems().size, 0);
    assert.equal((await ask(taken)).body, 'ok');
    // One that was taken while HAProxy was away, so that HAProxy does not come up any more.
    haproxy.kill(1_000);
    const second = createNetServer();
    context.later(() => second.close());
    await until('the port is free', 900, async () => {
      second.listen(taken);
      return once(second, 'listening').then(
        () => true as const,
        () => undefined,
      );
    });
    await haproxy.apply(table);
    assert.ok(haproxy.layer.problems().has(`http *:${taken}`));
    assert.equal((await ask(port)).body, 'ok');
  });

  it('says that HAProxy is away, and waits with the table on disk', async () => {
    const haproxy = await startHaproxy(context);
    const port = await freePort();
    const table = tableOf({ [`http://:${port} -> 1`]: 'web' }, { web: [] });
    await assert.rejects(haproxy.layer.apply(table), /flock-haproxy/);
    await haproxy.apply(table);
    const reply = await ask(port);
    assert.deepEqual([reply.status, reply.headers['retry-after']], [503, '1']);
  });
});
