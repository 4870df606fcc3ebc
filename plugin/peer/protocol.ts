import type { TLSSocket } from 'node:tls';
import { z } from 'zod';
import { decodeVolume } from '../../controller/model/cluster.ts';
import { errorCodes, FlockError, messageOf } from '../../controller/model/errors.ts';
import { type NodeName, parseSnapshotName } from '../../controller/model/names.ts';
import type { Transfer } from '../cluster/ports.ts';

/**
 * A stream of a snapshot between two nodes, on a connection of its own (TLS, both sides proved). What is not the stream is lines of JSON:
 *
 *     sender    -> header                             (nothing more until the answer)
 *     receiver  <- {"ready":...} or {"error":...}     ready says what it has of an earlier attempt, and where to bring the bytes
 *     sender    -> the storage's stream, then end
 *     receiver  <- {"beat":true} now and then         while its storage works
 *     receiver  <- {"done":true} or {"error":...}     (after it has verified what is there now)
 *
 * Going on after an interruption:
 *
 * - `token`: the receiver's storage has kept what came; the sender's storage writes the rest.
 * - `spool`: the receiver has the first bytes in a file. The sender makes the stream anew and drops as many; instead of them it sends beats
 *   and then {"prefix":SHA-256 of what it dropped}, and the rest follows. Both must have the same bytes, or all begins anew.
 *
 * By a way of their own the bytes go where encryption would take longer than the storages: the sender brings the ticket to the receiver's
 * other port, waits for {"go":true}, and the bytes go there; both sides beat here meanwhile.
 *
 * - `carried`: large streams, from command to command through a carrier on each side (carrier-process.ts): TLS with a key that was told here.
 *   The sender's {"sent":bytes} says that this was all (null: its carrier has failed); a connection that is cut ends like one that is done.
 * - `plain`: from command to command without encryption, where both nodes do without.
 *
 * The stream's own checks find what is damaged or cut short, TLS what is changed; nothing is acknowledged before the receiver has seen the
 * snapshot with the right identity.
 */
export type Limits = {
  /** Nothing heard or moved for so long: the other side is gone. */
  readonly stallMs: number;
  readonly beatMs: number;
  /** A storage that takes no byte for so long, or needs so long to end, is stuck. */
  readonly storageMs: number;
};

export const defaultLimits: Limits = { stallMs: 60_000, beatMs: 15_000, storageMs: 600_000 };

/** When the kernel asks whether the other host is alive; it is given up ten seconds later. */
export const keepAliveMs = 10_000;

export const lineBytesMax = 64 * 1024;

const headerSchema = z.object({
  doc: z.string(),
  to: z.string().transform(parseSnapshotName),
  toIdentity: z.string(),
  from: z.string().transform(parseSnapshotName).nullable(),
  /** What the receiver has of an earlier attempt does not fit: it is to be thrown away. */
  fresh: z.boolean().default(false),
  /** The sender would do without encryption. */
  plain: z.boolean().default(false),
  /** It is large, and the sender has a carrier for it. */
  carried: z.boolean().default(false),
  /** About how long the stream is. */
  bytes: z.number().nonnegative().nullable().default(null),
});

const doorSchema = z.object({ port: z.int().min(1).max(65_535), ticket: z.hex() });

const readySchema = z.object({
  beginning: z
    .discriminatedUnion('kind', [
      z.object({ kind: z.literal('token'), token: z.string().max(16_384) }),
      z.object({ kind: z.literal('spool'), bytes: z.int().positive() }),
    ])
    .nullable(),
  plain: doorSchema.nullable(),
  carried: doorSchema
    .extend({ key: z.hex().length(64) })
    .nullable()
    .default(null),
});

const replySchema = z.union([
  z.object({ ready: readySchema }),
  z.object({ go: z.literal(true) }),
  z.object({ beat: z.literal(true) }),
  z.object({ prefix: z.hex() }),
  z.object({ sent: z.int().nonnegative().nullable() }),
  z.object({ done: z.literal(true) }),
  z.object({ error: z.object({ code: z.string(), detail: z.string(), unfit: z.boolean().optional() }) }),
]);

export type Header = Transfer & {
  readonly fresh: boolean;
  readonly plain: boolean;
  readonly carried: boolean;
  readonly bytes: number | null;
};
export type Ready = z.infer<typeof readySchema>;
export type Carried = NonNullable<Ready['carried']>;
export type Beginning = NonNullable<Ready['beginning']>;
export type Message = z.infer<typeof replySchema>;
/** What is no failure. */
export type Reply = Exclude<Message, { error: unknown }>;

export function encodeHeader({ doc, ...rest }: Header): string {
  return `${JSON.stringify({ ...rest, doc: JSON.stringify(doc) })}\n`;
}

/** Throws `stream-invalid` for what is no header. */
export function decodeHeader(text: string): Header {
  try {
    const { doc, ...rest } = headerSchema.parse(JSON.parse(text));
    return { ...rest, doc: decodeVolume(doc) };
  } catch (error) {
    throw new FlockError('stream-invalid', `the header is not understood: ${messageOf(error)}`, {}, { cause: error });
  }
}

export function say(socket: TLSSocket, message: Message): void {
  if (!socket.destroyed && socket.writable) socket.write(`${JSON.stringify(message)}\n`);
}

/** What the node said, if it is no failure; those are thrown. */
export function understand(text: string, node: NodeName): Reply {
  const message = parseMessage(text, node);
  if (!('error' in message)) return message;
  const { code, detail, unfit = false } = message.error;
  const known = errorCodes.find((one) => one === code) ?? 'storage-failed';
  throw new FlockError(known, `node ${node}: ${detail}`, { unfit });
}

/** The receiver's beginning was not one of this stream: worth a second attempt that begins anew. */
export function isUnfit(error: unknown): boolean {
  return error instanceof FlockError && error.facts['unfit'] === true;
}

function parseMessage(text: string, node: NodeName): Message {
  try {
    return replySchema.parse(JSON.parse(text));
  } catch (error) {
    throw new FlockError(
      'node-unreachable',
      `node ${node} gave an answer that is not understood: do both nodes run one version of flock?`,
      {},
      { cause: error },
    );
  }
}
