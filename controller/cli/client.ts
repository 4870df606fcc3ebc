import { request } from 'node:http';
import { z } from 'zod';
import { problemView } from '../model/api.ts';
import { messageOf } from '../model/errors.ts';

/** A failure that is told to the user in one line; `code` is the plugin's, or null where it could not be asked. */
export class CliError extends Error {
  readonly code: string | null;

  constructor(message: string, code: string | null = null) {
    super(message);
    this.name = 'CliError';
    this.code = code;
  }
}

export type Client = {
  get<T>(path: string, schema: z.ZodType<T>): Promise<T>;
  send<T>(method: 'POST' | 'PATCH' | 'DELETE', path: string, body: unknown, schema: z.ZodType<T>): Promise<T>;
};

/** Longer than the plugin's own limit, so that its answer is what the user sees. */
const answerMsMax = 130_000;

export const anything = z.unknown();

/** Puts values into a path: path`/v1/volumes/${name}`. */
export function path(parts: TemplateStringsArray, ...values: readonly string[]): string {
  return parts.reduce((text, part, index) => `${text}${encodeURIComponent(values[index - 1] ?? '')}${part}`);
}

export function createClient(socketPath: string): Client {
  async function send<T>(method: string, url: string, body: unknown, schema: z.ZodType<T>): Promise<T> {
    const { status, text } = await exchange(socketPath, method, url, body);
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      throw new CliError(`the plugin answered ${status} with something that is not JSON: ${text.slice(0, 200)}`);
    }
    if (status >= 400) {
      const problem = problemView.safeParse(json);
      throw problem.success
        ? new CliError(problem.data.detail, problem.data.code)
        : new CliError(`the plugin answered ${status}: ${text.slice(0, 200)}`);
    }
    return schema.parse(json);
  }
  return { get: (url, schema) => send('GET', url, undefined, schema), send };
}

function exchange(
  socketPath: string,
  method: string,
  url: string,
  body: unknown,
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        socketPath,
        method,
        path: url,
        headers: body === undefined ? {} : { 'content-type': 'application/json' },
        signal: AbortSignal.timeout(answerMsMax),
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 500, text }));
        response.on('error', reject);
      },
    );
    outgoing.on('error', (error) => reject(new CliError(explain(error, socketPath))));
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function explain(error: Error, socketPath: string): string {
  const code = 'code' in error ? error.code : null;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return `the flock plugin does not answer at ${socketPath}: is it enabled ("docker plugin ls")? "make up" installs it, "docker plugin enable flock" starts it`;
  }
  if (code === 'EACCES') return `${socketPath} may be opened by root only: run flockctl as root`;
  if (code === 'ABORT_ERR') return `no answer from the plugin within ${answerMsMax / 1000} s`;
  return `asking the plugin at ${socketPath} failed: ${messageOf(error)}`;
}
