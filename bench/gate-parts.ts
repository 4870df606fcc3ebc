import { Agent, createServer as createHttpServer } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import httpProxy from 'http-proxy';
import { createProxy } from 'node-tcp-proxy';
import { createGate } from '../proxy/gate/gate.ts';
import { tableOf } from '../test/contract/gate-support.ts';

/** The processes of gate.ts: `gate-parts.ts ROLE PORT [BACKEND PORT]`. They say "ready" and answer questions over the IPC channel. */
const [role = '', port = 0, backend = 0] = process.argv
  .slice(2)
  .map((text, index) => (index === 0 ? text : Number(text))) as [string, number, number];
const body = Buffer.from(
  'HTTP/1.1 200 OK\r\nContent-Length: 128\r\nContent-Type: text/plain\r\n\r\n'.concat('x'.repeat(128)),
);
const target = `http://127.0.0.1:${backend}`;
const ready = () => process.send?.('ready');
process.on('disconnect', () => process.exit());

switch (role) {
  case 'backend':
    // As fast as a service can be, so that the proxies are what is measured: an answer per end of headers.
    createServer({ noDelay: true }, (socket) => {
      let rest = '';
      socket.on('error', () => {});
      socket.on('data', (piece) => {
        const text = rest + piece.toString('latin1');
        const parts = text.split('\r\n\r\n');
        rest = parts.pop() ?? '';
        for (const _ of parts) socket.write(body);
      });
    }).listen({ port, host: '127.0.0.1', backlog: 4096 }, ready);
    break;
  case 'http-proxy':
  case 'keep-alive': {
    const proxy = httpProxy.createProxyServer(
      role === 'keep-alive' ? { target, agent: new Agent({ keepAlive: true }) } : { target },
    );
    proxy.on('error', () => {});
    createHttpServer((req, res) => proxy.web(req, res)).listen(port, ready);
    break;
  }
  case 'node-tcp-proxy':
    createProxy(port, '127.0.0.1', backend, { hostname: '127.0.0.1' });
    await sleep(200);
    ready();
    break;
  case 'gate':
  case 'gate-tcp': {
    const gate = createGate();
    const route = role === 'gate' ? `http://:${port} -> 1` : `tcp://:${port} -> 1`;
    await gate.apply(tableOf({ [route]: 'web' }, { web: [backend] }));
    process.on('message', (question) => {
      if (question === 'pause') gate.pause('web', { deadlineMs: 60_000 });
      if (question === 'release') gate.release('web', null);
      process.send?.(question === 'state' ? gate.inFlight('web') : { releasedAtMs: Date.now() });
    });
    ready();
    break;
  }
  case 'clients':
    clients();
    ready();
    break;
  default:
    throw new Error(`there is no role "${role}"`);
}

/** Opens connections, sends one request over each when told, and waits for the answers. */
function clients(): void {
  const sockets: Socket[] = [];
  let [ok, failed, lastAtMs] = [0, 0, 0];
  const open = () =>
    new Promise<void>((resolve) => {
      const socket = connect({ port, host: '127.0.0.1', noDelay: true }, resolve);
      socket.on('data', (piece) => {
        if (piece.subarray(0, 12).toString() === 'HTTP/1.1 200') ok += 1;
        else failed += 1;
        lastAtMs = Date.now();
      });
      socket.on('error', () => {
        failed += 1;
        resolve();
      });
      sockets.push(socket);
    });
  async function answer(question: unknown): Promise<void> {
    if (typeof question === 'object' && question !== null && 'connect' in question) {
      const wanted = Number(question.connect);
      while (sockets.length < wanted)
        await Promise.all(Array.from({ length: Math.min(200, wanted - sockets.length) }, open));
      process.send?.('connected');
    } else if (question === 'send') {
      [ok, failed, lastAtMs] = [0, 0, Date.now()];
      for (const socket of sockets)
        socket.write('GET /path HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n');
      process.send?.('sent');
    } else {
      const endMs = Date.now() + 40_000;
      while (ok + failed < sockets.length && Date.now() < endMs) await sleep(20);
      process.send?.({ ok, failed, lastAtMs });
    }
  }
  process.on('message', (question) => void answer(question));
}
