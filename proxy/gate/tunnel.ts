import type { Socket } from 'node:net';
import type { GateLimits } from './limits.ts';
import type { Tunnel } from './services.ts';

/**
 * Joins two connected sockets until both directions have ended: what one side has sent is delivered before its end is, a slow
 * reader slows the writer down, and the end of one direction leaves the other open. A side that breaks breaks the other, so that
 * nothing cut short looks whole. Both sockets must allow half-open. `onEnd` comes once, when both are closed.
 */
export function join(client: Socket, service: Socket, limits: GateLimits, onEnd: () => void): Tunnel {
  let open = 2;
  for (const [one, other] of [
    [client, service],
    [service, client],
  ] as const) {
    one.pipe(other);
    one.once('end', () => {
      // From now on only one direction is alive, and nobody is sure to end it.
      one.setTimeout(limits.halfOpenMsMax, () => one.destroy());
      other.setTimeout(limits.halfOpenMsMax, () => other.destroy());
    });
    one.on('error', () => {
      // It had said all that it wanted: what is on its way to the other side is whole.
      if (!one.readableEnded) other.resetAndDestroy();
      else if (!other.writableEnded) other.end();
    });
    one.once('close', () => {
      open -= 1;
      if (open === 0) onEnd();
      // It can take no more, so the other need not send any more.
      else if (one.readableEnded) finish(other, limits);
      else other.destroy();
    });
  }
  return {
    end() {
      client.end();
      service.end();
    },
    cut() {
      client.destroy();
      service.destroy();
    },
  };
}

/** Delivers what is written already, and reads and drops what comes meanwhile: unread bytes would turn the end into a reset. */
function finish(socket: Socket, limits: GateLimits): void {
  if (socket.destroyed) return;
  socket.unpipe();
  socket.resume();
  if (!socket.writableEnded) socket.end();
  if (socket.writableFinished) socket.destroy();
  else socket.once('finish', () => socket.destroy());
  socket.setTimeout(limits.halfOpenMsMax, () => socket.destroy());
}
