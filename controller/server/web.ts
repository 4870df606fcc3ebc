import type { Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Express } from 'express';
import type { Logger } from 'pino';
import { messageOf } from '../model/errors.ts';

export type Health = {
  /** Why the program does not do its work; null: it does. */
  readonly trouble: string | null;
  /** What a look at the details shows. */
  readonly details: Readonly<Record<string, unknown>>;
};

const retryMs = 2_000;
const requestMsMax = 10_000;

/** `/healthz`: 200 while the program does its work, 503 with the reason else. `/metrics`: for Prometheus. */
export function createWeb(parts: { readonly health: () => Health; readonly metrics: () => Promise<string> }): Express {
  const app = express().disable('x-powered-by').disable('etag');
  app.get('/healthz', (_request, response) => {
    const { trouble, details } = parts.health();
    response.status(trouble === null ? 200 : 503).json({ healthy: trouble === null, trouble, ...details });
  });
  app.get('/metrics', async (_request, response) => {
    response.type('text/plain; version=0.0.4').send(await parts.metrics());
  });
  return app;
}

/** Serves until the signal fires. A port that is taken is logged and tried again. */
export async function serveWeb(
  app: Express,
  address: { readonly host: string; readonly port: number },
  signal: AbortSignal,
  log: Logger,
): Promise<void> {
  let problem: string | null = null;
  while (!signal.aborted) {
    try {
      const server = await listening(app, address);
      log.info({ event: 'web.listening', ...address }, 'health and metrics');
      problem = null;
      await ended(server, signal);
      return;
    } catch (error) {
      const next = messageOf(error);
      if (next !== problem)
        log.error({ event: 'web.not-listening', ...address, reason: next }, 'no health and metrics');
      problem = next;
      await sleep(retryMs, undefined, { signal }).catch(() => {});
    }
  }
}

function listening(app: Express, { host, port }: { readonly host: string; readonly port: number }): Promise<Server> {
  return new Promise((resolve, reject) => {
    // express gives a failure to listen to the same callback.
    const server = app.listen(port, host, (error) => (error === undefined ? resolve(server) : reject(error)));
    server.requestTimeout = requestMsMax;
    server.headersTimeout = requestMsMax;
  });
}

function ended(server: Server, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const close = () => {
      server.close(() => resolve());
      server.closeAllConnections();
    };
    if (signal.aborted) close();
    else signal.addEventListener('abort', close, { once: true });
  });
}
