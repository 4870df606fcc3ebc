import { STATUS_CODES } from 'node:http';
import { type Answer, answers } from '../../gate/answer.ts';

/** What HAProxy says itself instead of a service, as the gate would. Pure. */
export function returned(answer: Answer): string {
  return `return status ${answer.status} ${contentOf(answer)}`;
}

/** Of a request that is not understood nobody knows where it ends, so its connection does. */
export function refused(answer: Answer): string {
  return `${returned(answer)} hdr connection close`;
}

/** In place of HAProxy's own page for this status. */
export function errorPage(answer: Answer): string {
  return `http-error status ${answer.status} ${contentOf(answer)}`;
}

/** A whole message, for where HAProxy's status is not ours. */
export function message(answer: Answer): string {
  const { status } = answer;
  const body = bodyOf(answer);
  return [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}`,
    `content-length: ${Buffer.byteLength(body)}`,
    'content-type: text/plain; charset=utf-8',
    'cache-control: no-store',
    '',
    body,
  ].join('\r\n');
}

export const ownAnswers = {
  ...answers,
  method: { status: 405, text: 'this proxy opens no tunnels to elsewhere', retryAfterS: null },
  badRequest: { status: 400, text: 'the request can not be understood', retryAfterS: null },
  badLength: { status: 400, text: 'the Content-Length is no length', retryAfterS: null },
  slow: { status: 408, text: 'the request did not come in time', retryAfterS: null },
  version: { status: 505, text: 'only versions 1.0 and 1.1 are spoken', retryAfterS: null },
  oldCoding: { status: 400, text: 'Transfer-Encoding needs HTTP/1.1', retryAfterS: null },
  internal: { status: 500, text: 'the proxy has failed', retryAfterS: null },
  restarting: { status: 503, text: 'the proxy is just being restarted', retryAfterS: 1 },
} satisfies Record<string, Answer>;

function contentOf(answer: Answer): string {
  const retry = answer.retryAfterS === null ? '' : ` hdr retry-after ${answer.retryAfterS}`;
  return `content-type "text/plain; charset=utf-8" string "${bodyOf(answer).replace('\n', '\\n')}" hdr cache-control no-store${retry}`;
}

function bodyOf({ status, text }: Answer): string {
  return `${status} ${STATUS_CODES[status] ?? 'Error'}: ${text}\n`;
}
