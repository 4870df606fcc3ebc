import { request } from 'node:http';

export type SocketRequest = {
  readonly socketPath: string;
  readonly method: string;
  /** With its query. */
  readonly path: string;
  /** Sent as JSON; undefined: none. */
  readonly body: unknown;
  readonly signal: AbortSignal;
};

export type SocketAnswer = { readonly status: number; readonly text: string };

/** One question to a program that listens on a unix socket. Rejects with what node says where there is no answer. */
export function askSocket({ socketPath, method, path, body, signal }: SocketRequest): Promise<SocketAnswer> {
  return new Promise((resolve, reject) => {
    const sent = body === undefined ? null : Buffer.from(JSON.stringify(body));
    // With DELETE Node says nothing of the length by itself.
    const headers = sent === null ? {} : { 'content-type': 'application/json', 'content-length': sent.length };
    const outgoing = request({ socketPath, method, path, headers, signal }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > answerCharactersMax) response.destroy(new Error('the answer is too long'));
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 500, text }));
      response.on('error', reject);
    });
    outgoing.on('error', reject);
    outgoing.end(sent ?? undefined);
  });
}

/** Lists of a hundred thousand volumes fit. */
const answerCharactersMax = 256 * 1024 * 1024;
