import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Refusal } from './queue.ts';

/** What the gate says itself instead of a service. `text` is one line for people. */
export type Answer = { readonly status: number; readonly text: string; readonly retryAfterS: number | null };

export const answers = {
  noRoute: { status: 404, text: 'no route leads here', retryAfterS: null },
  noBackend: { status: 503, text: 'no healthy container runs this service', retryAfterS: 1 },
  unreachable: { status: 502, text: 'the service broke the connection or is not reachable', retryAfterS: null },
  garbage: { status: 502, text: 'the service answered something that is no HTTP', retryAfterS: null },
  silent: { status: 504, text: 'the service does not answer', retryAfterS: null },
  badTarget: { status: 400, text: 'the request names no valid host and path', retryAfterS: null },
} satisfies Record<string, Answer>;

/** A hold's limit was passed: the client may come again. The next one that does finds the queue shorter or the pause over. */
export function answerTo(refusal: Refusal): Answer {
  switch (refusal) {
    case 'too-many':
    case 'too-much':
      return { status: 503, text: 'the service is being moved and too many requests wait for it', retryAfterS: 2 };
    case 'too-long':
      return { status: 503, text: 'the service is being moved and that takes too long', retryAfterS: 5 };
    case 'no-service':
      return { status: 503, text: 'the service is not there any more', retryAfterS: 5 };
    case 'closing':
      return { status: 503, text: 'the proxy is shutting down', retryAfterS: 1 };
    default:
      return refusal satisfies never;
  }
}

/** Once the answer has begun only breaking it off tells the client that it is not whole. */
export function answer(res: ServerResponse, { status, text, retryAfterS }: Answer, hasBody: boolean): void {
  if (res.headersSent) {
    res.destroy();
    return;
  }
  const body = `${status} ${STATUS_CODES[status] ?? 'Error'}: ${text}\n`;
  const headers = ['content-type', 'text/plain; charset=utf-8', 'content-length', String(Buffer.byteLength(body))];
  headers.push('cache-control', 'no-store');
  if (retryAfterS !== null) headers.push('retry-after', String(retryAfterS));
  // The rest of a body that nobody wants is not waited for.
  if (hasBody) headers.push('connection', 'close');
  res.writeHead(status, headers);
  res.end(body);
}

/** The same on a bare socket, for requests that wanted to leave HTTP. */
export function answerSocket(socket: Socket, { status, text, retryAfterS }: Answer): void {
  const body = `${status} ${STATUS_CODES[status] ?? 'Error'}: ${text}\n`;
  const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}`, 'content-type: text/plain; charset=utf-8'];
  if (retryAfterS !== null) lines.push(`retry-after: ${retryAfterS}`);
  lines.push(`content-length: ${Buffer.byteLength(body)}`, 'connection: close', '', body);
  socket.end(lines.join('\r\n'));
}
