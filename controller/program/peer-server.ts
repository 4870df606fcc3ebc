import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { TLSSocket } from 'node:tls';
import express, { type Request, type Response, type Router } from 'express';
import type { Logger } from 'pino';
import { authorizedNode, handshakeMsMax, secureOptions } from '../cluster/tls.ts';
import { FlockError } from '../model/errors.ts';
import type { NodeIdentity } from '../model/identity.ts';
import type { NodeName } from '../model/names.ts';
import { answerProblem, answerProblems, noSuchCall, param } from '../server/problems.ts';
import type { Docker } from './docker.ts';

/**
 * What other nodes are told, and nobody else: `GET /v1/images/ID` answers what `docker save` writes, and parts of the program answer
 * questions of their like.
 */
export type PeerServer = {
  readonly port: number;
  /** After a renewal of the certificate: the next connections use it. */
  renew(identity: NodeIdentity): void;
  /** Ends every connection too. */
  close(): Promise<void>;
};

export type PeerServerParts = {
  readonly identity: NodeIdentity;
  /** To listen on, such as `::`. */
  readonly address: string;
  /** 0: any. */
  readonly port: number;
  readonly docker: Pick<Docker, 'image' | 'saveImage'>;
  readonly isMember: (node: NodeName) => boolean;
  readonly routers?: readonly Router[];
  readonly log: Logger;
  /** For tests. */
  readonly times?: Partial<PeerTimes>;
};

export type PeerTimes = {
  /** Nothing is taken, or comes, for so long: the other side is gone. */
  readonly stallMs: number;
  /** Who waits hears so often that Docker is still at it. */
  readonly aliveMs: number;
  /** Until the first byte of an image. */
  readonly saveMs: number;
};

export const peerTimes: PeerTimes = { stallMs: 60_000, aliveMs: 15_000, saveMs: 30 * 60_000 };

/** Each reads the disk as fast as it can. */
const transfersMax = 2;
const connectionsMax = 64;
const requestMsMax = 30_000;
const bodyBytesMax = 64 * 1024;
const idPattern = /^sha256:[0-9a-f]{64}$/;

export async function startPeerServer(parts: PeerServerParts): Promise<PeerServer> {
  const { identity, log } = parts;
  const server = createServer(
    {
      ...secureOptions(identity),
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: handshakeMsMax,
      requestTimeout: requestMsMax,
      headersTimeout: handshakeMsMax,
    },
    createApp(parts),
  );
  server.maxConnections = connectionsMax;
  server.maxRequestsPerSocket = 1;
  server.on('tlsClientError', (error, socket) =>
    log.debug({ event: 'images.handshake-failed', from: socket.remoteAddress, error: error.message }, 'no TLS'),
  );
  server.listen(parts.port, parts.address);
  await once(server, 'listening');
  server.on('error', (error) =>
    log.error({ event: 'images.server-failed', error: error.message }, 'server for other controllers'),
  );
  return {
    port: (server.address() as AddressInfo).port,
    renew: (renewed) => server.setSecureContext(secureOptions(renewed)),
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function createApp({ docker, isMember, routers = [], log, ...parts }: PeerServerParts): express.Express {
  const times = { ...peerTimes, ...parts.times };
  const app = express();
  app.disable('x-powered-by').disable('etag');
  app.use((request: Request, response: Response, next: () => void) => {
    const peer = authorizedNode(request.socket as TLSSocket);
    if (peer !== null && isMember(peer)) {
      next();
      return;
    }
    const error = new FlockError('node-not-found', `${peer ?? 'who asks'} is no node of the cluster (any more)`);
    answerProblem(response.set('connection', 'close'), error, 403);
  });
  let transfers = 0;
  app.get('/v1/images/:id', async (request, response) => {
    const id = param(request, 'id');
    if (!idPattern.test(id)) throw new FlockError('invalid-request', `${id} is no image id`);
    if (transfers >= transfersMax)
      throw new FlockError('too-many-requests', `this node is sending ${transfers} images already: try again`);
    transfers += 1;
    let isGone = false;
    response.once('close', () => {
      isGone = true;
    });
    try {
      if ((await docker.image(id)) === null) throw new FlockError('docker-failed', `image ${id} is not on this node`);
      response.setTimeout(times.stallMs, () => response.destroy());
      response.type('application/x-tar');
      const stream = await saved(docker, id, response, times);
      if (isGone) {
        stream.destroy();
        return;
      }
      // An answer that breaks off is known for broken: it has no end.
      await pipeline(stream, response).catch((error: unknown) => {
        response.destroy();
        if (!isGone) throw error;
      });
    } finally {
      transfers -= 1;
    }
  });
  if (routers.length > 0) app.use(express.json({ limit: bodyBytesMax }), ...routers);
  app.use(noSuchCall);
  app.use(answerProblems(log, 'images.failed', 'docker-failed'));
  return app;
}

/**
 * Docker's classic image store writes all of the image to its disk before it answers anything, and goes on with that when nobody waits for
 * it any more. So the connection is kept alive meanwhile, and who has left is known to be gone only at the answer: his place is free then.
 */
async function saved(
  docker: Pick<Docker, 'saveImage'>,
  id: string,
  response: Response,
  { aliveMs, saveMs }: PeerTimes,
): Promise<Readable> {
  const late = new AbortController();
  const limit = setTimeout(() => late.abort(), saveMs);
  const alive = setInterval(() => response.writeProcessing(), aliveMs);
  try {
    return await docker.saveImage(id, late.signal);
  } finally {
    clearTimeout(limit);
    clearInterval(alive);
  }
}
