import { z } from 'zod';
import { problemView } from '../model/api.ts';
import { messageOf } from '../model/errors.ts';
import { parseProblemOf } from '../model/shape.ts';
import { askSocket, type SocketAnswer } from '../socket-request.ts';

/** A failure that is told to the user in one line; `code` is that of the program that was asked, or null where it could not be. */
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

/** The program behind a socket, for messages. */
export type Asked = { readonly socketPath: string; readonly name: 'plugin' | 'proxy' | 'controller' };

/** Longer than the programs' own limits, so that their answer is what the user sees. */
const answerMsMax = 130_000;

export const anything = z.unknown();

/** Puts values into a path: path`/v1/volumes/${name}`. Throws for an empty one, such as a shell's variable that is not set: it would be another call. */
export function path(parts: TemplateStringsArray, ...values: readonly string[]): string {
  if (values.includes(''))
    throw new CliError('a name or an id is empty: an argument has nothing in it', 'invalid-name');
  return parts.reduce((text, part, index) => `${text}${encodeURIComponent(values[index - 1] ?? '')}${part}`);
}

export function createClient(asked: Asked): Client {
  const { name } = asked;

  async function send<T>(method: string, url: string, body: unknown, schema: z.ZodType<T>): Promise<T> {
    const { status, text } = await exchange(asked, method, url, body);
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      throw new CliError(`the ${name} answered ${status} with something that is not JSON: ${text.slice(0, 200)}`);
    }
    if (status >= 400) {
      const problem = problemView.safeParse(json);
      throw problem.success
        ? new CliError(problem.data.detail, problem.data.code)
        : new CliError(`the ${name} answered ${status}: ${text.slice(0, 200)}`);
    }
    const parsed = schema.safeParse(json);
    if (parsed.success) return parsed.data;
    throw new CliError(
      `the ${name}'s answer is not understood, are flockctl and the ${name} of one version? ${parseProblemOf(parsed.error)}`,
    );
  }
  return { get: (url, schema) => send('GET', url, undefined, schema), send };
}

async function exchange(asked: Asked, method: string, url: string, body: unknown): Promise<SocketAnswer> {
  const signal = AbortSignal.timeout(answerMsMax);
  try {
    return await askSocket({ socketPath: asked.socketPath, method, path: url, body, signal });
  } catch (error) {
    throw new CliError(explain(error, asked));
  }
}

function explain(error: unknown, { socketPath, name }: Asked): string {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  if (code === 'ENOENT' || code === 'ECONNREFUSED')
    return `the flock ${name} does not answer at ${socketPath}: ${wayOut[name]}`;
  if (code === 'EACCES') return `${socketPath} may be opened by root only: run flockctl as root`;
  if (code === 'ABORT_ERR') return `no answer from the ${name} within ${answerMsMax / 1000} s`;
  return `asking the ${name} at ${socketPath} failed: ${messageOf(error)}`;
}

const wayOut: Readonly<Record<Asked['name'], string>> = {
  plugin: 'is it enabled ("docker plugin ls")? "make up" installs it, "docker plugin enable flock" starts it',
  proxy: 'does its container run ("docker ps")? "make up" starts it, "docker logs flock-proxy" says what is wrong',
  controller:
    'does its container run ("docker ps")? "make up" starts it, "docker logs flock-controller" says what is wrong',
};
