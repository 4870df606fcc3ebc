import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { Transfer } from '../cluster/ports.ts';
import { lendSocket } from '../storage/lend-socket.ts';
import type { ResumedSend, SendRequest, Storage } from '../storage/storage.ts';
import { openChannel } from './channel.ts';
import type { PeerClient } from './client.ts';
import { enter } from './door.ts';
import type { Pacer } from './pacing.ts';
import {
  type Beginning,
  defaultLimits,
  encodeHeader,
  isUnfit,
  keepAliveMs,
  type Limits,
  type Message,
  type Ready,
  say,
  understand,
} from './protocol.ts';
import { createSink, createWatch, pump, readLine, unlessAborted } from './pump.ts';

export type SendParts = {
  readonly client: PeerClient;
  readonly storage: Storage;
  /** For the sockets between this process and the commands. */
  readonly folder: string;
  /** Of all streams of this node together. */
  readonly pacer: Pacer;
  readonly isEncrypted: () => boolean;
  readonly limits?: Limits;
};

type Wishes = { readonly fresh: boolean; readonly plain: boolean };

/** The receiver's reason may come after the broken pipe. */
const refusalMs = 1_000;

/**
 * Sends a snapshot and returns when the receiver has verified it. `onProgress`: bytes of this stream so far, those included that the
 * receiver had of an earlier attempt; not called where the bytes don't pass through this process. Throws what either side threw,
 * `node-unreachable` for what is wrong with the connection, and the signal's reason.
 */
export async function sendSnapshot(
  parts: SendParts,
  node: NodeName,
  transfer: Transfer,
  onProgress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  let wishes: Wishes = { fresh: false, plain: !parts.isEncrypted() };
  // Each kind of failure changes one wish, so there are three attempts at most.
  for (;;) {
    try {
      return await attempt(parts, node, transfer, wishes, onProgress, signal);
    } catch (error) {
      if (isUnfit(error) && !wishes.fresh) wishes = { ...wishes, fresh: true };
      else if (isClosedDoor(error) && wishes.plain) wishes = { ...wishes, plain: false };
      else throw error;
    }
  }
}

type Connection = {
  readonly socket: TLSSocket;
  /** Fires with the reason when the connection is broken, the receiver has refused or the caller has given up. */
  readonly signal: AbortSignal;
  readonly touch: () => void;
  /** Resolves when the receiver has said that the bytes may come to its plain port. */
  readonly go: Promise<void>;
};

async function attempt(
  parts: SendParts,
  node: NodeName,
  transfer: Transfer,
  wishes: Wishes,
  onProgress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const { stallMs } = parts.limits ?? defaultLimits;
  const socket = await parts.client.connectData(node, signal);
  const failed = new AbortController();
  const watch = createWatch(stallMs, () =>
    failed.abort(
      new FlockError('node-unreachable', `nothing came from node ${node}, and it took nothing, for ${stallMs} ms`),
    ),
  );
  const aborted = () => failed.abort(signal.reason);
  const broken = (error: unknown) =>
    failed.abort(new FlockError('node-unreachable', `the stream to node ${node} broke: ${messageOf(error)}`));
  try {
    // Whatever the storage's command still writes, nobody may be left to read it: see Storage.send.
    failed.signal.addEventListener('abort', () => socket.destroy(), { once: true });
    if (signal.aborted) aborted();
    signal.addEventListener('abort', aborted, { once: true });
    socket.setKeepAlive(true, keepAliveMs);
    socket.on('error', broken);
    socket.once('close', () => broken('the connection was closed'));
    socket.write(encodeHeader({ ...transfer, ...wishes }));
    const ready = await nextReply(socket, node, failed.signal, watch.touch);
    if (!('ready' in ready)) throw notUnderstood(node);
    const go = Promise.withResolvers<void>();
    const done = awaitDone(socket, node, failed.signal, { touch: watch.touch, onGo: go.resolve });
    // A receiver may refuse in the middle: then the storage's command has to end.
    done.catch((error: unknown) => failed.abort(error));
    const connection = { socket, signal: failed.signal, touch: watch.touch, go: go.promise };
    const sending = await pour(parts, ready.ready, transfer, connection, onProgress).then(
      () => null,
      (error: unknown) => ({ error }),
    );
    if (sending !== null) {
      // Its own reason counts, not the pipe that broke by it. It may also have all it needs already.
      const isDone = await Promise.race([done.then(() => true), sleep(failed.signal.aborted ? 0 : refusalMs, false)]);
      if (!isDone) throw sending.error;
      return;
    }
    await done;
  } catch (error) {
    throw failed.signal.aborted ? failed.signal.reason : error;
  } finally {
    watch.stop();
    signal.removeEventListener('abort', aborted);
    socket.destroy();
  }
}

