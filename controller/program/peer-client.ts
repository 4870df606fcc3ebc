import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { PeerCertificate } from 'node:tls';
import type { z } from 'zod';
import { checkNode, secureOptions } from '../cluster/tls.ts';
import { problemView } from '../model/api.ts';
import { FlockError, hasCode, messageOf } from '../model/errors.ts';
import { formatPeerAddress, type NodeIdentity, nodeDnsName, type PeerAddress } from '../model/identity.ts';
import type { NodeName } from '../model/names.ts';
import { peerTimes } from './peer-server.ts';

type Question = { readonly method: 'GET' | 'POST'; readonly path: string; readonly body?: unknown };

/**
 * What `docker save` writes on another node, which has proved to be the one that was meant. The stream fails when it breaks off, when
 * nothing comes for a minute (as long as Docker prepares it, the other side says so), and with the signal. Throws `too-many-requests`, and `node-unreachable` for all else.
 */
export async function fetchImage(
  identity: NodeIdentity,
  node: NodeName,
  at: PeerAddress,
  id: string,
  signal: AbortSignal,
  stallMs?: number,
): Promise<Readable> {
  return await dial(identity, node, at, { method: 'GET', path: `/v1/images/${id}` }, signal, stallMs);
}

/** What the controller of another node answers. Throws as fetchImage does. */
export async function askController<T>(
  identity: NodeIdentity,
  node: NodeName,
  at: PeerAddress,
  question: { readonly path: string; readonly body: unknown; readonly schema: z.ZodType<T> },
  signal: AbortSignal,
): Promise<T> {
  const response = await dial(identity, node, at, { ...question, method: 'POST' }, signal);
  return question.schema.parse(JSON.parse(await text(response)));
}

async function dial(
  identity: NodeIdentity,
  node: NodeName,
  at: PeerAddress,
  { method, path, body }: Question,
  signal: AbortSignal,
  stallMs = peerTimes.stallMs,
): Promise<IncomingMessage> {
  try {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = body === undefined ? null : JSON.stringify(body);
      const outgoing = request({
        ...secureOptions(identity),
        servername: nodeDnsName({ name: node, clusterId: identity.clusterId }),
        checkServerIdentity: (host: string, certificate: PeerCertificate) => checkNode(node, host, certificate),
        agent: false,
        host: at.address,
        port: at.port,
        ...{ method, path },
        headers: sent === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(sent) },
        timeout: stallMs,
        signal,
      });
      outgoing.once('timeout', () => outgoing.destroy(new Error(`nothing came for ${stallMs / 1000} s`)));
      outgoing.once('response', resolve);
      outgoing.on('error', reject);
      outgoing.end(sent ?? undefined);
    });
    if (response.statusCode === 200) return response;
    throw problemOf(await text(response), response.statusCode ?? 500);
  } catch (error) {
    signal.throwIfAborted();
    throw new FlockError(
      // It is only busy, and says so.
      hasCode(error, 'too-many-requests') ? 'too-many-requests' : 'node-unreachable',
      `node ${node} at ${formatPeerAddress(at)}: ${messageOf(error)}`,
      { node },
      { cause: error },
    );
  }
}

function problemOf(answer: string, status: number): Error {
  try {
    const { code, detail } = problemView.parse(JSON.parse(answer));
    return code === 'too-many-requests' ? new FlockError(code, detail) : new Error(detail);
  } catch {
    return new Error(`status ${status}`);
  }
}
