import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { GateLimits } from './limits.ts';

/**
 * Requests of one connection one after the other: a client may send several at once, and the second may rely on what the first has done.
 * Node goes on to read, and makes requests of all that comes, as long as no answer is waiting to be sent, so they are counted here. What
 * is beyond the limits ends the connection.
 */
export type Turns = {
  /** Calls `start` at once, or when all that came before on its connection is answered, or never, if the connection ends before. */
  take(req: IncomingMessage, res: ServerResponse, start: () => void): void;
};

export function createTurns(limits: GateLimits): Turns {
  const lastOf = new WeakMap<Socket, ServerResponse>();
  const aheadOf = new WeakMap<Socket, Set<IncomingMessage>>();
  let count = 0;

  /** What is read of bodies counts with the next request: this one's has not come yet. */
  function isTooMuch(ahead: ReadonlySet<IncomingMessage>): boolean {
    let bytes = 0;
    for (const one of ahead) bytes += headBytesOf(one) + one.readableLength;
    return bytes > limits.aheadBytesMax || count > limits.aheadCountMax;
  }

  function aheadOn(socket: Socket): Set<IncomingMessage> {
    const known = aheadOf.get(socket);
    if (known !== undefined) return known;
    const ahead = new Set<IncomingMessage>();
    aheadOf.set(socket, ahead);
    // Node tells only the first of the answers that wait.
    socket.once('close', () => {
      count -= ahead.size;
      ahead.clear();
    });
    return ahead;
  }

  return {
    take(req, res, start) {
      const { socket } = req;
      const before = lastOf.get(socket);
      lastOf.set(socket, res);
      if (before === undefined || before.closed) {
        start();
        return;
      }
      const ahead = aheadOn(socket).add(req);
      count += 1;
      before.once('close', () => {
        if (ahead.delete(req)) count -= 1;
        if (!socket.destroyed) start();
      });
      if (isTooMuch(ahead)) socket.destroy();
    },
  };
}

/** What a request keeps in memory without its body, in bytes: its objects, as measured, and its headers. */
export function headBytesOf({ rawHeaders }: IncomingMessage): number {
  return rawHeaders.reduce((sum, text) => sum + text.length, requestBytes);
}

const requestBytes = 2048;
