import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:https';
import { connect as connectPlain, type Socket } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ConnectionOptions, connect, createServer, type TLSSocket } from 'node:tls';
import { Router } from 'express';
import { issueCertificate, makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import { FlockError } from '../../controller/model/errors.ts';
import type { NodeIdentity, PeerAddress } from '../../controller/model/identity.ts';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { askMember, createPeerClient, type PeerClient } from '../../plugin/peer/client.ts';
import { type PeerServer, startPeerServer } from '../../plugin/peer/server.ts';
import { dataProtocol } from '../../plugin/peer/tls.ts';
import { log } from '../support/cluster-hosts.ts';
import { rejects } from '../support/refuses.ts';
import { until as untilKnown } from '../support/until.ts';

const never = new AbortController().signal;
const clusterId = '0123456789abcdef';
const authority = makeAuthority(clusterId, Date.now());
const foreignAuthority = makeAuthority(clusterId, Date.now());
const one = parseNodeName('node-1');
const two = parseNodeName('node-2');

function identify(name: NodeName, from = authority, nowMs = Date.now()): NodeIdentity {
  const key = makeKey();
  const node = { clusterId, name, address: '127.0.0.1' };
  const store = { port: 1, storeAddress: 'http://127.0.0.1:8500', storeToken: null };
  const ca = { caCertificate: from.certificate, caKey: from.key };
  return { ...node, ...store, ...ca, key, certificate: issueCertificate(from, node, key, nowMs) };
}

describe('peers', () => {
  let server: PeerServer;
  let client: PeerClient;
  let members: Set<NodeName>;
  let at: PeerAddress;
  let streams: { readonly socket: TLSSocket; readonly peer: NodeName }[];
  const clients: PeerClient[] = [];
  let hanging: (() => void) | null;

  function clientOf(identity: NodeIdentity, resolve: (node: NodeName) => PeerAddress | null = () => at): PeerClient {
    const made = createPeerClient({ identity, resolve });
    clients.push(made);
    return made;
  }

  beforeEach(async () => {
    members = new Set([one, two]);
    streams = [];
    hanging = null;
    const handler = Router();
    handler.post('/echo', (req, response) => void response.json({ peer: response.locals['peer'], body: req.body }));
    handler.get('/fails', () => {
      throw new FlockError('epoch-stale', 'epoch 3 is older than 4', { epoch: 4 });
    });
    handler.get('/breaks', () => {
      throw new Error('broken');
    });
    handler.get('/hangs', (_req, response) => {
      hanging = () => response.json({});
    });
    server = await startPeerServer({
      identity: identify(one),
      address: '127.0.0.1',
      port: 0,
      handler,
      join: async (body) => ({ asked: body }),
      isMember: async (name) => members.has(name),
      onData: (socket, peer) => void streams.push({ socket, peer }),
      log,
    });
    at = { address: '127.0.0.1', port: server.port };
    client = clientOf(identify(two));
  });
  afterEach(async () => {
    for (const made of clients.splice(0)) made.close();
    await server.close();
  });

  /** By hand: what a caller without our client can send. */
  function raw(options: ConnectionOptions, method: string, path: string): Promise<{ status: number; body: unknown }> {
    return new Promise((resolve, reject) => {
      const target = { host: at.address, port: at.port, rejectUnauthorized: false, agent: false as const };
      const outgoing = request({ ...target, ...options, method, path }, async (response) => {
        resolve({ status: response.statusCode ?? 0, body: JSON.parse((await buffer(response)).toString()) });
      });
      outgoing.on('error', reject);
      outgoing.end();
    });
  }

  it('call each other, and know who calls', async () => {
    assert.deepEqual(await client.call(one, 'POST', '/echo', { a: 1 }), { peer: two, body: { a: 1 } });
    const big = 'x'.repeat(900_000);
    assert.deepEqual(await client.call(one, 'POST', '/echo', { big }), { peer: two, body: { big } });
    const many = await Promise.all(Array.from({ length: 50 }, (_, a) => client.call(one, 'POST', '/echo', { a })));
    assert.deepEqual(many.at(-1), { peer: two, body: { a: 49 } });
  });

  it('pass on errors as they are', async () => {
    const error = await rejects(client.call(one, 'GET', '/fails'), 'epoch-stale');
    assert.equal(error.message, 'epoch 3 is older than 4');
    assert.deepEqual(error.facts, { epoch: 4 });
    assert.match((await rejects(client.call(one, 'GET', '/breaks'), 'storage-failed')).message, /broken/);
    await rejects(client.call(one, 'GET', '/nothing'), 'invalid-request');
    await rejects(client.call(one, 'POST', '/echo', { big: 'x'.repeat(2_000_000) }), 'invalid-request');
  });

  it('take nothing but a join from callers without a certificate of the authority', async () => {
    for (const options of [{}, credentials(identify(two, foreignAuthority))]) {
      const { status, body } = await raw(options, 'POST', '/echo');
      assert.equal(status, 403);
      assert.equal((body as { code: string }).code, 'invalid-request');
      assert.equal((await raw(options, 'GET', '/v1/join')).status, 403);
      assert.equal((await raw(options, 'GET', '/nothing')).status, 403);
    }
    assert.deepEqual(await raw({}, 'POST', '/v1/join'), { status: 200, body: {} });
    assert.deepEqual(await askMember(at, authority.certificate, { a: 1 }), { asked: { a: 1 } });
    await rejects(askMember(at, authority.certificate, { big: 'x'.repeat(20_000) }), 'invalid-request');
  });

  it('take nothing from nodes that were removed, also on a connection that is open', async () => {
    await client.call(one, 'POST', '/echo', {});
    members.delete(two);
    const error = await rejects(client.call(one, 'POST', '/echo', {}), 'node-not-found');
    assert.match(error.message, /node-2 is no node/);
    members.add(two);
    await client.call(one, 'POST', '/echo', {});
  });

  it('take no certificate that is over or not valid yet', async () => {
    const dayMs = 24 * 3600 * 1000;
    for (const nowMs of [Date.now() - 366 * dayMs, Date.now() + 2 * dayMs]) {
      const options = credentials(identify(two, authority, nowMs));
      assert.equal((await raw(options, 'POST', '/echo')).status, 403);
    }
  });

  it('talk to nobody but the node they mean', async () => {
    const three = parseNodeName('node-3');
    const impersonated = await rejects(client.call(three, 'POST', '/echo', {}), 'node-unreachable');
    assert.match(impersonated.message, /node node-3 at 127\.0\.0\.1:\d+ is not reached: node node-1 answers there/);
    await rejects(client.connectData(three, never), 'node-unreachable');
    // The same name in another cluster, and one that the caller's authority has not signed.
    await rejects(clientOf({ ...identify(two), clusterId: 'ff' }).call(one, 'POST', '/echo', {}), 'node-unreachable');
    await rejects(clientOf(identify(two, foreignAuthority)).call(one, 'POST', '/echo', {}), 'node-unreachable');
    await rejects(askMember(at, foreignAuthority.certificate, {}), 'node-unreachable');
    assert.deepEqual(streams, []);
  });

  it('say which node is not reached, and why', async () => {
    await rejects(clientOf(identify(two), () => null).call(one, 'GET', '/x'), 'node-not-found');
    const nowhere = clientOf(identify(two), () => ({ address: '127.0.0.1', port: 1 }));
    const error = await rejects(nowhere.call(one, 'GET', '/x'), 'node-unreachable');
    assert.deepEqual(error.facts, { node: 'node-1', address: '127.0.0.1', port: 1 });
    assert.match(error.message, /ECONNREFUSED/);
    await rejects(nowhere.connectData(one, never), 'node-unreachable');
    const late = await rejects(client.call(one, 'GET', '/hangs', undefined, { timeoutMs: 50 }), 'node-unreachable');
    assert.match(late.message, /no answer within 0\.05 s/);
  });

  it('notice soon that a host is gone, whatever time the call has', async () => {
    const silent = await startSilent();
    const { port } = silent;
    try {
      const gone = clientOf(identify(two), () => ({ address: '127.0.0.1', port }));
      const startMs = performance.now();
      const options = { timeoutMs: 18_000 };
      const late = await rejects(gone.call(one, 'GET', '/x', undefined, options), 'node-unreachable');
      assert.match(late.message, /its host took no connection/);
      await rejects(gone.connectData(one, never), 'node-unreachable');
      assert.ok(performance.now() - startMs < 9_000);
    } finally {
      silent.close();
    }
  });

  it('go on waiting for a host that is there', async () => {
    const call = client.call(one, 'GET', '/hangs', undefined, { timeoutMs: 10_000 });
    await sleep(3_000);
    hanging?.();
    assert.deepEqual(await call, {});
  });

  it('stop when the caller does', async () => {
    const stop = new AbortController();
    const call = client.call(one, 'GET', '/hangs', undefined, { signal: stop.signal });
    await until(() => hanging !== null);
    stop.abort(new FlockError('caller-gone', 'gone'));
    await rejects(call, 'caller-gone');
    await rejects(client.call(one, 'GET', '/hangs', undefined, { signal: stop.signal }), 'caller-gone');
    await rejects(client.connectData(one, stop.signal), 'caller-gone');
  });

  it('speak TLS 1.3 with AES-128 and nothing older', async () => {
    const socket = await client.connectData(one, never);
    assert.equal(socket.getProtocol(), 'TLSv1.3');
    assert.equal(socket.getCipher().name, 'TLS_AES_128_GCM_SHA256');
    socket.destroy();
    await assert.rejects(raw({ ...credentials(identify(two)), maxVersion: 'TLSv1.2' }, 'POST', '/echo'));
  });

  it('stream bytes both ways, each end in its own time', async () => {
    const socket = await client.connectData(one, never);
    await until(() => streams.length === 1);
    const [stream] = streams;
    assert.ok(stream !== undefined);
    assert.equal(stream.peer, two);
    const sent = Buffer.alloc(5_000_000, 'flock');
    const answered = buffer(socket);
    socket.end(sent);
    const received = await buffer(stream.socket);
    assert.ok(received.equals(sent));
    stream.socket.end('thanks');
    assert.equal((await answered).toString(), 'thanks');
  });

  it('take no stream from strangers and removed nodes', async () => {
    members.delete(two);
    const removed = await client.connectData(one, never);
    await once(removed.resume(), 'end');
    removed.destroy();
    members.add(two);
    for (const options of [{}, credentials(identify(two, foreignAuthority))]) {
      const target = { host: at.address, port: at.port, rejectUnauthorized: false, ALPNProtocols: [dataProtocol] };
      const socket = connect({ ...target, ...options });
      socket.on('error', () => undefined);
      socket.resume();
      await once(socket, 'close');
    }
    assert.deepEqual(streams, []);
  });

  it('end their streams when the server closes', async () => {
    const socket = await client.connectData(one, never);
    socket.on('error', () => undefined);
    await until(() => streams.length === 1);
    const ended = once(socket.resume(), 'end');
    await server.close();
    await ended;
    socket.destroy();
    server = await startPeerServer({
      ...{ identity: identify(one), address: '127.0.0.1', port: 0, handler: Router(), log },
      ...{ join: async () => ({}), isMember: () => true, onData: () => undefined },
    });
  });

  it('go on with renewed certificates', async () => {
    await client.call(one, 'POST', '/echo', {});
    client.renew(identify(two));
    server.renew(identify(one));
    assert.deepEqual(await client.call(one, 'POST', '/echo', {}), { peer: two, body: {} });
    const fresh = clientOf(identify(two));
    assert.deepEqual(await fresh.call(one, 'POST', '/echo', {}), { peer: two, body: {} });
  });

  it('outlive callers that speak no TLS, or nothing', async () => {
    const plain = connectPlain(at.port, at.address);
    plain.on('error', () => undefined);
    plain.end('GET / HTTP/1.1\r\n\r\n');
    await once(plain.resume(), 'close');
    const silent = connectPlain(at.port, at.address);
    await once(silent, 'connect');
    silent.destroy();
    await client.call(one, 'POST', '/echo', {});
  });

  it('are not fooled by a server that answers with something else', async () => {
    const { certificate, key } = identify(one);
    for (const answer of [
      'nonsense\r\n\r\n',
      reply('200 OK', 'no json'),
      reply('500 X', '{"code":"new","detail":""}'),
    ]) {
      const odd = createServer({ cert: certificate, key }, (socket) => {
        socket.on('error', () => undefined);
        socket.once('data', () => socket.end(answer));
      }).listen(0, '127.0.0.1');
      await once(odd, 'listening');
      const address = odd.address();
      assert.ok(typeof address === 'object' && address !== null);
      const misled = clientOf(identify(two), () => ({ address: '127.0.0.1', port: address.port }));
      await rejects(misled.call(one, 'GET', '/x'), 'node-unreachable');
      await rejects(misled.connectData(one, never), 'node-unreachable');
      odd.close();
    }
  });
});

function until(ask: () => boolean): Promise<true> {
  return untilKnown('the server has it', 5_000, () => (ask() ? true : undefined));
}

/** A port whose process stands still and whose queue is full, so that the kernel answers no more. */
async function startSilent(): Promise<{ readonly port: number; close(): void }> {
  const program = `const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () =>
    process.stdout.write(String(server.address().port)))`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [text] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(text.toString());
  child.kill('SIGSTOP');
  const sockets: Socket[] = [];
  for (let isFull = false; !isFull && sockets.length < 10; ) {
    const socket = connectPlain(port, '127.0.0.1').on('error', () => undefined);
    sockets.push(socket);
    isFull = await Promise.race([once(socket, 'connect').then(() => false), sleep(300, true)]);
  }
  return {
    port,
    close() {
      for (const socket of sockets) socket.destroy();
      child.kill('SIGKILL');
    },
  };
}

function credentials({ certificate, key }: NodeIdentity): ConnectionOptions {
  return { cert: certificate, key };
}

function reply(status: string, body: string): string {
  return `HTTP/1.1 ${status}\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`;
}
