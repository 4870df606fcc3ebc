import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import express, { type Express, type Request, type Response, type Router } from 'express';
import type { Logger } from 'pino';
import { authorizedNode, handshakeMsMax, secureOptions } from '../../controller/cluster/tls.ts';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import type { NodeIdentity } from '../../controller/model/identity.ts';
import type { NodeName } from '../../controller/model/names.ts';
import { answerProblem, answerProblems, noSuchCall } from '../../controller/server/problems.ts';
import { dataProtocol, httpProtocol } from './tls.ts';

/**
 * Where the other nodes reach this one: one port, TLS 1.3, HTTP or (by ALPN) raw streams. Everything but `POST /v1/join` takes a
 * certificate of the cluster's authority that was issued to a node that is a member now.
 */
export type PeerServer = {
  readonly port: number;
  /** After a renewal: the next connections use it. */
  renew(identity: NodeIdentity): void;
  /** Ends every connection too. */
  close(): Promise<void>;
};

export type PeerServerOptions = {
  readonly identity: NodeIdentity;
  /** To listen on, such as `::`. */
  readonly address: string;
  /** 0: any. */
  readonly port: number;
  /** Finds the caller's node name in `response.locals.peer`. */
  readonly handler: Router;
  /** Answers what `POST /v1/join` asks; whoever asks is unknown. */
  readonly join: (body: unknown) => Promise<unknown>;
  readonly isMember: (name: NodeName) => boolean | Promise<boolean>;
  /** Gets the socket of a member for a bulk stream, with nothing read from it yet, and closes it. */
  readonly onData: (socket: TLSSocket, peer: NodeName) => void;
  readonly log: Logger;
};

const bodyBytesMax = 1024 * 1024;
const joinBodyBytesMax = 16 * 1024;
const joinsAtOnceMax = 8;
const connectionsMax = 1024;
const headersMsMax = 10_000;
const requestMsMax = 60_000;
/** Clients let go of an idle connection a second earlier, told by the Keep-Alive header, so that none is closed in their face. */
const idleMsMax = 60_000;

export async function startPeerServer(options: PeerServerOptions): Promise<PeerServer> {
  const { identity, isMember, onData, log } = options;
  const server = createServer(
    {
      ...secureOptions(identity),
      requestCert: true,
      // A host that joins has no certificate. Who has none, or a foreign one, is refused below.
      rejectUnauthorized: false,
      ALPNProtocols: [dataProtocol, httpProtocol],
      handshakeTimeout: handshakeMsMax,
      headersTimeout: headersMsMax,
      requestTimeout: requestMsMax,
      keepAliveTimeout: idleMsMax,
      connectionsCheckingInterval: headersMsMax / 4,
      noDelay: true,
    },
    createApp(options),
  );
  server.maxConnections = connectionsMax;
  // Also those whose handshake is not over.
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });

  async function takeData(socket: TLSSocket): Promise<void> {
    // One side may have said everything while the other still answers.
    socket.allowHalfOpen = true;
    // Until its taker has listeners of its own.
    socket.on('error', (error) => log.debug({ event: 'peer.stream-failed', error: error.message }, 'stream failed'));
    try {
      const peer = await authenticate(socket, isMember);
      if (!socket.destroyed) onData(socket, peer);
    } catch (error) {
      log.warn({ event: 'peer.stream-refused', from: socket.remoteAddress, error: messageOf(error) }, 'stream refused');
      socket.destroy();
    }
  }

  // node:https serves HTTP on every connection by its own listener; those that agreed on the other protocol must not get there.
  const serveHttp = server.listeners('secureConnection');
  server.removeAllListeners('secureConnection');
  server.on('secureConnection', (socket: TLSSocket) => {
    if (socket.alpnProtocol === dataProtocol) void takeData(socket);
    else for (const serve of serveHttp) Reflect.apply(serve, server, [socket]);
  });
  server.on('tlsClientError', (error, socket) =>
    log.debug({ event: 'peer.handshake-failed', from: socket.remoteAddress, error: error.message }, 'no TLS'),
  );
  server.listen(options.port, options.address);
  await once(server, 'listening');
  server.on('error', (error) => log.error({ event: 'peer.server-failed', error: error.message }, 'peer server'));
  return {
    port: (server.address() as AddressInfo).port,
    renew: (renewed) => server.setSecureContext(secureOptions(renewed)),
    async close() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function createApp({ handler, join, isMember, log }: PeerServerOptions): Express {
  const app = express();
  app.disable('x-powered-by').disable('etag');
  let joins = 0;
  app.post('/v1/join', express.json({ limit: joinBodyBytesMax }), async (request, response) => {
    if (joins >= joinsAtOnceMax)
      throw new FlockError('too-many-requests', 'too many hosts join through this node at once: try again');
    joins += 1;
    try {
      response.set('connection', 'close').json(await join(request.body));
    } finally {
      joins -= 1;
    }
  });
  app.use(async (request: Request, response: Response, next: () => void) => {
    try {
      response.locals['peer'] = await authenticate(request.socket as TLSSocket, isMember);
    } catch (error) {
      // Whether it is a member may be what can't be known now.
      if (!hasCode(error, 'invalid-request', 'node-not-found')) throw error;
      log.warn({ event: 'peer.refused', from: request.socket.remoteAddress, error: error.message }, 'caller refused');
      answerProblem(response.set('connection', 'close'), error, 403);
      return;
    }
    next();
  });
  app.use(express.json({ limit: bodyBytesMax }));
  app.use(handler);
  app.use(noSuchCall);
  app.use(answerProblems(log, 'peer.failed'));
  return app;
}

/** For each request anew: a node may be removed while its connection lives. */
async function authenticate(socket: TLSSocket, isMember: PeerServerOptions['isMember']): Promise<NodeName> {
  const peer = authorizedNode(socket);
  if (peer === null)
    throw new FlockError(
      'invalid-request',
      `only nodes of the cluster may ask this, with a certificate of its authority (${socket.authorizationError ?? 'no certificate'})`,
    );
  if (!(await isMember(peer)))
    throw new FlockError('node-not-found', `${peer} is no node of the cluster (any more): "flockctl node ls"`);
  return peer;
}
