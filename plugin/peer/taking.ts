import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { FlockError, messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import { lendSocket } from '../storage/lend-socket.ts';
import type { Snapshot } from '../storage/storage.ts';
import type { Carrier } from './carrier.ts';
import { openChannel } from './channel.ts';
import type { Expected } from './door.ts';
import type { Partials } from './partials.ts';
import { type Beginning, type Header, isUnfit, type Limits, type Reply, say, understand } from './protocol.ts';
import { createSink, pump, readLine, type Taking, unlessAborted } from './pump.ts';
import { replaySpool } from './spool.ts';

/** The receiver's part that brings a stream from its way to the storage. */

export type TakeParts = {
  readonly partials: Partials;
  /** For the sockets between this process and the commands. */
  readonly folder: string;
};

export type Receive = (descriptor: number, signal: AbortSignal) => Promise<Snapshot>;

/** One stream that comes in. */
export type Incoming = {
  readonly socket: TLSSocket;
  readonly peer: NodeName;
  readonly header: Header;
  /** Fires when the connection is broken or nothing moves any more. */
  readonly signal: AbortSignal;
  /** Something has moved. */
  readonly touch: () => void;
  /** The sender is there. */
  readonly alive: () => void;
  /** Whether it is the storage that is waited for, not the sender. */
  readonly storageWork: { isDue: boolean };
  readonly limits: Limits;
};

/** From the command of the sender to that of this node: no byte passes through this process. */
export async function takeDirectly(
  { socket, peer, signal, touch }: Incoming,
  receive: Receive,
  { beginning, guest }: { readonly beginning: Beginning | null; readonly guest: Expected },
): Promise<Snapshot> {
  const { port, ticket } = guest;
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  say(socket, { ready: { beginning, plain: { port, ticket }, carried: null } });
  // The sender beats as long as it lives, and hangs up if its storage fails.
  const listening = listen(socket, peer, either, touch);
  listening.catch((error: unknown) => over.abort(error));
  try {
    const direct = await guest.socket;
    try {
      return await lendSocket(direct, (descriptor) => {
        say(socket, { go: true });
        return receive(descriptor, either);
      });
    } finally {
      direct.destroy();
    }
  } catch (error) {
    throw either.aborted ? either.reason : error;
  } finally {
    over.abort(new Error('the stream is over'));
  }
}

/** From the sender's command to that of this node, through a carrier on each side, which adds it to the spool, too. */
export async function takeCarried(
  { partials, folder }: TakeParts,
  { socket, peer, header, signal, touch, alive, storageWork }: Incoming,
  receive: Receive,
  way: {
    readonly beginning: Beginning | null;
    readonly guest: Expected;
    readonly carrier: Carrier;
    readonly isSpooled: boolean;
  },
): Promise<Snapshot> {
  const { beginning, guest, carrier } = way;
  const { port, ticket } = guest;
  const key = randomBytes(keyBytes).toString('hex');
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const channel = await openChannel(folder);
  const spool = way.isSpooled ? await partials.emptySpool(header.doc.id, header) : null;
  either.addEventListener('abort', channel.close, { once: true });
  say(socket, { ready: { beginning, plain: null, carried: { port, ticket, key } } });
  const sent = Promise.withResolvers<number>();
  const listening = listen(socket, peer, either, (message) => {
    alive();
    if (!('sent' in message)) return;
    if (message.sent === null) over.abort(cut());
    else sent.resolve(message.sent);
  });
  listening.catch((error: unknown) => over.abort(error));
  let passed = 0;
  const progress = (bytes: number) => {
    if (bytes > passed) touch();
    passed = bytes;
  };
  try {
    const direct = await guest.socket;
    const carrying = lendSocket(direct, (connection) =>
      lendSocket(channel.stream, (command) => {
        say(socket, { go: true });
        const spooling = spool && { file: spool.file, folder: spool.folder, streamBytes: header.bytes };
        const load = { role: 'receive', key, command, connection, spool: spooling } as const;
        return carrier.carry(load, progress, either);
      }),
    );
    carrying
      .then(async () => {
        storageWork.isDue = true;
        if ((await unlessAborted(sent.promise, either)) !== passed) throw cut();
        channel.stream.end();
      })
      .catch((error: unknown) => over.abort(error))
      .finally(() => direct.destroy());
    const received = await channel.lend((descriptor) => receive(descriptor, either));
    // The storage knows the end from the stream itself, and may be faster than the connection is taken down.
    await Promise.race([carrying.catch(() => undefined), sleep(lingerMs, undefined, { ref: false })]);
    return received;
  } catch (error) {
    throw either.aborted ? either.reason : error;
  } finally {
    over.abort(new Error('the stream is over'));
    channel.close();
    await spool?.close();
  }
}

function cut(): FlockError {
  return new FlockError('node-unreachable', 'the connection was cut before the stream had ended');
}

const keyBytes = 32;
const lingerMs = 2_000;

async function listen(
  socket: TLSSocket,
  peer: NodeName,
  signal: AbortSignal,
  take: (message: Reply) => void,
): Promise<never> {
  for (;;) take(understand(await readLine(socket, signal), peer));
}

/** Through this process, which decrypts it, and adds it to a spool where the storage keeps no beginnings itself. */
export async function takeHere(
  { partials, folder }: TakeParts,
  { socket, peer, header, signal, touch, storageWork }: Incoming,
  receive: Receive,
  { beginning, isSpooled }: { readonly beginning: Beginning | null; readonly isSpooled: boolean },
): Promise<Snapshot> {
  const { id } = header.doc;
  const spool = isSpooled ? await partials.spool(id, header, beginning?.kind === 'spool') : null;
  const channel = await openChannel(folder);
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  const sink = createSink(channel.stream);
  let isConfirmed = beginning?.kind !== 'spool';
  let isProgress = false;

  async function feed(): Promise<void> {
    if (beginning?.kind === 'spool') {
      const replaying = replaySpool(
        partials.spoolPath(id),
        beginning.bytes,
        (chunk) => {
          touch();
          const room = sink.write(chunk);
          return room === null ? null : unlessAborted(room, either);
        },
        either,
      );
      replaying.catch(() => undefined);
      const [ours, theirs] = await Promise.all([replaying, readPrefix(socket, peer, either, touch)]);
      if (ours !== theirs) throw unfit('what is here of an earlier attempt is of another stream');
      isConfirmed = true;
    }
    await pump(
      socket,
      (chunk) => {
        touch();
        isProgress = true;
        const work = both(spool?.add(chunk) ?? null, sink.write(chunk));
        storageWork.isDue = work !== null;
        return work;
      },
      either,
    );
    storageWork.isDue = true;
    channel.stream.end();
  }

  try {
    say(socket, { ready: { beginning, plain: null, carried: null } });
    const feeding = feed();
    feeding.catch((error: unknown) => over.abort(error));
    return await channel.lend((descriptor) => receive(descriptor, either));
  } catch (error) {
    const reason = either.aborted ? either.reason : error;
    if (signal.aborted) throw reason;
    // The storage has looked at it before it could be compared.
    if (!isConfirmed) throw isUnfit(reason) ? reason : unfit(messageOf(reason));
    // All that came was here before, and the storage did not take it: it will not the next time.
    if (beginning?.kind === 'spool' && !isProgress) await partials.remove(id);
    throw reason;
  } finally {
    over.abort(new Error('the stream is over'));
    channel.close();
    await spool?.close();
  }
}

function unfit(reason: string): FlockError {
  return new FlockError('stream-invalid', reason, { unfit: true });
}

async function readPrefix(socket: TLSSocket, peer: NodeName, signal: AbortSignal, touch: () => void): Promise<string> {
  for (;;) {
    const message = understand(await readLine(socket, signal), peer);
    touch();
    if ('prefix' in message) return message.prefix;
  }
}

function both(first: Taking, second: Taking): Taking {
  if (first === null) return second;
  return second === null ? first : Promise.all([first, second]);
}
