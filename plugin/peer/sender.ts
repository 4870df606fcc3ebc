import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { Transfer } from '../cluster/ports.ts';
import type { Carrier, Carriers } from './carrier.ts';
import type { PeerClient } from './client.ts';
import type { ShutDoors } from './door.ts';
import { type Connection, otherwiseOf, type PourParts, pour, type Way, withOtherwise } from './pouring.ts';
import {
  defaultLimits,
  encodeHeader,
  type Header,
  isUnfit,
  keepAliveMs,
  type Limits,
  type Ready,
  type Reply,
  say,
  understand,
} from './protocol.ts';
import { createWatch, readLine } from './pump.ts';

export type SendParts = PourParts & {
  readonly client: PeerClient;
  readonly isEncrypted: () => boolean;
  readonly carriers: Carriers;
  readonly shutDoors: ShutDoors;
  readonly limits?: Limits;
};

type Wishes = Pick<Header, 'fresh' | 'plain' | 'carried' | 'bytes'>;

/** The receiver's reason may come after the broken pipe. */
const refusalMs = 1_000;
/** Longer where it is certain that there is one: a connection between carriers broke, and the one between the nodes did not. */
const carrierRefusalMs = 15_000;

/**
 * Sends a snapshot and returns when the receiver has verified it. `onProgress`: bytes of this stream so far, those included that the
 * receiver had of an earlier attempt; not called for plain streams without a limit. Throws what either side threw,
 * `node-unreachable` for what is wrong with the connection, and the signal's reason.
 */
export async function sendSnapshot(
  parts: SendParts,
  node: NodeName,
  transfer: Transfer,
  onProgress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const isOpen = !parts.shutDoors.has(node);
  const bytes = await sizeOf(parts, transfer);
  // Carriers don't keep to limits.
  const carried = isOpen && parts.pacer.pieceBytes() === null && bytes !== null && bytes >= parts.carriers.bytesMin;
  let wishes: Wishes = { fresh: false, plain: isOpen && !parts.isEncrypted(), carried, bytes };
  // Each kind of failure changes one wish, so there are few attempts.
  for (;;) {
    try {
      return await attempt(parts, node, transfer, wishes, onProgress, signal);
    } catch (error) {
      const why = otherwiseOf(error);
      if (why === 'door' || why === 'carrier') parts.shutDoors.add(node);
      if (isUnfit(error) && !wishes.fresh) wishes = { ...wishes, fresh: true };
      else if (why === 'limit' && wishes.carried) wishes = { ...wishes, carried: false };
      else if (why === 'door' && (wishes.plain || wishes.carried)) wishes = { ...wishes, plain: false, carried: false };
      else throw error;
    }
  }
}

/** What an increment takes could only be told by making it. */
async function sizeOf({ storage }: SendParts, { doc, to, from }: Transfer): Promise<number | null> {
  return from === null ? await storage.estimate({ id: doc.id, to, from }) : null;
}

