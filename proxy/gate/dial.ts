import type { Socket } from 'node:net';
import { connectWithin } from './agents.ts';
import type { GateLimits } from './limits.ts';
import type { Pass } from './services.ts';

/**
 * A connection to a container of the pass's service; one after the other is tried, as long as `isWanted`. Null: there is none, or it
 * is not wanted any more. The socket has no listeners: add one for errors before the next turn of the event loop.
 */
export async function dial(
  pass: Pass,
  port: number,
  limits: GateLimits,
  isWanted: () => boolean,
): Promise<Socket | null> {
  for (;;) {
    const backend = isWanted() ? pass.next(port) : null;
    if (backend === null) return null;
    const socket = connectWithin(limits.connectMsMax, {
      host: backend.endpoint.host,
      port: backend.endpoint.port,
      allowHalfOpen: true,
      keepAlive: true,
      keepAliveInitialDelay: keepAliveMs,
    });
    const isConnected = await new Promise<boolean>((resolve) => {
      const onError = () => resolve(false);
      socket.once('error', onError).once('connect', () => {
        socket.removeListener('error', onError);
        resolve(true);
      });
    });
    if (isConnected) return socket;
    pass.failed();
  }
}

/** Long before firewalls forget a silent connection, which they commonly do after some minutes. */
export const keepAliveMs = 30_000;
