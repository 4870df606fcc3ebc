import { spawn } from 'node:child_process';
import { Agent, createServer as createHttpServer } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import httpProxy from 'http-proxy';
import { createProxy } from 'node-tcp-proxy';
import { until } from '../test/support/until.ts';

/**
 * What stands before, behind and beside flock in its benchmarks, each in a process of its own: `gate-parts.ts ROLE ARGUMENT...`. They
 * say "ready" and answer questions over the IPC channel.
 */
const [role = '', ...args] = process.argv.slice(2);
const [first = '', second = '', third = ''] = args;
const answer = Buffer.from(
  'HTTP/1.1 200 OK\r\nContent-Length: 128\r\nContent-Type: text/plain\r\n\r\n'.concat('x'.repeat(128)),
);
const ready = () => process.send?.('ready');
const startMsMax = 10_000;
process.on('disconnect', () => process.exit());

switch (role) {
  case 'backend':
    // `PORT`. As fast as a service can be, so that the proxies are what is measured: an answer per end of headers.
    createServer({ noDelay: true }, (socket) => {
      let rest = '';
      socket.on('error', () => {});
      socket.on('data', (piece) => {
        const text = rest + piece.toString('latin1');
        const parts = text.split('\r\n\r\n');
        rest = parts.pop() ?? '';
        for (const _ of parts) socket.write(answer);
      });
    }).listen({ port: Number(first), host: '0.0.0.0', backlog: 4096 }, ready);
    break;
  case 'echo':
    // `PORT`
    createServer({ noDelay: true }, (socket) => {
      socket.on('error', () => {});
      socket.pipe(socket);
    }).listen({ port: Number(first), host: '0.0.0.0' }, ready);
    break;
  case 'http-proxy':
  case 'keep-alive': {
    // `PORT HOST PORT`
    const target = `http://${second}:${third}`;
    const proxy = httpProxy.createProxyServer(
      role === 'keep-alive' ? { target, agent: new Agent({ keepAlive: true }) } : { target },
    );
    proxy.on('error', () => {});
    createHttpServer((req, res) => proxy.web(req, res)).listen(Number(first), ready);
    break;
  }
  case 'node-tcp-proxy':
    // `PORT HOST PORT`
    createProxy(Number(first), second, Number(third), { hostname: '0.0.0.0' });
    await untilOpen(Number(first));
    ready();
    break;
  case 'program': {
    // `PORT PROGRAM ARGUMENT...`
    const child = spawn(second, args.slice(2), { stdio: ['ignore', 'ignore', 'inherit'] });
    child.on('error', (error) => {
      throw error;
    });
    child.on('exit', (code) => {
      throw new Error(`${second} has ended with status ${code}`);
    });
    process.on('exit', () => child.kill('SIGKILL'));
    await untilOpen(Number(first));
    ready();
    break;
  }
  case 'clients':
    // `HOST PORT`
    clients(first, Number(second));
    ready();
    break;
  case 'ping':
    process.on('message', (question: { host: string; port: number; count: number }) => {
      void pingPong(question).then((us) => process.send?.({ us }));
    });
    ready();
    break;
  default:
    throw new Error(`there is no role "${role}"`);
}

async function untilOpen(port: number): Promise<void> {
  await until(`port ${port} is open`, startMsMax, async () => {
    const socket = connect({ port, host: '127.0.0.1' });
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    socket.destroy();
    return isOpen ? true : undefined;
  });
}

/** One byte there and back over one connection, one after the other. Answers the time of each, in microseconds. */
async function pingPong({ host, port, count }: { host: string; port: number; count: number }): Promise<number[]> {
  const socket = connect({ host, port, noDelay: true });
  const times: number[] = [];
  await new Promise<void>((resolve, reject) => {
    let sentMs = 0;
    const send = () => {
      sentMs = performance.now();
      socket.write('x');
    };
    socket.setTimeout(startMsMax, () => reject(new Error(`${host}:${port} is silent`)));
    socket.once('connect', send).once('error', reject);
    socket.on('data', () => {
      times.push((performance.now() - sentMs) * 1000);
      if (times.length < count) send();
      else resolve();
    });
    socket.once('close', () => reject(new Error(`${host}:${port} has closed the connection`)));
  });
  socket.destroy();
  return times;
}

/** Opens connections, sends one request over each when told, and waits for the answers. */
function clients(host: string, port: number): void {
  const sockets: Socket[] = [];
  let [ok, failed, lastAtMs] = [0, 0, 0];
  const reasons: Record<string, number> = {};
  const fail = (reason: string) => {
    failed += 1;
    reasons[reason] = (reasons[reason] ?? 0) + 1;
  };
  const open = () =>
    new Promise<void>((resolve) => {
      const socket = connect({ port, host, noDelay: true }, resolve);
      socket.on('data', (piece) => {
        if (piece.subarray(0, 12).toString() === 'HTTP/1.1 200') ok += 1;
        else fail(piece.toString('latin1').trim().split('\n').at(-1) ?? '');
        lastAtMs = Date.now();
      });
      socket.on('error', (error) => {
        fail(error.message);
        resolve();
      });
      sockets.push(socket);
    });
  async function reply(question: unknown): Promise<void> {
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
      process.send?.({ ok, failed, lastAtMs, reasons });
    }
  }
  process.on('message', (question) => void reply(question));
}
