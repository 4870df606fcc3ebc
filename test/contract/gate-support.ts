import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  type RequestOptions,
  request,
  type ServerResponse,
} from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { issueCertificate, makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import type { Gate } from '../../proxy/gate/gate.ts';
import type { GateLimits } from '../../proxy/gate/limits.ts';
import type { ListenerStatus } from '../../proxy/gate/listeners.ts';
import type { InFlight } from '../../proxy/gate/services.ts';
import { parseRouteText } from '../../proxy/model/labels.ts';
import { parseServiceName } from '../../proxy/model/names.ts';
import type { Balance, DrainTunnels, Pause } from '../../proxy/model/records.ts';
import { buildTable, type Table } from '../../proxy/model/table.ts';

/** What the suite drives: the gate alone, or a whole stack with the gate in it. */
export type ProxyUnderTest = {
  apply(table: Table): Promise<readonly ListenerStatus[]>;
  /** Resolves when nothing new passes any more. */
  pause(...args: Parameters<Gate['pause']>): void | Promise<void>;
  release(...args: Parameters<Gate['release']>): void | Promise<void>;
  inFlight(service: string): InFlight | Promise<InFlight>;
  drain(service: string, timeoutMs: number, tunnels?: DrainTunnels): ReturnType<Gate['drain']>;
  status(): readonly ListenerStatus[];
  dispose(): Promise<void>;
};
export type StartProxy = (limits: Partial<GateLimits>) => Promise<ProxyUnderTest>;

export type Context = {
  /**
   * It reads messages and writes them anew, so that the service gets exactly what it has understood, whatever that was: being lenient
   * does no harm then, and what is new after a release need not wait behind what was held.
   */
  readonly rewrites: boolean;
  /** A new one for each test, with these limits; disposed of after the test. */
  start(limits?: Partial<GateLimits>): Promise<ProxyUnderTest>;
  /** Ends with the test, too. */
  later(end: () => unknown): void;
};

/** Key and certificate that a proxy under test has by the name `test`. */
export function testCertificate(): { readonly key: string; readonly cert: string } {
  if (certificate === null) {
    const authority = makeAuthority('gate-test', Date.now());
    const key = makeKey();
    const node = { clusterId: 'gate-test', name: parseNodeName('test'), address: '127.0.0.1' };
    certificate = { key, cert: issueCertificate(authority, node, key, Date.now()) };
  }
  return certificate;
}

let certificate: { readonly key: string; readonly cert: string } | null = null;
let lastGeneration = 0;

/** A table with these routes (`http://a.example:PORT -> 1`), each to the service of the same index or the only one. */
export function tableOf(
  routes: Readonly<Record<string, string>>,
  upstreams: Readonly<Record<string, readonly number[]>>,
  more: { readonly balance?: Balance; readonly pause?: Pause; readonly stateful?: boolean } = {},
): Table {
  lastGeneration += 1;
  const node = parseNodeName('elsewhere');
  return buildTable(
    {
      generation: lastGeneration,
      services: Object.keys(upstreams).map((name) => ({
        name: parseServiceName(name),
        createdAtMs: 0,
        balance: more.balance ?? 'round-robin',
        stateful: more.stateful ?? false,
        pause: more.pause ?? null,
      })),
      routes: Object.entries(routes).map(([text, service], index) => ({
        id: `route-${index}`,
        service: parseServiceName(service),
        createdAtMs: index,
        ...parseRouteText(text),
      })),
      links: [],
      peers: [],
      upstreams: Object.entries(upstreams).flatMap(([service, ports]) =>
        ports.map((port, index) => ({
          container: `${service}-${index}-${port}`,
          service: parseServiceName(service),
          node,
          startedAtMs: index,
          healthy: true,
          address: '127.0.0.1',
          // Each container listens on a port of its own here, as the inner ports of another node do.
          inner: { address: '127.0.0.1', ports: { '1': port } },
        })),
      ),
    },
    parseNodeName('here'),
  );
}

/** A port that nobody listened on a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

export type Backend = {
  readonly port: number;
  readonly sockets: Set<Socket>;
  close(): Promise<void>;
  connections(): number;
};

export async function httpBackend(
  context: Pick<Context, 'later'>,
  handle: (req: IncomingMessage, res: ServerResponse) => void,
  prepare: (server: HttpServer) => void = () => {},
): Promise<Backend> {
  const server = createHttpServer(handle);
  prepare(server);
  return backend(context, server);
}

export function tcpBackend(context: Pick<Context, 'later'>, handle: (socket: Socket) => void): Promise<Backend> {
  return backend(context, createServer({ allowHalfOpen: true }, handle));
}

async function backend(context: Pick<Context, 'later'>, server: Server): Promise<Backend> {
  const sockets = new Set<Socket>();
  let connections = 0;
  server.on('connection', (socket: Socket) => {
    connections += 1;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 });
  await once(server, 'listening');
  const close = async () => {
    for (const socket of sockets) socket.destroy();
    if (server.listening) await new Promise((done) => server.close(done));
  };
  context.later(close);
  return { port: (server.address() as AddressInfo).port, sockets, close, connections: () => connections };
}

export type Reply = {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  readonly raw: readonly string[];
};

/** One request on a connection of its own. Rejects when the answer is cut short. */
export function ask(port: number, options: RequestOptions & { readonly send?: string | Buffer } = {}): Promise<Reply> {
  const { send, ...rest } = options;
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, agent: false, ...rest });
    asked.on('error', reject);
    asked.on('response', (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(pieces).toString(),
          raw: response.rawHeaders,
        }),
      );
    });
    asked.end(send);
  });
}

/** Writes bytes and answers all that comes back until the other side closes, or is silent for `silenceMs`. */
export function talk(
  port: number,
  bytes: string | Buffer,
  options: { readonly silenceMs?: number; readonly end?: boolean } = {},
): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    const pieces: Buffer[] = [];
    const finish = () => {
      socket.destroy();
      resolve(Buffer.concat(pieces).toString('latin1'));
    };
    socket.on('data', (piece: Buffer) => pieces.push(piece));
    socket.on('end', finish);
    socket.on('error', finish);
    socket.setTimeout(options.silenceMs ?? 700, finish);
    socket.write(bytes, 'latin1');
    if (options.end) socket.end();
  });
}

export async function open(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  await once(socket, 'connect');
  socket.on('error', () => {});
  return socket;
}

/** The event, within 5 s. */
export function once(emitter: NodeJS.EventEmitter, event: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no "${event}" within 5 s`)), 5_000);
    const finish = (value: unknown) => {
      clearTimeout(timer);
      emitter.removeListener('error', fail);
      resolve(value);
    };
    const fail = (error: unknown) => {
      clearTimeout(timer);
      emitter.removeListener(event, finish);
      reject(error);
    };
    emitter.once(event, finish);
    if (event !== 'error') emitter.once('error', fail);
  });
}

/** Polls until it is true, for at most 5 s. */
export async function soon(what: string, isTrue: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 5_000;
  while (!(await isTrue())) {
    if (performance.now() > end) throw new Error(`waited 5 s in vain until ${what}`);
    await sleep(10);
  }
}

export function readAll(stream: NodeJS.ReadableStream): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    stream.on('data', (piece: Buffer) => pieces.push(piece));
    stream.on('end', () => resolve(Buffer.concat(pieces)));
    stream.on('error', reject);
  });
}
