import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { FlockError, hasCode } from '../../controller/model/errors.ts';
import type { Transfer } from '../cluster/ports.ts';
import { lendSocket } from '../storage/lend-socket.ts';
import type { ResumedSend, SendRequest, Storage } from '../storage/storage.ts';
import type { Carrier } from './carrier.ts';
import { openChannel } from './channel.ts';
import { enter } from './door.ts';
import type { Pacer } from './pacing.ts';
import { type Beginning, type Carried, type Ready, say } from './protocol.ts';
import { createSink, pump, unlessAborted } from './pump.ts';

/** The sender's part that brings the storage's stream onto its way, when both sides have agreed on one. */

export type PourParts = {
  readonly storage: Storage;
  /** For the sockets between this process and the commands. */
  readonly folder: string;
  /** Of all streams of this node together. */
  readonly pacer: Pacer;
};

export type Connection = {
  readonly socket: TLSSocket;
  /** Fires with the reason when the connection is broken, the receiver has refused or the caller has given up. */
  readonly signal: AbortSignal;
  readonly touch: () => void;
  /** Resolves when the receiver has said that the bytes may come to the port for them. */
  readonly go: Promise<void>;
  /** To the receiver; none any more from when the bytes of the stream go the same way. */
  readonly beats: { start(): void; stop(): void };
  /** For a stream that goes by one. */
  readonly carrier: Carrier | null;
};

export async function pour(
  parts: PourParts,
  { beginning, plain, carried }: Ready,
  { doc, to, from }: Transfer,
  connection: Connection,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const { socket, signal, carrier, beats } = connection;
  const request = beginning?.kind === 'token' ? { id: doc.id, token: beginning.token } : { id: doc.id, to, from };
  const door = carried ?? plain;
  if (door !== null || beginning?.kind === 'spool') beats.start();
  try {
    if (door === null) {
      await pipe(parts, request, beginning, socket, connection, onProgress, beats.stop);
      socket.end();
      return;
    }
    const direct = await enter({ ...door, address: socket.remoteAddress ?? '' }, signal);
    try {
      await unlessAborted(connection.go, signal);
      if (carried !== null && carrier !== null)
        await handToCarrier(parts, request, { carried, carrier, direct }, connection, onProgress);
      else if (parts.pacer.pieceBytes() !== null)
        await pipe(parts, request, beginning, direct, connection, onProgress, () => undefined);
      else await lendSocket(direct, (descriptor) => parts.storage.send(request, descriptor, signal));
      await unlessAborted(new Promise<void>((resolve) => direct.end(() => resolve())), signal);
    } finally {
      direct.destroy();
    }
  } catch (error) {
    // The receiver's token is of another stream: nothing was written yet.
    if (beginning?.kind === 'token' && !signal.aborted && hasCode(error, 'stream-invalid')) throw unfit(error.message);
    throw error;
  }
}

/** From the storage's command to a carrier: no byte passes through this process. */
async function handToCarrier(
  { storage, folder, pacer }: PourParts,
  request: SendRequest | ResumedSend,
  way: { readonly carried: Carried; readonly carrier: Carrier; readonly direct: Socket },
  { socket, signal, touch }: Connection,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const { carried, carrier, direct } = way;
  const channel = await openChannel(folder);
  const ended = new AbortController();
  const either = AbortSignal.any([signal, ended.signal]);
  either.addEventListener('abort', channel.close, { once: true });
  let passed = 0;
  const progress = (bytes: number) => {
    if (bytes > passed) touch();
    passed = bytes;
    onProgress(bytes);
    if (pacer.pieceBytes() !== null) ended.abort(limited());
  };
  try {
    const carrying = lendSocket(direct, (connection) =>
      lendSocket(channel.stream, (command) =>
        carrier.carry({ role: 'send', key: carried.key, command, connection, spool: null }, progress, either),
      ),
    );
    carrying.catch((error: unknown) => {
      if (either.aborted) return;
      ended.abort(error);
      // Over there it may look like the end, or like nothing at all; or the cause is there, and is told then.
      say(socket, { sent: null });
    });
    await channel.lend((descriptor) => storage.send(request, descriptor, either)).finally(() => channel.finish());
    await carrying;
    say(socket, { sent: passed });
  } catch (error) {
    throw either.aborted ? either.reason : error;
  } finally {
    ended.abort(new Error('the stream is over'));
    channel.close();
  }
}

/** From the storage's command through this process. What the receiver has in its spool is compared instead of sent. */
async function pipe(
  parts: PourParts,
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
    throw ended.signal.aborted ? ended.signal.reason : error;
  } finally {
    ended.abort(new Error('the stream is over'));
    channel.close();
  }
}

function limited(): FlockError {
  return new FlockError('node-unreachable', 'there is a limit now: it goes on through the plugin', {
    otherwise: 'limit',
  });
}

function unfit(reason: string): FlockError {
  return new FlockError('stream-invalid', `it can not be gone on with: ${reason}`, { unfit: true });
}

/** Which way a stream was on when it failed: through the plugin (or not to be changed), to a door, through a carrier. */
export type Way = 'here' | 'door' | 'carrier';

/** Why a stream is to go another way the next time: its door or its carriers did not work, or there is a limit now. */
export type Otherwise = 'door' | 'carrier' | 'limit';

const otherwiseCodes = { door: ['node-unreachable'], carrier: ['node-unreachable', 'storage-failed'] } as const;

/** The same error, marked if it may be of the way that the stream was on. */
export function withOtherwise(error: unknown, way: Way): unknown {
  if (way === 'here' || otherwiseOf(error) !== null || !hasCode(error, ...otherwiseCodes[way])) return error;
  return new FlockError(error.code, error.message, { ...error.facts, otherwise: way }, { cause: error });
}

export function otherwiseOf(error: unknown): Otherwise | null {
  const why = error instanceof FlockError ? error.facts['otherwise'] : null;
  return why === 'door' || why === 'carrier' || why === 'limit' ? why : null;
}
