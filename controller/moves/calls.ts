import { z } from 'zod';
import { copyEstimateView, copyRoundView, handoverView, problemView } from '../model/api.ts';
import { type ErrorCode, errorCodes, FlockError, messageOf } from '../model/errors.ts';
import { drainView } from '../model/proxy-api.ts';
import { parseProblemOf } from '../model/shape.ts';
import { askSocket } from '../socket-request.ts';
import type { PluginCalls, ProxyCalls } from './ports.ts';

/** The plugin and the proxy of this node, over their sockets. */

const anything = z.unknown();
/** Each call of the plugin has a shorter end of its own, but for a handover, whose deadline is added. */
const pluginMsMax = 30_000;
/** What the proxies may take beyond the times that they are given. */
const proxyMarginMs = 8_000;

export function createPluginCalls(socketPath: string): PluginCalls {
  const ask = asking({ socketPath, name: 'plugin' });
  return {
    copy: (volume, to, signal) => ask('POST', '/v1/copies', { volume, to }, copyRoundView, { signal, ms: pluginMsMax }),
    async estimate(volume, to, signal) {
      const query = new URLSearchParams({ volume, to });
      return await ask('GET', `/v1/copies/estimate?${query}`, undefined, copyEstimateView, { signal, ms: pluginMsMax });
    },
    async handOver(body, signal) {
      const ms = body.deadlineMs + pluginMsMax;
      await ask('POST', '/v1/handovers', body, handoverView, { signal, ms });
    },
  };
}

export function createProxyCalls(socketPath: string): ProxyCalls {
  const ask = asking({ socketPath, name: 'proxy' });
  const at = (service: string, what: string) => `/v1/services/${encodeURIComponent(service)}/${what}`;
  return {
    async pause(service, times, signal) {
      await ask('POST', at(service, 'pause'), times, anything, { signal, ms: times.waitMs + proxyMarginMs });
    },
    async drain(service, forMs, signal) {
      const body = { forMs, tunnels: 'leave' };
      return await ask('POST', at(service, 'drain'), body, drainView, { signal, ms: forMs + proxyMarginMs });
    },
    async release(service, waitMs, signal) {
      await ask('POST', at(service, 'release'), { waitMs }, anything, { signal, ms: waitMs + proxyMarginMs });
    },
  };
}

type Asked = { readonly socketPath: string; readonly name: 'plugin' | 'proxy' };
type Limit = { readonly signal: AbortSignal; readonly ms: number };

function asking({ socketPath, name }: Asked) {
  return async <T>(method: string, path: string, body: unknown, schema: z.ZodType<T>, limit: Limit): Promise<T> => {
    const signal = AbortSignal.any([limit.signal, AbortSignal.timeout(limit.ms)]);
    const { status, text } = await askSocket({ socketPath, method, path, body, signal }).catch((error: unknown) => {
      limit.signal.throwIfAborted();
      throw noAnswer(name, error);
    });
    const json = jsonOf(text);
    if (status >= 400) throw problemOf(name, status, json);
    const parsed = schema.safeParse(json);
    if (parsed.success) return parsed.data;
    throw new FlockError(
      'not-supported',
      `the ${name} answers in another way than expected, is it of the same version? ${parseProblemOf(parsed.error)}`,
    );
  };
}

function noAnswer(name: string, error: unknown): FlockError {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  if (code === 'ENOENT' || code === 'ECONNREFUSED')
    return new FlockError('not-ready', `the ${name} of this node does not answer`, {}, { cause: error });
  return new FlockError(
    'deadline-exceeded',
    `the ${name} of this node has not answered: ${messageOf(error)}`,
    {},
    { cause: error },
  );
}

function problemOf(name: string, status: number, json: unknown): FlockError {
  const problem = problemView.safeParse(json);
  if (!problem.success) return new FlockError('not-supported', `the ${name} of this node answered ${status}`);
  const { code, detail, facts } = problem.data;
  return new FlockError(isCode(code) ? code : 'not-supported', detail, facts);
}

function isCode(code: string): code is ErrorCode {
  return (errorCodes as readonly string[]).includes(code);
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
