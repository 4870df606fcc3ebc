import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import httpProxy from 'http-proxy';
import { agentOver, freshAgent, keepAgent } from './agents.ts';
import { type Answer, answer, answers } from './answer.ts';
import type { Backend } from './backends.ts';
import { type Body, mayTrail, responseHeaders } from './headers.ts';
import type { GateLimits } from './limits.ts';
import type { Pass } from './services.ts';

/**
 * The only user of `http-proxy`: its request and WebSocket passes, behind guards for what they do wrong (each guard says what).
 * Measured on 1.18.1; test/contract/gate-plain-http-proxy.test.ts shows the unguarded package failing.
 *
 * http-proxy takes the body from `options.buffer` by calling its `pipe` with the request it has just made, before anything is
 * sent. That is where the guards for plain requests are put up.
 */
export type Forwarder = {
  /** `req.headers` are to be those for the service already. Answers in any case, and ends the pass. */
  web(exchange: Exchange): void;
  upgrade(req: IncomingMessage, socket: Socket, head: Buffer, options: UpgradeOptions): void;
};

export type Exchange = {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly pass: Pass;
  /** Of the container. */
  readonly port: number;
  readonly path: string;
  readonly body: Body;
};

export type UpgradeOptions = {
  /** A connection to the service: http-proxy gives up at the first container that takes none. */
  readonly upstream: Socket;
  readonly path: string;
  /** Both sides have agreed. */
  onOpen(): void;
  /** The service has refused, with this answer to be given on; or failed. */
  onRefused(refused: IncomingMessage | Answer): void;
};

const idempotent = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE']);
const unreachableCodes = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EHOSTDOWN', 'ETIMEDOUT']);

type Passes = ((...args: never[]) => unknown)[];

export function createForwarder(limits: GateLimits): Forwarder {
  const proxy = httpProxy.createProxyServer({ selfHandleResponse: true, prependPath: false, toProxy: true });
  // The other passes forge a content-length for DELETE and append to what strangers claim in X-Forwarded-For. The list is public
  // in fact but not in the types.
  const open = proxy as unknown as { webPasses: Passes };
  open.webPasses = open.webPasses.filter((pass) => pass.name === 'stream');
  if (open.webPasses.length !== 1) throw new Error('http-proxy has no pass "stream" any more');
  // Without a listener of its own an error would end the process; all of them come to the callbacks of the calls as well.
  proxy.on('error', () => {});

  const upgrades = new WeakMap<IncomingMessage, UpgradeOptions>();
  proxy.on('proxyReqWs', (upstream, req) => {
    const options = upgrades.get(req);
    if (options !== undefined) guardUpgrade(upstream, options, limits);
  });

  return {
    web(exchange) {
      attempt(exchange, proxy, limits, 1);
    },
    upgrade(req, socket, head, options) {
      upgrades.set(req, options);
      let isOver = false;
      const target = { protocol: 'http:', host: 'localhost', port: 80 };
      proxy.ws(req, socket, head, { target, agent: agentOver(options.upstream) }, () => {
        // It comes for errors after the opening, too, when socket and tunnel end by themselves.
        if (!isOver) options.onRefused(answers.unreachable);
        isOver = true;
      });
    },
  };
}

/** `again`: on a new connection to the container that closed an old one. */
function attempt(
  exchange: Exchange,
  proxy: httpProxy,
  limits: GateLimits,
  count: number,
  again: Backend | null = null,
): void {
  const { req, res, pass, body, port } = exchange;
  const backend = again ?? pass.next(port);
  if (backend === null) {
    answer(res, count === 1 ? answers.noBackend : answers.unreachable, body !== 'none');
    return;
  }
  let request: ClientRequest | null = null;
  let isOver = false;
  const fail = (problem: Answer) => {
    if (isOver) return;
    isOver = true;
    answer(res, problem, body !== 'none');
  };
  // http-proxy reports one error several times, and also those of a client that has left.
  const onError = (error: NodeJS.ErrnoException) => {
    if (isOver || res.closed || res.destroyed) return;
    if (count < limits.attemptsMax && !res.headersSent && isUnreachable(error)) {
      // Nothing of it was sent.
      isOver = true;
      pass.failed();
      attempt(exchange, proxy, limits, count + 1);
    } else if (count < limits.attemptsMax && isStale(error, exchange, request)) {
      isOver = true;
      attempt(exchange, proxy, limits, count + 1, backend);
    } else fail(error.code === silence ? answers.silent : answers.unreachable);
  };
  const source = {
    pipe(upstream: ClientRequest) {
      request = upstream;
      guardRequest(exchange, upstream, limits, (response) => {
        if (isOver) {
          response?.destroy();
          return;
        }
        if (response !== null && relay(exchange, response)) isOver = true;
        else fail(answers.garbage);
      });
    },
  };
  const target = { protocol: 'http:', host: backend.endpoint.host, port: backend.endpoint.port };
  try {
    // A new connection per request is what http-proxy does without an agent.
    const agent = again === null ? keepAgent(backend, limits) : freshAgent(limits);
    // It is asked for nothing but `pipe`.
    proxy.web(req, res, { target, agent, buffer: source as unknown as NodeJS.ReadableStream as never }, onError);
  } catch {
    // What Node refuses to send, such as characters in the path that its parser lets in.
    fail(answers.badTarget);
  }
}

