import { Agent, request } from 'node:https';
import { connect, type PeerCertificate, type TLSSocket } from 'node:tls';
import { checkNode, handshakeMsMax, nodeOf, secureOptions, trustOptions } from '../../controller/cluster/tls.ts';
import { FlockError } from '../../controller/model/errors.ts';
import {
  formatPeerAddress,
  type NodeIdentity,
  nodeDnsName,
  type PeerAddress,
} from '../../controller/model/identity.ts';
import type { NodeName } from '../../controller/model/names.ts';
import { connectMsMax, createLookout, noConnection } from './alive.ts';
import { exchange, unreachableNode } from './exchange.ts';
import { dataProtocol } from './tls.ts';

export type CallOptions = { readonly timeoutMs?: number; readonly signal?: AbortSignal };

/** Talks to other nodes. Whoever answers has proved to be exactly the node that was meant. */
export type PeerClient = {
  /**
   * One request; `body` and answer are JSON. A host that does not answer at all is noticed within three seconds. Throws what the other side threw, `node-not-found` if nobody knows the node's address,
   * `node-unreachable` for everything that is wrong with the connection, and the signal's reason.
   */
  call(
    node: NodeName,
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body?: unknown,
    options?: CallOptions,
  ): Promise<unknown>;
  /**
   * A raw stream, authenticated on both sides, half open: each side ends when it has said everything, and "end" from the other side may
   * also mean that it is gone, so the last byte must be known by other means. It errs within nine seconds when the host does not answer
   * any more. The caller listens for errors and closes it.
   */
  connectData(node: NodeName, signal: AbortSignal): Promise<TLSSocket>;
  /** After a renewal: the next connections use it. */
  renew(identity: NodeIdentity): void;
  close(): void;
};

type Resolve = (node: NodeName) => PeerAddress | null;

const callMsDefault = 10_000;
const socketsPerNodeMax = 8;
const idlePerNodeMax = 2;
const socketsMax = 512;
/** Of a stream, which may go on for hours over a line that loses packets, and begins anew on some storages. */
const streamMissesMax = 2;
/** An idle connection is kept for less than the server keeps it. */
const idleMsMax = 30_000;

export function createPeerClient(options: { readonly identity: NodeIdentity; readonly resolve: Resolve }): PeerClient {
  let identity = options.identity;
  let agent = createAgent();
  const lookout = createLookout();

  function createAgent(): Agent {
    return new Agent({
      keepAlive: true,
      keepAliveMsecs: idleMsMax,
      maxSockets: socketsPerNodeMax,
      maxFreeSockets: idlePerNodeMax,
      maxTotalSockets: socketsMax,
      timeout: idleMsMax,
      // Every connection proves both sides anew.
      maxCachedSessions: 0,
    });
  }

  function tlsOptions(node: NodeName) {
    return {
      ...secureOptions(identity),
      // The agent keeps connections apart by this name.
      servername: nodeDnsName({ name: node, clusterId: identity.clusterId }),
      checkServerIdentity: (host: string, certificate: PeerCertificate) => checkNode(node, host, certificate),
    };
  }

  function addressOf(node: NodeName): PeerAddress {
    const at = options.resolve(node);
    if (at === null)
      throw new FlockError('node-not-found', `nothing is known of node ${node}: "flockctl node ls" shows the nodes`);
    return at;
  }

  /** Or the kernel would wait for what is under way much longer than for a new connection. */
  function watch(socket: TLSSocket, at: PeerAddress): void {
    const closed = new AbortController();
    socket.once('close', () => closed.abort());
    void lookout.lost(at, streamMissesMax, closed.signal).then((problem) => {
      if (problem !== null) socket.destroy(problem);
    });
  }

  return {
    async call(node, method, path, body, { timeoutMs = callMsDefault, signal } = {}) {
      const at = addressOf(node);
      signal?.throwIfAborted();
      const text = body === undefined ? null : JSON.stringify(body);
      const timeout = AbortSignal.timeout(timeoutMs);
      const over = new AbortController();
      const ended = AbortSignal.any([over.signal, timeout, ...(signal === undefined ? [] : [signal])]);
      void lookout.lost(at, 1, ended).then((problem) => over.abort(problem));
      try {
        const outgoing = request({
          ...tlsOptions(node),
          agent,
          host: at.address,
          port: at.port,
          method,
          path,
          headers: text === null ? {} : jsonHeaders(text),
          signal: ended,
        });
        return await exchange(outgoing, text, `node ${node}`);
      } catch (error) {
        if (error instanceof FlockError) throw error;
        signal?.throwIfAborted();
        throw unreachableNode(node, at, over.signal.reason ?? (timeout.aborted ? noAnswer(timeoutMs) : error));
      } finally {
        over.abort();
      }
    },

    connectData(node, signal) {
      return new Promise<TLSSocket>((resolve, reject) => {
        const at = addressOf(node);
        signal.throwIfAborted();
        const target = { ...tlsOptions(node), host: at.address, port: at.port, ALPNProtocols: [dataProtocol] };
        // One side may have said everything while the other still answers.
        const socket = connect(Object.assign(target, { allowHalfOpen: true }));
        socket.setNoDelay(true);
        let timer = setTimeout(() => fail(noConnection()), connectMsMax);
        socket.once('connect', () => {
          clearTimeout(timer);
          timer = setTimeout(() => fail(noAnswer(handshakeMsMax)), handshakeMsMax);
        });
        const aborted = () => fail(signal.reason);
        const fail = (error: unknown) => {
          settle();
          socket.destroy();
          reject(signal.aborted ? signal.reason : unreachableNode(node, at, error));
        };
        const settle = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', aborted);
          socket.off('error', fail);
          // What comes between here and the caller's own listener must not end the process.
          socket.on('error', () => undefined);
        };
        signal.addEventListener('abort', aborted, { once: true });
        socket.on('error', fail);
        socket.once('secureConnect', () => {
          if (socket.alpnProtocol !== dataProtocol) {
            fail(new Error(`it does not speak ${dataProtocol}`));
            return;
          }
          settle();
          watch(socket, at);
          resolve(socket);
        });
      });
    },

    renew(renewed) {
      identity = renewed;
      const old = agent;
      agent = createAgent();
      // What is under way on the old one's connections ends; then they are idle and time out.
      for (const sockets of Object.values(old.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
    },
    close: () => agent.destroy(),
  };
}

const joinMsMax = 30_000;

/** For a host that has no certificate yet: asks a member of the cluster with this authority, whichever node it is. */
export async function askMember(at: PeerAddress, caCertificate: string, body: unknown): Promise<unknown> {
  const text = JSON.stringify(body);
  const timeout = AbortSignal.timeout(joinMsMax);
  try {
    const outgoing = request({
      ...trustOptions(caCertificate),
      agent: false,
      host: at.address,
      port: at.port,
      method: 'POST',
      path: '/v1/join',
      headers: jsonHeaders(text),
      checkServerIdentity: (_host: string, certificate: PeerCertificate) =>
        nodeOf(certificate) === null ? new Error('its certificate is no node’s') : undefined,
      signal: timeout,
    });
    return await exchange(outgoing, text, formatPeerAddress(at));
  } catch (error) {
    if (error instanceof FlockError) throw error;
    throw unreachableNode(null, at, timeout.aborted ? noAnswer(joinMsMax) : error);
  }
}

function jsonHeaders(text: string): Record<string, string | number> {
  return { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
}

function noAnswer(ms: number): Error {
  return new Error(`no answer within ${ms / 1000} s`);
}
