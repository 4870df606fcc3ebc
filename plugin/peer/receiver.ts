import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { Copies } from '../cluster/copies.ts';
import type { Snapshot, Storage } from '../storage/storage.ts';
import type { Carriers } from './carrier.ts';
import type { Door } from './door.ts';
import {
  type Beginning,
  decodeHeader,
  defaultLimits,
  type Header,
  isUnfit,
  keepAliveMs,
  type Limits,
  say,
} from './protocol.ts';
import { createWatch, readLine } from './pump.ts';
import { type Incoming, type Receive, type TakeParts, takeCarried, takeDirectly, takeHere } from './taking.ts';

export type ReceiveParts = TakeParts & {
  /** Null: this node is not ready. */
  readonly copies: () => Pick<Copies, 'receive'> | null;
  readonly storage: Storage;
  readonly door: Door;
  readonly carriers: Carriers;
  readonly isEncrypted: () => boolean;
  readonly log: Logger;
  readonly limits?: Limits;
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
    failed.abort(
      new FlockError('storage-failed', `nothing of the stream went to the storage for ${limits.storageMs} ms`),
    ),
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
    const incoming: Incoming = {
      socket,
      peer,
      header,
      signal: failed.signal,
      touch,
      alive: watch.touch,
      storageWork,
      limits,
    };
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
  const { storage, partials } = parts;
  const { header, signal } = incoming;
  const { id } = header.doc;
  const { resumableReceive } = await storage.capabilities();
  if (header.fresh) await giveUp(parts, header);
  const beginning = await findBeginning(parts, header, resumableReceive);
  // What the storage keeps of it has to be known again.
  if (resumableReceive) await partials.begin(id, header);
  try {
    const received = await takeByAnyWay(parts, incoming, receive, { beginning, isSpooled: !resumableReceive });
    await partials.remove(id);
    return received;
  } catch (error) {
    if (isUnfit(error)) await giveUp(parts, header);
    else if (resumableReceive) {
      if ((await storage.resumeToken(id)) === null) await partials.remove(id);
    } else if (!signal.aborted && !hasCode(error, 'stream-invalid', 'node-unreachable')) await partials.remove(id);
    throw error;
  }
}

async function takeByAnyWay(
  parts: ReceiveParts,
  incoming: Incoming,
  receive: Receive,
  what: { readonly beginning: Beginning | null; readonly isSpooled: boolean },
): Promise<Snapshot> {
  const { door, isEncrypted, carriers, log } = parts;
  const { header, socket, signal } = incoming;
  const isPlain = header.plain && !isEncrypted();
  // A spool is compared with what the sender has, here and there.
  const mayBeOther = what.beginning?.kind !== 'spool';
  const carrier = mayBeOther && header.carried && !isPlain ? carriers.claim() : null;
  try {
    const isOther = mayBeOther && (isPlain || carrier !== null);
    const guest = isOther ? await door.expect(socket.remoteAddress ?? '', signal) : null;
    if (guest === null) {
      carrier?.release();
      if (isOther) log.warn({ event: 'transfer.door-taken', dataset: header.doc.id }, doorTaken);
      return await takeHere(parts, incoming, receive, what);
    }
    if (carrier === null) return await takeDirectly(incoming, receive, { ...what, guest });
    return await takeCarried(parts, incoming, receive, { ...what, guest, carrier });
  } finally {
    carrier?.release();
  }
}

const doorTaken =
  'the port for streams is taken by another program: they go through the plugin, encrypted, which takes more of the processor';

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