async function attempt(
  parts: SendParts,
  node: NodeName,
  transfer: Transfer,
  wishes: Wishes,
  onProgress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const { stallMs, beatMs } = parts.limits ?? defaultLimits;
  const socket = await parts.client.connectData(node, signal);
  const failed = new AbortController();
  const watch = createWatch(stallMs, () =>
    failed.abort(
      new FlockError('node-unreachable', `nothing came from node ${node}, and it took nothing, for ${stallMs} ms`),
    ),
  );
  const aborted = () => failed.abort(signal.reason);
  let isLineBroken = false;
  const broken = (error: unknown) => {
    isLineBroken ||= !failed.signal.aborted;
    failed.abort(new FlockError('node-unreachable', `the stream to node ${node} broke: ${messageOf(error)}`));
  };
  const beats = createBeats(socket, beatMs);
  const carrier = wishes.carried ? parts.carriers.claim() : null;
  let way: Way = 'here';
  let own: unknown = null;
  try {
    // Whatever the storage's command still writes, nobody may be left to read it: see Storage.send.
    failed.signal.addEventListener('abort', () => socket.destroy(), { once: true });
    if (signal.aborted) aborted();
    signal.addEventListener('abort', aborted, { once: true });
    socket.setKeepAlive(true, keepAliveMs);
    socket.on('error', broken);
    socket.once('close', () => broken('the connection was closed'));
    socket.write(encodeHeader({ ...transfer, ...wishes, carried: carrier !== null }));
    const ready = await nextReply(socket, node, failed.signal, watch.touch);
    if (!('ready' in ready) || !isAsWished(ready.ready, wishes, carrier)) throw notUnderstood(node);
    const isCarried = ready.ready.carried !== null;
    if (!isCarried) carrier?.release();
    if (isCarried || ready.ready.plain !== null) way = 'door';
    const go = Promise.withResolvers<void>();
    const onGo = () => {
      way = isCarried ? 'carrier' : 'here';
      go.resolve();
    };
    const done = awaitDone(socket, node, failed.signal, { touch: watch.touch, onGo });
    // A receiver may refuse in the middle: then the storage's command has to end.
    done.catch((error: unknown) => failed.abort(error));
    const connection = { socket, signal: failed.signal, touch: watch.touch, go: go.promise, beats, carrier };
    const sending = await pour(parts, ready.ready, transfer, connection, onProgress).then(
      () => null,
      (error: unknown) => ({ error }),
    );
    if (sending !== null) {
      // Its own reason counts, not the pipe that broke by it. It may also have all it needs already.
      const waitMs = failed.signal.aborted ? 0 : refusalMsOf(sending.error);
      own = sending.error;
      const isDone = await Promise.race([done.then(() => true), sleep(waitMs, false)]);
      if (!isDone) throw own;
      return;
    }
    await done;
  } catch (error) {
    const reason: unknown = failed.signal.aborted ? failed.signal.reason : error;
    if (signal.aborted || isLineBroken) throw reason;
    // It refuses what we did not send for a reason of our own.
    const isOwn = isUnfit(own) || (own !== null && hasCode(reason, 'node-unreachable'));
    throw withOtherwise(isOwn ? own : reason, way);
  } finally {
    watch.stop();
    beats.stop();
    carrier?.release();
    signal.removeEventListener('abort', aborted);
    socket.destroy();
  }
}

function refusalMsOf(error: unknown): number {
  if (otherwiseOf(error) === 'limit') return 0;
  return hasCode(error, 'node-unreachable') ? carrierRefusalMs : refusalMs;
}

function createBeats(socket: TLSSocket, ms: number): Connection['beats'] {
  let timer: NodeJS.Timeout | undefined;
  return {
    start() {
      timer ??= setInterval(() => say(socket, { beat: true }), ms);
    },
    stop: () => clearInterval(timer),
  };
}

/** No byte goes by a way that was not asked for. */
function isAsWished({ plain, carried }: Ready, wishes: Wishes, carrier: Carrier | null): boolean {
  return (plain === null || wishes.plain) && (carried === null || carrier !== null);
}

async function nextReply(socket: TLSSocket, node: NodeName, signal: AbortSignal, touch: () => void): Promise<Reply> {
  for (;;) {
    const message = understand(await heard(readLine(socket, signal), node), node);
    touch();
    if (!('beat' in message)) return message;
  }
}

/** A connection that ends without an answer is a broken one, not a bad stream. */
async function heard(line: Promise<string>, node: NodeName): Promise<string> {
  try {
    return await line;
  } catch (error) {
    if (!hasCode(error, 'stream-invalid')) throw error;
    throw new FlockError(
      'node-unreachable',
      `the stream to node ${node} broke: ${error.message}`,
      {},
      { cause: error },
    );
  }
}

async function awaitDone(
  socket: TLSSocket,
  node: NodeName,
  signal: AbortSignal,
  { touch, onGo }: { readonly touch: () => void; readonly onGo: () => void },
): Promise<void> {
  for (;;) {
    const message = await nextReply(socket, node, signal, touch);
    if ('done' in message) return;
    if (!('go' in message)) throw notUnderstood(node);
    onGo();
  }
}

function notUnderstood(node: NodeName): FlockError {
  return new FlockError('node-unreachable', `node ${node} gave an answer that is not understood`);
}
