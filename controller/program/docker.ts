import { addAbortSignal, type Readable } from 'node:stream';
import Engine from 'dockerode';
import { z } from 'zod';
import { createDockerSource, type DockerSource } from '../docker/source.ts';
import { FlockError, messageOf } from '../model/errors.ts';

/**
 * Docker Engine of this host, as far as controllers use it. Each call has an end of its own. Failures are FlockErrors:
 * `docker-failed` with Docker's words (facts: `status`, Docker's HTTP status, null where it did not answer).
 */
export type Docker = DockerSource & {
  /** Makes a container (the body of `POST /containers/create`, its first network included). Answers its id. Not started. */
  create(name: string, body: Readonly<Record<string, unknown>>): Promise<string>;
  /** Connects a container with a further network; `endpoint`: an EndpointSettings. Connected already is fine. */
  connect(network: string, id: string, endpoint: unknown): Promise<void>;
  /** Running already is fine. Mounts its volumes, so it may take as long as they do. */
  start(id: string): Promise<void>;
  /** SIGTERM, or what the container asks for, and SIGKILL after so many seconds. Stopped or gone already is fine. */
  stop(id: string, seconds: number): Promise<void>;
  /** Stopped or gone already is fine. */
  kill(id: string, signal: string): Promise<void>;
  /** Also while it runs; anonymous volumes stay. Gone already is fine. */
  remove(id: string): Promise<void>;
  rename(id: string, name: string): Promise<void>;
  /** The last lines that a container has printed, for people; less where Docker does not keep them. */
  tail(id: string, lines: number): Promise<string>;
  /**
   * Runs a command in a container that runs, as its user, to its end. `exitCode` null: it has not come to its end within `ms`, and goes
   * on in there.
   */
  execute(id: string, command: readonly string[], ms: number, signal: AbortSignal): Promise<Executed>;
  /** Docker starts it again by itself never more, or always ... */
  setRestartPolicy(id: string, policy: 'no' | 'always' | 'unless-stopped' | 'on-failure'): Promise<void>;
  /** The answer as it came; null: there is none. */
  network(nameOrId: string): Promise<unknown>;
  createNetwork(body: Readonly<Record<string, unknown>>): Promise<void>;
  /** By id (`sha256:...`) or name. The answer as it came; null: it is not here. */
  image(nameOrId: string): Promise<unknown>;
  /** `name`: as in `docker tag`, with its tag. */
  tagImage(id: string, name: string): Promise<void>;
  /** What `docker save` writes. Docker may need minutes before it answers at all. */
  saveImage(id: string, signal: AbortSignal): Promise<Readable>;
  /** Takes what `docker save` wrote. Resolves when Docker has all of it. */
  loadImage(from: Readable, signal: AbortSignal): Promise<void>;
};

export type Executed = { readonly exitCode: number | null; readonly output: string };

const askMsMax = 10_000;
const changeMsMax = 60_000;
/** The plugin may need all of its time for each of several volumes. */
const startMsMax = 180_000;
/** After the signals: Docker unmounts, and takes the network down. */
const stoppedMsMax = 30_000;
const answerBytesMax = 1024 * 1024;

type Question = {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean>>;
  readonly body?: Readonly<Record<string, unknown>>;
  readonly signal: AbortSignal;
  /** What is sent instead of a body. */
  readonly file?: Readable;
  /** The answer is a stream. */
  readonly isStream?: true;
};

