import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { PeerCertificate } from 'node:tls';
import { checkNode, secureOptions } from '../cluster/tls.ts';
import { problemView } from '../model/api.ts';
import { FlockError, messageOf } from '../model/errors.ts';
import { formatPeerAddress, type NodeIdentity, nodeDnsName, type PeerAddress } from '../model/identity.ts';
import type { NodeName } from '../model/names.ts';
import { stallMs } from './image-server.ts';

/**
 * What `docker save` writes on another node, which has proved to be the one that was meant. The stream fails when it breaks off, when
 * nothing comes for a minute, and with the signal. Throws `node-unreachable`, and what the other side throws.
 */
export async function fetchImage(
  identity: NodeIdentity,
  node: NodeName,
  at: PeerAddress,
  id: string,
  signal: AbortSignal,
): Promise<Readable> {
  try {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = request({
        ...secureOptions(identity),
        servername: nodeDnsName({ name: node, clusterId: identity.clusterId }),
        checkServerIdentity: (host: string, certificate: PeerCertificate) => checkNode(node, host, certificate),
        agent: false,
        host: at.address,
        port: at.port,
        path: `/v1/images/${id}`,
        timeout: stallMs,
        signal,
      });
      outgoing.once('timeout', () => outgoing.destroy(new Error(`nothing came for ${stallMs / 1000} s`)));
      outgoing.once('response', resolve);
      outgoing.on('error', reject);
      outgoing.end();
    });
    if (response.statusCode === 200) return response;
    throw problemOf(await text(response), response.statusCode ?? 500);
  } catch (error) {
    signal.throwIfAborted();
    throw new FlockError(
      'node-unreachable',
      `node ${node} at ${formatPeerAddress(at)}: ${messageOf(error)}`,
      { node },
      { cause: error },
    );
  }
}

function problemOf(answer: string, status: number): Error {
  try {
    return new Error(problemView.parse(JSON.parse(answer)).detail);
  } catch {
    return new Error(`status ${status}`);
  }
}
