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
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
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
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** Lists of a hundred thousand volumes fit. */
const answerCharactersMax = 256 * 1024 * 1024;