/** The controllers' only user of dockerode, beside the source of what Docker says. */
export function createDocker(socketPath: string): Docker {
  const { modem } = new Engine({ socketPath });
  const within = (ms: number) => AbortSignal.timeout(ms);

  /** dockerode's own methods have no end for some calls, and put bodies into addresses for others. */
  function dial({ method, path, query = {}, body = {}, signal, file, isStream }: Question): Promise<unknown> {
    const request = {
      method,
      path: `${path}?`,
      // Not empty, or its query would be taken for the body.
      options: { _query: query, _body: body },
      abortSignal: signal,
      statusCodes: { 200: true, 201: true, 204: true },
      ...(file === undefined ? {} : { file }),
      ...(isStream === undefined ? {} : { isStream }),
    };
    return new Promise((resolve, reject) => {
      modem.dial(request, (error: unknown, answer: unknown) => {
        if (error === null || error === undefined) resolve(answer);
        else reject(error);
      });
    });
  }

  async function change(what: string, question: Question, isFine?: (error: unknown) => boolean): Promise<unknown> {
    try {
      return await dial(question);
    } catch (error) {
      if (isFine?.(error) === true) return null;
      throw dockerFailed(what, error);
    }
  }

  async function find(what: string, path: string): Promise<unknown> {
    try {
      return await dial({ method: 'GET', path, signal: within(askMsMax) });
    } catch (error) {
      if (statusOf(error) === 404) return null;
      throw dockerFailed(`looking at ${what}`, error);
    }
  }

  const post = (path: string, ms: number, more: Partial<Question> = {}): Question => ({
    method: 'POST',
    path,
    signal: within(ms),
    ...more,
  });
  const at = (kind: 'containers' | 'networks' | 'images', id: string) => `/${kind}/${encodeURIComponent(id)}`;

  return {
    ...createDockerSource(socketPath),
    async create(name, body) {
      const question = post('/containers/create', changeMsMax, { query: { name }, body });
      return madeSchema.parse(await change(`making container ${name}`, question)).Id;
    },
    async connect(network, id, endpoint) {
      const body = { Container: id, EndpointConfig: endpoint };
      const question = post(`${at('networks', network)}/connect`, changeMsMax, { body });
      await change(`connecting container ${short(id)} with network ${network}`, question, isConnected);
    },
    async start(id) {
      const question = post(`${at('containers', id)}/start`, startMsMax);
      await change(`starting container ${short(id)}`, question, hasStatus(304));
    },
    async stop(id, seconds) {
      const ms = seconds * 1000 + stoppedMsMax;
      const question = post(`${at('containers', id)}/stop`, ms, { query: { t: seconds } });
      await change(`stopping container ${short(id)}`, question, hasStatus(304, 404));
    },
    async kill(id, signal) {
      const question = post(`${at('containers', id)}/kill`, changeMsMax, { query: { signal } });
      await change(`killing container ${short(id)}`, question, hasStatus(404, 409));
    },
    async remove(id) {
      const question = { method: 'DELETE', path: at('containers', id), query: { force: true } } as const;
      await change(`removing container ${short(id)}`, { ...question, signal: within(changeMsMax) }, hasStatus(404));
    },
    async rename(id, name) {
      const question = post(`${at('containers', id)}/rename`, changeMsMax, { query: { name } });
      await change(`renaming container ${short(id)}`, question, isNamedSo);
    },
    async setRestartPolicy(id, policy) {
      const body = { RestartPolicy: { Name: policy } };
      const question = post(`${at('containers', id)}/update`, changeMsMax, { body });
      await change(`changing container ${short(id)}`, question);
    },
    async tail(id, lines) {
      const path = `${at('containers', id)}/logs`;
      const query = { stdout: 1, stderr: 1, tail: lines };
      const question = { method: 'GET', path, query, signal: within(askMsMax), isStream: true } as const;
      const what = `reading what container ${short(id)} has printed`;
      return textOfLog(await readText((await change(what, question)) as Readable));
    },
    async execute(id, command, ms, signal) {
      const what = `running ${command[0]} in container ${short(id)}`;
      const body = { AttachStdout: true, AttachStderr: true, Cmd: command };
      const exec = madeSchema.parse(await change(what, post(`${at('containers', id)}/exec`, askMsMax, { body }))).Id;
      const limit = AbortSignal.any([signal, within(ms)]);
      let output: Buffer = Buffer.alloc(0);
      try {
        const started = post(`/exec/${exec}/start`, 0, { body: { Detach: false }, signal: limit, isStream: true });
        output = await readText(addAbortSignal(limit, (await change(what, started)) as Readable));
      } catch (error) {
        signal.throwIfAborted();
        if (!limit.aborted) throw error instanceof FlockError ? error : dockerFailed(what, error);
      }
      const { Running: isRunning, ExitCode: exitCode } = executedSchema.parse(await find(what, `/exec/${exec}/json`));
      return { exitCode: isRunning ? null : exitCode, output: textOfLog(output) };
    },
    network: (name) => find(`network ${name}`, at('networks', name)),
    async createNetwork(body) {
      await change(`making network ${body['Name']}`, post('/networks/create', changeMsMax, { body }));
    },
    image: (name) => find(`image ${name}`, `/images/${name}/json`),
    async tagImage(id, name) {
      const question = post(`/images/${id}/tag`, changeMsMax, { query: splitName(name) });
      await change(`giving image ${short(id)} the name ${name}`, question);
    },
    async saveImage(id, signal) {
      const path = `/images/${id}/get`;
      const stream = await change(`reading image ${short(id)}`, { method: 'GET', path, signal, isStream: true });
      return addAbortSignal(signal, stream as Readable);
    },
    async loadImage(from, signal) {
      const what = 'taking an image';
      const question = post('/images/load', 0, { query: { quiet: 1 }, signal, file: from, isStream: true });
      const answer = (await change(what, question)) as Readable;
      await readAnswer(addAbortSignal(signal, answer)).catch((error: unknown) => {
        throw dockerFailed(what, error);
      });
    },
  };
}