async function nextReply(
  socket: TLSSocket,
  node: NodeName,
  signal: AbortSignal,
  touch: () => void,
): Promise<Exclude<Message, { error: unknown }>> {
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

async function pour(
  parts: SendParts,
  { beginning, plain }: Ready,
  { doc, to, from }: Transfer,
  connection: Connection,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const { socket, signal } = connection;
  const request = beginning?.kind === 'token' ? { id: doc.id, token: beginning.token } : { id: doc.id, to, from };
  const beat = () => setInterval(() => say(socket, { beat: true }), (parts.limits ?? defaultLimits).beatMs);
  // Not a word more from when the bytes come here.
  let beats = plain !== null || beginning?.kind === 'spool' ? beat() : null;
  const quiet = () => {
    if (beats !== null) clearInterval(beats);
    beats = null;
  };
  try {
    if (plain === null) {
      await pipe(parts, request, beginning, socket, connection, onProgress, quiet);
      socket.end();
      return;
    }
    const address = socket.remoteAddress ?? '';
    const direct = await enter({ ...plain, address }, signal).catch((error: unknown) => {
      throw hasCode(error, 'node-unreachable') ? closedDoor(error) : error;
    });
    try {
      await unlessAborted(connection.go, signal);
      if (parts.pacer.pieceBytes() !== null) {
        await pipe(parts, request, beginning, direct, connection, onProgress, () => undefined);
      } else await lendSocket(direct, (descriptor) => parts.storage.send(request, descriptor, signal));
      await unlessAborted(new Promise<void>((resolve) => direct.end(() => resolve())), signal);
    } finally {
      direct.destroy();
    }
  } finally {
    quiet();
  }
}

/** From the storage's command through this process. What the receiver has in its spool is compared instead of sent. */
async function pipe(
  parts: SendParts,
  request: SendRequest | ResumedSend,
  beginning: Beginning | null,
  to: Socket,
  { socket, signal, touch }: Connection,
  onProgress: (bytes: number) => void,
  onPrefix: () => void,
): Promise<void> {
  const { storage, pacer } = parts;
  const sink = createSink(to);
  const channel = await openChannel(parts.folder);
  const ended = new AbortController();
  const either = AbortSignal.any([signal, ended.signal]);
  either.addEventListener('abort', channel.close, { once: true });
  let known = beginning?.kind === 'spool' ? beginning.bytes : 0;
  const hash = createHash('sha256');
  let passed = 0;

  async function paced(chunk: Buffer): Promise<void> {
    for (let offset = 0; offset < chunk.length; ) {
      const piece = chunk.subarray(offset, offset + (pacer.pieceBytes() ?? chunk.length));
      offset += piece.length;
      await pacer.take(piece.length, either);
      await sink.write(piece);
      touch();
    }
  }

  /** The part of a chunk that the receiver does not have. */
  function beyond(chunk: Buffer): Buffer {
    const same = chunk.subarray(0, known);
    hash.update(same);
    known -= same.length;
    if (known === 0) {
      onPrefix();
      say(socket, { prefix: hash.digest('hex') });
    }
    return chunk.subarray(same.length);
  }

  try {
    const pumping = pump(
      channel.stream,
      (chunk) => {
        touch();
        passed += chunk.length;
        onProgress(passed);
        const rest = known > 0 ? beyond(chunk) : chunk;
        if (rest.length === 0) return null;
        return pacer.pieceBytes() === null ? sink.write(rest) : paced(rest);
      },
      either,
    );
    pumping.catch((error: unknown) => ended.abort(error));
    await channel.lend((descriptor) => storage.send(request, descriptor, either)).finally(() => channel.finish());
    await pumping;
    if (known > 0) throw unfit('the receiver has more of the stream than there is');
  } catch (error) {
    // The receiver's token is of another stream: nothing was written yet.
    if (beginning?.kind === 'token' && passed === 0 && hasCode(error, 'stream-invalid')) throw unfit(error.message);
    throw ended.signal.aborted ? ended.signal.reason : error;
  } finally {
    ended.abort(new Error('the stream is over'));
    channel.close();
  }
}

function unfit(reason: string): FlockError {
  return new FlockError('stream-invalid', `it can not be gone on with: ${reason}`, { unfit: true });
}

function closedDoor(error: FlockError): FlockError {
  return new FlockError(error.code, error.message, { ...error.facts, isClosedDoor: true }, { cause: error });
}

function isClosedDoor(error: unknown): boolean {
  return error instanceof FlockError && error.facts['isClosedDoor'] === true;
}

function notUnderstood(node: NodeName): FlockError {
  return new FlockError('node-unreachable', `node ${node} gave an answer that is not understood`);
}
