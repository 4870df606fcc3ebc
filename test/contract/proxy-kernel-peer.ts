import { connect, createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * A host in a network namespace of its own: serves, connects and tells how it went, as it is asked to, one JSON line each way. Every
 * connection begins with a line of the server: its name and the client's address as it sees it; then it is an echo.
 */
const servers = new Map<number, Server>();
const sockets: { readonly socket: Socket; ended: string | null; lines: string[] }[] = [];

const operations: Readonly<Record<string, (asked: never) => unknown>> = {
  serve: ({ port, name }: { port: number; name: string }) =>
    new Promise((resolve, reject) => {
      const server = createServer((socket) => {
        track(socket);
        socket.write(`${name} ${(socket.remoteAddress ?? '').replace('::ffff:', '')}\n`);
        socket.pipe(socket);
      });
      servers.set(port, server);
      server.on('error', reject).listen(port, '0.0.0.0', () => resolve(null));
    }),
  stop: ({ port }: { port: number }) => void servers.get(port)?.close(),
  /** Answers its index and the server's first line, or why there is none. */
  dial: async ({ host, port, waitMs }: { host: string; port: number; waitMs: number }) => {
    const entry = track(connect({ host, port }));
    const deadline = performance.now() + waitMs;
    while (entry.lines.length === 0 && entry.ended === null && performance.now() < deadline) await sleep(5);
    return { index: sockets.length - 1, line: entry.lines[0] ?? entry.ended ?? 'silence' };
  },
  /** Answers what comes back. */
  say: async ({ index, text, waitMs }: { index: number; text: string; waitMs: number }) => {
    const entry = sockets[index];
    if (entry === undefined) throw new Error(`no socket ${index}`);
    const before = entry.lines.length;
    entry.socket.write(`${text}\n`);
    const deadline = performance.now() + waitMs;
    while (entry.lines.length === before && entry.ended === null && performance.now() < deadline) await sleep(5);
    return entry.lines[before] ?? entry.ended ?? 'silence';
  },
  ready: () => null,
  /** Ends all connections that it has opened or taken. */
  'hang-up': () => {
    for (const { socket } of sockets) socket.resetAndDestroy();
  },
  /** How each connection has ended; null: it has not. */
  endings: () => sockets.map(({ ended }) => ended),
  /** Clients that connect, ask, read and close, one connection after the other. */
  storm: async ({ host, port, clients, ms }: { host: string; port: number; clients: number; ms: number }) => {
    const failures: string[] = [];
    const by: Record<string, number> = {};
    const deadline = performance.now() + ms;
    const work = async () => {
      while (performance.now() < deadline) {
        const answer = await once(host, port);
        if (answer.startsWith('!')) failures.push(answer);
        else by[answer] = (by[answer] ?? 0) + 1;
      }
    };
    await Promise.all(Array.from({ length: clients }, work));
    return { failures: failures.slice(0, 20), failed: failures.length, by };
  },
};

/** The name of who has answered, or why nobody has, after a `!`. */
function once(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    let text = '';
    socket
      .setTimeout(5_000, () => socket.destroy(new Error('silence')))
      .on('connect', () => socket.write('hello\n'))
      .on('data', (bytes) => {
        text += bytes;
        if (text.endsWith('hello\n')) socket.end();
      })
      .on('error', (error) => resolve(`!${error.message}`))
      .on('close', () => resolve(text.endsWith('hello\n') ? (text.split(' ')[0] ?? '') : `!cut after "${text}"`));
  });
}

function track(socket: Socket) {
  const entry: (typeof sockets)[number] = { socket, ended: null, lines: [] };
  sockets.push(entry);
  let rest = '';
  socket
    .on('data', (bytes) => {
      const parts = (rest + bytes).split('\n');
      rest = parts.pop() ?? '';
      entry.lines.push(...parts);
    })
    .on('error', (error: NodeJS.ErrnoException) => {
      entry.ended ??= error.code ?? error.message;
    })
    .on('close', () => {
      entry.ended ??= 'end';
    });
  return entry;
}

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, operation, ...asked } = JSON.parse(line);
  try {
    const work = operations[operation];
    if (work === undefined) throw new Error(`no operation ${operation}`);
    const answer = await work(asked as never);
    console.log(JSON.stringify({ id, answer: answer ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ id, failure: String(error) }));
  }
});
process.stdin.on('end', () => process.exit());
