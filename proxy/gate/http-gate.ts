import { createServer, type IncomingMessage, type ServerOptions, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { createServer as createNetServer, type Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { requestTarget } from '../model/authority.ts';
import { matchHost, matchListener } from '../model/match.ts';
import type { Listener, Target } from '../model/table.ts';
import { answer, answerSocket, answers, answerTo } from './answer.ts';
import { serverNameOf } from './client-hello.ts';
import type { Door } from './doors.ts';
import { createForwarder } from './forward.ts';
import { bodyOf, requestHeaders, requestProblem } from './headers.ts';
import type { GateLimits } from './limits.ts';
import type { GateListenerServer } from './listeners.ts';
import { clientLeft, type Observe } from './observe.ts';
import { endsOf, readHeader } from './proxy-protocol.ts';
import type { Pass, Services } from './services.ts';
import type { TcpGate } from './tcp-gate.ts';
import { createTurns, headBytesOf } from './turns.ts';
import { createUpgrades } from './upgrades.ts';

export type HttpGate = {
  /** A server for a door of an http or tls listener, not listening yet. `current`: the listener as the newest table has it. */
  serve(door: Door, current: () => Listener | null): GateListenerServer;
};

export type HttpGateOptions = {
  readonly services: Services;
  readonly limits: GateLimits;
  /** Takes connections that are passed through by their server name. */
  readonly tcp: TcpGate;
  readonly observe: Observe;
  /** The certificate with its key; null: there is none of this name, and the client's handshake fails. */
  readonly certificate: (name: string) => SecureContext | null;
  /** Addresses of the cluster's own proxies: what they say about the client is passed on. */
  readonly isTrusted: (address: string) => boolean;
};

export function createHttpGate(options: HttpGateOptions): HttpGate {
  const { services, limits, isTrusted, observe } = options;
  const forwarder = createForwarder(limits);
  const turns = createTurns(limits);
  const upgrades = createUpgrades({ services, limits, forwarder });

  /** What the request is for and whose it is; the answer that it gets otherwise. */
  function route(req: IncomingMessage, { protocol, isBehind, current }: Way) {
    const { headers } = req;
    const listener = current();
    const problem = requestProblem(req.rawHeaders, headers, req.httpVersion);
    if (problem !== null) return { ...problem, retryAfterS: null };
    const wanted = requestTarget(req.url ?? '', headers.host);
    if (wanted === null) return answers.badTarget;
    const target = listener === null ? null : matchListener(listener, wanted.host, wanted.path);
    if (target === null || target.mode === 'tls') return answers.noRoute;
    const address = req.socket.remoteAddress ?? '';
    const client = { address, protocol, authority: wanted.authority, isTrusted: isBehind || isTrusted(address) };
    return { target, client, path: wanted.path };
  }

  function onRequest(req: IncomingMessage, res: ServerResponse, way: Way) {
    const body = bodyOf(req.headers);
    const routed = route(req, way);
    watch(req, res, 'status' in routed ? null : routed.target);
    // Of a request that is not understood nobody knows where it ends.
    if ('status' in routed) return answer(res, routed, body !== 'none' || routed.status !== 404);
    const { target, client, path } = routed;
    let pass: Pass | null = null;
    const held = services.enter({
      service: target.service,
      bytes: bytesOf(req, limits),
      go(given) {
        pass = given;
        if (res.closed || res.destroyed) return given.done();
        req.headers = requestHeaders(req.headers, client);
        forwarder.web({ req, res, pass: given, port: target.port, path, body });
      },
      refuse: (refusal) => answer(res, answerTo(refusal), body !== 'none'),
    });
    // Comes once in any case: after the last byte of the answer, or when the client has left.
    res.once('close', () => {
      if (pass === null) held.leave();
      else pass.done();
    });
  }

  function watch(req: IncomingMessage, res: ServerResponse, target: Target | null): void {
    const startMs = performance.now();
    const { method = '', url: path = '', headers } = req;
    const { host = '', 'x-forwarded-for': forwardedFor } = headers;
    const client = plainAddress(req.socket.remoteAddress ?? String(forwardedFor ?? ''));
    res.once('close', () => {
      const status = res.headersSent ? res.statusCode : clientLeft;
      const request = { method, host, path, status };
      const { route: id = null, service = null } = target ?? {};
      observe({ route: id, service, client, durationMs: performance.now() - startMs, weight: 1, request });
    });
  }

  const serverOptions: ServerOptions = {
    maxHeaderSize: limits.headerBytesMax,
    headersTimeout: limits.headersMsMax,
    // A body may take as long as it keeps coming: clientSilenceMsMax ends those that don't.
    requestTimeout: 0,
    connectionsCheckingInterval: Math.min(1_000, limits.headersMsMax),
    keepAliveTimeout: limits.clientIdleMsMax,
    highWaterMark: limits.heldBodyBytesMax,
    insecureHTTPParser: false,
    requireHostHeader: true,
    noDelay: true,
    keepAlive: true,
    // Whatever else asks for an upgrade (HTTP/2, mostly) is answered as the plain request that it also is.
    shouldUpgradeCallback: (req) => req.method === 'GET' && req.headers.upgrade?.toLowerCase() === 'websocket',
  };

  function serveHttp(way: Way, context: SniCallback | null) {
    const server =
      context === null
        ? createServer(serverOptions)
        : createTlsServer({ ...serverOptions, SNICallback: context, handshakeTimeout: limits.headersMsMax });
    // Node drops headers beyond 2,000 without a word, framing included; their size is bounded already.
    server.maxHeadersCount = 0;
    server.maxConnections = limits.connectionsPerListenerMax;
    server.timeout = limits.clientSilenceMsMax;
    server.on('request', (req, res) => {
      turns.take(req, res, () => onRequest(req, res, way));
    });
    server.on('upgrade', (req: IncomingMessage, socket: Socket, head: Buffer) => {
      // A client that resets its connection before the upgrade would end the process otherwise.
      socket.on('error', () => {});
      const routed = route(req, way);
      if ('status' in routed) answerSocket(socket, routed);
      else upgrades.take(req, socket, head, routed);
    });
    server.on('connect', (_req, socket: Socket) => {
      socket.on('error', () => {});
      answerSocket(socket, { status: 405, text: 'this proxy opens no tunnels to elsewhere', retryAfterS: null });
    });
    return server;
  }

  /** Behind HAProxy a connection begins with a header that says whose it is, and is to be passed through in any case. */
  function serveTls(current: () => Listener | null, isBehind: boolean): GateListenerServer {
    const certificateOf = (name: string): SecureContext | null => {
      const listener = current();
      const target = listener === null ? null : tlsTarget(listener, name);
      return target === null || typeof target.mode === 'string' ? null : options.certificate(target.mode.certificate);
    };
    const secure = serveHttp({ protocol: 'https', isBehind: false, current }, (name, done) => {
      const context = certificateOf(name);
      if (context === null) done(new Error(`no certificate for "${name}"`));
      else done(null, context);
    });
    // It never listens itself; without this Node looks after the time-outs of none of its connections.
    secure.emit('listening');
    const clients = new Set<Socket>();
    async function admit(client: Socket): Promise<void> {
      const header = isBehind ? await readHeader(client, limits.headersMsMax) : null;
      const name = isBehind && header === null ? null : await serverNameOf(client, limits.headersMsMax);
      const listener = current();
      const target = listener === null || name === null ? null : tlsTarget(listener, name);
      if (target?.mode === 'tls') options.tcp.take(client, target, isBehind ? (header?.ends ?? null) : endsOf(client));
      else if (target === null || isBehind) client.destroy();
      else secure.emit('connection', client);
    }
    const server = createNetServer({ allowHalfOpen: true, noDelay: true, keepAlive: true }, (client) => {
      clients.add(client);
      client.once('close', () => clients.delete(client));
      client.on('error', () => {});
      admit(client).catch(() => client.destroy());
    });
    server.maxConnections = limits.connectionsPerListenerMax;
    return {
      server,
      // Closes idle connections, and ends Node's timer.
      retire: () => void secure.close(() => {}),
      cut() {
        for (const client of clients) client.destroy();
      },
    };
  }

  return {
    serve({ kind, at }, current) {
      const isBehind = 'path' in at;
      if (kind === 'tls') return serveTls(current, isBehind);
      const server = serveHttp({ protocol: kind === 'https' ? 'https' : 'http', isBehind, current }, null);
      return {
        server,
        retire: () => server.closeIdleConnections(),
        cut: () => server.closeAllConnections(),
      };
    },
  };
}

/** `isBehind`: HAProxy has taken the connection, and says in headers whose it is. `current`: the listener as it is now. */
type Way = {
  readonly protocol: 'http' | 'https';
  readonly isBehind: boolean;
  readonly current: () => Listener | null;
};

type SniCallback = (name: string, done: (error: Error | null, context?: SecureContext) => void) => void;

/** All routes of a host are of one kind, so any of them tells it; those with a path only are found by what every one starts with. */
function tlsTarget(listener: Listener, name: string): Target | null {
  if (listener.kind !== 'tls') return null;
  const host = name.toLowerCase();
  const found = matchHost(listener.hosts, host, '/');
  if (found !== null) return found;
  const [first] = listener.hosts.exact.get(host)?.targets.values() ?? [];
  return first ?? null;
}

/** What a held request keeps in memory: its objects, its headers, and what is read of its body until the reading stops. */
function bytesOf(req: IncomingMessage, limits: GateLimits): number {
  const bytes = headBytesOf(req);
  if (req.headers['transfer-encoding'] !== undefined) return bytes + limits.heldBodyBytesMax;
  return bytes + Math.min(Number(req.headers['content-length'] ?? 0), limits.heldBodyBytesMax);
}

/** IPv4 as people know it, where the socket is one for both families. */
function plainAddress(address: string): string {
  return address.startsWith('::ffff:') ? address.slice(7) : address;
}
