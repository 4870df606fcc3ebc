import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { Copies } from '../cluster/copies.ts';
import { lendSocket } from '../storage/lend-socket.ts';
import type { Snapshot, Storage } from '../storage/storage.ts';
import { openChannel } from './channel.ts';
import type { Door, Expected } from './door.ts';
import type { Partials } from './partials.ts';
import {
  type Beginning,
  decodeHeader,
  defaultLimits,
  type Header,
  isUnfit,
  keepAliveMs,
  type Limits,
  say,
  understand,
} from './protocol.ts';
import { createSink, createWatch, pump, readLine, type Taking, unlessAborted } from './pump.ts';
import { replaySpool } from './spool.ts';

export type ReceiveParts = {
  /** Null: this node is not ready. */
  readonly copies: () => Pick<Copies, 'receive'> | null;
  readonly storage: Storage;
  readonly partials: Partials;
  readonly door: Door;
  readonly isEncrypted: () => boolean;
  /** For the sockets between this process and the commands. */
  readonly folder: string;
  readonly log: Logger;
  readonly limits?: Limits;
};

type Receive = (descriptor: number, signal: AbortSignal) => Promise<Snapshot>;

/** One stream that comes in. */
type Incoming = {
  readonly socket: TLSSocket;
  readonly peer: NodeName;
  readonly header: Header;
  /** Fires when the connection is broken or nothing moves any more. */
  readonly signal: AbortSignal;
  readonly touch: () => void;
  /** Whether it is the storage that is waited for, not the sender. */
  readonly storageWork: { isDue: boolean };
  readonly limits: Limits;
};

/** How long the sender gets to read what was said last. */
const lingerMs = 2_000;

/** The receiving end; owns the socket. Never throws. */
export async function receiveSnapshot(parts: ReceiveParts, socket: TLSSocket, peer: NodeName): Promise<void> {
  const { log, limits = defaultLimits } = parts;
  const failed = new AbortController();
  const watch = createWatch(limits.stallMs, () =>
    failed.abort(new FlockError('node-unreachable', `nothing came from node ${peer} for ${limits.stallMs} ms`)),
  );
  const stuck = createWatch(limits.storageMs, () =>
    failed.abort(new FlockError('storage-failed', `the storage took nothing for ${limits.storageMs} ms`)),
  );
  const touch = () => {
    watch.touch();
    stuck.touch();
  };
  const storageWork = { isDue: false };
  // While the storage is behind, the sender can say nothing; whether it is alive is what the kernel asks.
  const beats = setInterval(() => {
    say(socket, { beat: true });
    if (storageWork.isDue) watch.touch();
  }, limits.beatMs);
  const closed = Promise.withResolvers<void>();
  socket.setKeepAlive(true, keepAliveMs);
  const broken = (reason: string) => failed.abort(new FlockError('stream-invalid', `the connection broke: ${reason}`));
  socket.on('error', (error) => broken(error.message));
  socket.once('close', () => {
    closed.resolve();
    broken('it was closed before the stream had ended');
  });
  try {
    const header = decodeHeader(await readLine(socket, failed.signal));
    const copies = parts.copies();
    if (copies === null) throw new FlockError('no-cluster', 'this node is in no cluster');
    const incoming: Incoming = { socket, peer, header, signal: failed.signal, touch, storageWork, limits };
    await copies.receive(peer, header, (receive) => take(parts, incoming, receive), failed.signal);
    say(socket, { done: true });
  } catch (error) {
    const cause: unknown = failed.signal.aborted ? failed.signal.reason : error;
    const code = cause instanceof FlockError ? cause.code : 'storage-failed';
    const detail = messageOf(cause);
    log.warn({ event: 'transfer.refused', peer, code, reason: detail }, 'a stream was not received');
    say(socket, { error: { code, detail, unfit: isUnfit(error) } });
  } finally {
    clearInterval(beats);
    watch.stop();
    stuck.stop();
  }
  socket.end();
  // What still comes is nobody's; reading it lets the close through.
  socket.resume();
  const over = new AbortController();
  await Promise.race([closed.promise, sleep(lingerMs, undefined, { signal: over.signal }).catch(() => undefined)]);
  over.abort();
  socket.destroy();
}

async function take(parts: ReceiveParts, incoming: Incoming, receive: Receive): Promise<Snapshot> {
  const { storage, partials, door, isEncrypted } = parts;
  const { header, socket, signal } = incoming;
  const { id } = header.doc;
  const { resumableReceive } = await storage.capabilities();
  if (header.fresh) await giveUp(parts, header);
  const beginning = await findBeginning(parts, header, resumableReceive);
  const isPlain = header.plain && !isEncrypted() && beginning?.kind !== 'spool';
  const guest = isPlain ? await door.expect(socket.remoteAddress ?? '', signal) : null;
  if (isPlain && guest === null)
    parts.log.warn({ event: 'transfer.encrypted', dataset: id }, 'the port for streams without encryption is taken');
  // What the storage keeps of it has to be known again.
  if (resumableReceive) await partials.begin(id, header);
  try {
    const received =
      guest === null
        ? await takeHere(parts, incoming, receive, { beginning, isSpooled: !resumableReceive })
        : await takeDirectly(incoming, receive, { beginning, guest });
    await partials.remove(id);
    return received;
  } catch (error) {
    if (isUnfit(error)) await giveUp(parts, header);
    else if (resumableReceive) {
      if ((await storage.resumeToken(id)) === null) await partials.remove(id);
    } else if (!signal.aborted && !hasCode(error, 'stream-invalid')) await partials.remove(id);
    throw error;
  }
}

async function giveUp({ storage, partials }: ReceiveParts, { doc }: Header): Promise<void> {
  await partials.remove(doc.id);
  await storage.abandonReceive(doc.id);
}

/** What is here of this very stream. What is here of another one goes. */
async function findBeginning(
  parts: ReceiveParts,
  header: Header,
  resumableReceive: boolean,
): Promise<Beginning | null> {
  const { storage, partials } = parts;
  const { id } = header.doc;
  const token = resumableReceive ? await storage.resumeToken(id) : null;
  const known = await partials.find(id);
  const isSame = known !== null && known.toIdentity === header.toIdentity && known.from === header.from;
  if (!isSame) {
    if (token !== null || known !== null) await giveUp(parts, header);
    return null;
  }
  if (token !== null) return { kind: 'token', token };
  const bytes = await partials.spooled(id);
  return bytes > 0 && !resumableReceive ? { kind: 'spool', bytes } : null;
}

/** From the command of the sender to that of this node: no byte passes through this process. */
async function takeDirectly(
  { socket, peer, signal, touch }: Incoming,
  receive: Receive,
  { beginning, guest }: { readonly beginning: Beginning | null; readonly guest: Expected },
): Promise<Snapshot> {
  const { port, ticket } = guest;
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  say(socket, { ready: { beginning, plain: { port, ticket } } });
  // The sender beats as long as it lives, and hangs up if its storage fails.
  const beating = listen(socket, peer, either, touch);
  beating.catch((error: unknown) => over.abort(error));
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

async function listen(socket: TLSSocket, peer: NodeName, signal: AbortSignal, touch: () => void): Promise<never> {
  for (;;) {
    understand(await readLine(socket, signal), peer);
    touch();
  }
}

/** Through this process, which decrypts it, and adds it to a spool where the storage keeps no beginnings itself. */
async function takeHere(
  { partials, folder }: ReceiveParts,
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
    say(socket, { ready: { beginning, plain: null } });
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