const madeSchema = z.object({ Id: z.string() });
const executedSchema = z.object({ Running: z.boolean(), ExitCode: z.number().nullable() });

/** Docker answers 200 before it has read anything, and says in its answer what went wrong. */
async function readAnswer(answer: Readable): Promise<void> {
  const problem = /"error"\s*:\s*"((?:[^"\\]|\\.)*)"/.exec((await readText(answer)).toString())?.[1];
  if (problem !== undefined) throw new Error(problem);
}

/** To the end, of which what is too much is dropped. */
async function readText(answer: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    if (bytes < answerBytesMax) chunks.push(chunk);
    bytes += chunk.length;
  }
  return Buffer.concat(chunks);
}

/** Without a terminal, each piece has a header of eight bytes: 1 or 2 for the stream, three zeros, and its length. */
export function textOfLog(bytes: Buffer): string {
  const pieces: Buffer[] = [];
  let at = 0;
  while (at + headerBytes <= bytes.length && (bytes[at] ?? 0) <= 2 && bytes.readUIntBE(at + 1, 3) === 0) {
    const end = at + headerBytes + bytes.readUInt32BE(at + 4);
    pieces.push(bytes.subarray(at + headerBytes, end));
    at = end;
  }
  return Buffer.concat(at === 0 ? [bytes] : pieces).toString();
}

const headerBytes = 8;

export function dockerFailed(what: string, error: unknown): FlockError {
  const status = statusOf(error);
  const isLate = error instanceof Error && (error.name === 'TimeoutError' || error.name === 'AbortError');
  const words = isLate ? 'no answer in time' : wordsOf(error);
  return new FlockError('docker-failed', `${what}: Docker says: ${words}`, { status }, { cause: error });
}

function statusOf(error: unknown): number | null {
  return error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number'
    ? error.statusCode
    : null;
}

/** Docker's own, without what dockerode puts around them. */
function wordsOf(error: unknown): string {
  const json = error instanceof Error && 'json' in error ? error.json : null;
  const said = typeof json === 'object' && json !== null && 'message' in json ? json.message : null;
  return typeof said === 'string' ? said.trim() : messageOf(error).trim();
}

function hasStatus(...statuses: readonly number[]): (error: unknown) => boolean {
  return (error) => statuses.includes(statusOf(error) ?? 0);
}

function isConnected(error: unknown): boolean {
  return statusOf(error) === 403 && /already (exists|connected)|already attached/.test(wordsOf(error));
}

/** Two look after a container at the same time now and then. */
function isNamedSo(error: unknown): boolean {
  return statusOf(error) === 400 && /same name as its current name/.test(wordsOf(error));
}

/** `registry:5000/name:tag`: only a colon after the last slash begins a tag. */
export function splitName(name: string): { readonly repo: string; readonly tag: string } {
  const colon = name.indexOf(':', name.lastIndexOf('/') + 1);
  return colon < 0 ? { repo: name, tag: 'latest' } : { repo: name.slice(0, colon), tag: name.slice(colon + 1) };
}

/** Of a container or an image, as people know it. */
function short(id: string): string {
  const [kind, hex] = id.split(':');
  return (hex ?? kind ?? id).slice(0, 12);
}
