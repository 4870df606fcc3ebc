import type { ClientRequest, IncomingMessage } from 'node:http';
import { problemView } from '../../controller/model/api.ts';
import { errorCodes, FlockError, messageOf } from '../../controller/model/errors.ts';
import { formatPeerAddress, type PeerAddress } from '../../controller/model/identity.ts';

const answerBytesMax = 8 * 1024 * 1024;

/** Sends the body on a request that was just made and reads its answer. FlockErrors of the other side are thrown as they were there. */
export async function exchange(outgoing: ClientRequest, body: string | null, who: string): Promise<unknown> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.once('response', resolve);
    outgoing.on('error', reject);
    outgoing.end(body ?? undefined);
  });
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    // Leaving the loop destroys the response.
    if (bytes > answerBytesMax) throw notUnderstood(who, `more than ${answerBytesMax} bytes`);
    chunks.push(chunk);
  }
  const json = parse(Buffer.concat(chunks).toString('utf8'), who);
  const status = response.statusCode ?? 500;
  if (status < 400) return json;
  const problem = problemView.safeParse(json);
  const code = errorCodes.find((known) => known === problem.data?.code);
  if (!problem.success || code === undefined) throw notUnderstood(who, `status ${status}`);
  throw new FlockError(code, problem.data.detail, problem.data.facts);
}

/** What a fault of the connection means to the caller. */
export function unreachableNode(node: string | null, at: PeerAddress | null, error: unknown): FlockError {
  const where = at === null ? '' : ` at ${formatPeerAddress(at)}`;
  return new FlockError(
    'node-unreachable',
    `${node === null ? 'the node' : `node ${node}`}${where} is not reached: ${messageOf(error)}`,
    { node, address: at?.address ?? null, port: at?.port ?? null },
    { cause: error },
  );
}

function parse(text: string, who: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw notUnderstood(who, JSON.stringify(text.slice(0, 100)));
  }
}

function notUnderstood(who: string, what: string): FlockError {
  return new FlockError(
    'node-unreachable',
    `${who} gave an answer that is not understood (${what}): do both nodes run one version of flock?`,
  );
}
