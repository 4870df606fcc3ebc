import { randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { FlockError, messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import { keepAliveMs } from './protocol.ts';

/**
 * The port for streams that go by a way of their own. It listens only while somebody is expected, who has to come from the address that asked for it
 * on an encrypted connection and bring the ticket that was given there; a ticket is good once and for a short time.
 */
export type Door = {
  /** Null if the port can't be listened on. `socket` rejects when nobody came in time or the signal fired. Nothing is read from it beyond the ticket. */
  expect(address: string, signal: AbortSignal): Promise<Expected | null>;
  close(): void;
};

export type Expected = { readonly port: number; readonly ticket: string; readonly socket: Promise<Socket> };

const ticketBytes = 32;
const ticketMs = 10_000;
/** Shorter, so that who finds it closed can say so. */
const enterMs = 5_000;
const strangersMax = 16;

type Guest = {
  readonly ticket: Buffer;
  readonly address: string;
  readonly come: PromiseWithResolvers<Socket>;
};

export type DoorOptions = {
  /** To listen on, such as `::`. */
  readonly address: string;
  /** 0: any. */
  readonly port: number;
  readonly ticketMs?: number;
};

export function createDoor(options: DoorOptions): Door {
  const validMs = options.ticketMs ?? ticketMs;
  const guests = new Set<Guest>();
  const strangers = new Set<Socket>();
  let server: Server | null = null;
  let opening: Promise<number> | null = null;

  async function open(): Promise<number> {
    const made = createServer({ allowHalfOpen: true, noDelay: true }, welcome);
    made.maxConnections = strangersMax * 4;
    made.listen(options.port, options.address);
    await once(made, 'listening');
    made.on('error', () => undefined);
    server = made;
    const at = made.address();
    if (at === null || typeof at === 'string') throw new Error('it listens on no port');
    return at.port;
  }

  function closeUnused(): void {
    if (guests.size > 0) return;
    server?.close();
    server = null;
    opening = null;
  }

  function welcome(socket: Socket): void {
    socket.on('error', () => undefined);
    if (strangers.size >= strangersMax) return void socket.destroy();
    strangers.add(socket);
    let shown = Buffer.alloc(0);
    const done = () => {
      clearTimeout(timer);
      strangers.delete(socket);
      socket.off('readable', look).off('close', done).off('end', refuse);
    };
    const refuse = () => {
      done();
      socket.destroy();
    };
    const look = () => {
      // No more than the ticket: the rest is for the command.
      for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read())
        shown = Buffer.concat([shown, chunk]);
      if (shown.length > ticketBytes) return refuse();
      if (shown.length < ticketBytes) return;
      const guest = [...guests].find(
        ({ ticket, address }) => timingSafeEqual(ticket, shown) && address === plainAddress(socket.remoteAddress),
      );
      if (guest === undefined) return refuse();
      done();
      guests.delete(guest);
      socket.setKeepAlive(true, keepAliveMs);
      guest.come.resolve(socket);
    };
    const timer = setTimeout(refuse, validMs);
    socket.on('readable', look).once('close', done).once('end', refuse);
  }

  return {
    async expect(address, signal) {
      const guest: Guest = {
        ticket: randomBytes(ticketBytes),
        address: plainAddress(address),
        come: Promise.withResolvers<Socket>(),
      };
      guests.add(guest);
      let port: number;
      try {
        opening ??= open();
        port = await opening;
      } catch {
        guests.delete(guest);
        closeUnused();
        return null;
      }
      const late = () =>
        guest.come.reject(new FlockError('node-unreachable', `nobody came to port ${port}: is it open?`));
      const timer = setTimeout(late, validMs);
      const aborted = () => guest.come.reject(signal.reason);
      if (signal.aborted) aborted();
      signal.addEventListener('abort', aborted, { once: true });
      const socket = guest.come.promise.finally(() => {
        clearTimeout(timer);
        signal.removeEventListener('abort', aborted);
        guests.delete(guest);
        closeUnused();
      });
      socket.catch(() => undefined);
      return { port, ticket: guest.ticket.toString('hex'), socket };
    },
    close() {
      for (const socket of strangers) socket.destroy();
      server?.close();
    },
  };
}

/** Nodes whose port was not reached a short time ago, as by a firewall that says nothing: each attempt there takes seconds. */
export type ShutDoors = { add(node: NodeName): void; has(node: NodeName): boolean };

const shutMs = 600_000;

export function createShutDoors(nowMs: () => number = () => performance.now()): ShutDoors {
  const shut = new Map<NodeName, number>();
  return {
    add: (node) => void shut.set(node, nowMs() + shutMs),
    has: (node) => (shut.get(node) ?? 0) > nowMs(),
  };
}

/** The sender's side: brings the ticket. Nothing more may be written before the receiver has said "go". */
export async function enter(
  at: { readonly address: string; readonly port: number; readonly ticket: string },
  signal: AbortSignal,
): Promise<Socket> {
  const socket = connect({ host: at.address, port: at.port, allowHalfOpen: true, noDelay: true });
  socket.on('error', () => undefined);
  // Nothing comes back on it, and nothing may be read ahead of whom it is lent to.
  socket.pause();
  try {
    await once(socket, 'connect', { signal: AbortSignal.any([signal, AbortSignal.timeout(enterMs)]) });
    socket.setKeepAlive(true, keepAliveMs);
    await new Promise<void>((resolve, reject) => {
      socket.write(Buffer.from(at.ticket, 'hex'), (error) => (error == null ? resolve() : reject(error)));
    });
    return socket;
  } catch (error) {
    socket.destroy();
    signal.throwIfAborted();
    throw new FlockError(
      'node-unreachable',
      `port ${at.port} of ${at.address} is not reached: ${messageOf(error)}`,
      {},
      { cause: error },
    );
  }
}

/** IPv4 addresses look like IPv6 ones where both are listened on. */
function plainAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:/, '');
}