function guardRequest(
  { req, res, path, body }: Exchange,
  upstream: ClientRequest,
  limits: GateLimits,
  /** Null: something that is none. */
  onResponse: (response: IncomingMessage | null) => void,
): void {
  // http-proxy parses the path and makes /a//b/ into /a/b/.
  upstream.path = path;
  // Node drops headers beyond 2,000 without a word.
  upstream.maxHeadersCount = 0;
  // An option of requests that http-proxy does not pass on: 16 KiB otherwise. Read when the request gets its connection.
  Object.assign(upstream, { maxHeaderSize: limits.headerBytesMax });
  upstream.on('response', onResponse);
  // An answer to what nobody asked; without a listener Node leaves the request hanging.
  upstream.on('upgrade', (_response, socket) => {
    socket.destroy();
    onResponse(null);
  });
  upstream.on('timeout', () => upstream.destroy(Object.assign(new Error('silent'), { code: silence })));
  upstream.on('information', ({ statusCode, headers }) => {
    const link = headers['link'];
    if (statusCode !== 103 || link === undefined || res.headersSent || req.httpVersion !== '1.1') return;
    try {
      res.writeEarlyHints({ link: String(link).split(/,\s*(?=<)/) });
    } catch {
      // Hints may be lost; Node refuses those that are malformed.
    }
  });
  // http-proxy goes by an event that Node has not had for years, so a request whose client has left went on for ever.
  res.once('close', () => {
    if (!res.writableFinished) upstream.destroy();
  });
  if (body === 'none') {
    upstream.end();
    return;
  }
  if (req.headers['trailer'] !== undefined && body === 'chunked')
    req.once('end', () => addTrailers(upstream, req.rawTrailers));
  // Not before there is a connection: a body that nobody has taken yet can be sent to another container.
  upstream.once('socket', (socket: Socket) => {
    if (socket.connecting) socket.once('connect', () => req.pipe(upstream));
    else req.pipe(upstream);
  });
}

/** Answers whether the answer could be begun. */
function relay({ req, res }: Exchange, response: IncomingMessage): boolean {
  // Without this a client waits for ever for the rest of an answer whose service has died.
  response.on('error', () => res.destroy());
  const isChunked = response.headers['content-length'] === undefined;
  const headers = responseHeaders(response.rawHeaders, isChunked);
  // The body of a request that was answered early may never come to its end.
  if (!req.complete) headers.push('connection', 'close');
  try {
    res.writeHead(response.statusCode ?? 502, response.statusMessage, headers);
  } catch {
    response.destroy();
    return false;
  }
  const hasTrailers = isChunked && response.headers['trailer'] !== undefined;
  // What pipe does, without the dozen listeners that it puts up and takes down for each answer.
  const resume = () => response.resume();
  response.on('data', (piece) => {
    if (res.write(piece)) return;
    response.pause();
    res.once('drain', resume);
  });
  response.on('end', () => {
    if (hasTrailers) addTrailers(res, response.rawTrailers);
    res.end();
  });
  // Headers without a body yet (server-sent events) must not wait for it.
  process.nextTick(() => {
    if (!response.readableDidRead && !res.writableEnded) res.flushHeaders();
  });
  return true;
}

function guardUpgrade(upstream: ClientRequest, options: UpgradeOptions, limits: GateLimits): void {
  upstream.path = options.path;
  upstream.maxHeadersCount = 0;
  upstream.setTimeout(limits.serviceSilenceMsMax, () => upstream.destroy(new Error('silent')));
  upstream.on('upgrade', () => options.onOpen());
  // http-proxy adds its own listener right after this, which would write "transfer-encoding: chunked" before a body that is not.
  queueMicrotask(() => {
    upstream.removeAllListeners('response');
    upstream.on('response', options.onRefused);
  });
}

/** The service closed an idle connection in the moment in which it was used; what may be done twice is sent once more. */
function isStale(error: NodeJS.ErrnoException, { req, res, body }: Exchange, request: ClientRequest | null): boolean {
  const isBroken = error.code === 'ECONNRESET' || error.code === 'EPIPE';
  if (!isBroken || res.headersSent || request?.reusedSocket !== true) return false;
  return body === 'none' && idempotent.has(req.method ?? '');
}

function isUnreachable(error: NodeJS.ErrnoException): boolean {
  return unreachableCodes.has(error.code ?? '') && error.syscall === 'connect';
}

function addTrailers(message: ClientRequest | ServerResponse, raw: readonly string[]): void {
  const trailers: [string, string][] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const [name = '', value = ''] = [raw[index], raw[index + 1]];
    if (mayTrail(name)) trailers.push([name, value]);
  }
  try {
    message.addTrailers(trailers);
  } catch {
    // What Node refuses to write is left out; the body is whole all the same.
  }
}

const silence = 'ESILENT';
