import { z } from 'zod';
import { type NodeName, parseNodeName } from './names.ts';

/**
 * What happened in the cluster, for people: an append-only log in the store, of which the newest `eventsMax` are kept.
 *
 *     events/TIME-NODE-RANDOM       EventDoc; TIME as 13 digits, so that keys are in the order of time
 */
export type EventDoc = {
  readonly atMs: number;
  readonly node: NodeName;
  readonly kind: EventKind;
  /** The volume, container, service or node that it is about. */
  readonly subject: string;
  /** One line: what was done, and why. */
  readonly text: string;
};

export const eventKinds = [
  /** A move begins, has ended well, was rolled back. */
  'move-started',
  'move-done',
  'move-failed',
  /** A volume got another owner because the old one is dead; and why it did not. */
  'failover',
  'failover-refused',
  /** What a returned node alone had is kept. */
  'stashed',
  /** The store knows nothing of a volume of which a node has a copy. */
  'orphaned',
  /** Nothing can be written to a node's pool any more; it can again. */
  'pool-lost',
  'pool-back',
  /** Users of a volume were stopped because its ownership could not be proven; they go on. */
  'fenced',
  'thawed',
  /** A container was started again on its own node, made on another one, put away where it no longer belongs. */
  'revived',
  'recreated',
  'put-away',
  'drain-started',
  'drain-done',
  'drain-ended',
] as const;
export type EventKind = (typeof eventKinds)[number];

export const eventKeys = {
  events: 'events',
  event: (atMs: number, node: NodeName, random: string) => `events/${String(atMs).padStart(13, '0')}-${node}-${random}`,
} as const;

export const eventsMax = 1_000;
const textCharactersMax = 500;

export const eventSchema: z.ZodType<EventDoc> = z.object({
  atMs: z.int().nonnegative(),
  node: z.string().transform(parseNodeName),
  kind: z.enum(eventKinds),
  subject: z.string(),
  text: z.string(),
});

export function encodeEvent(event: EventDoc): string {
  return JSON.stringify({ ...event, text: event.text.slice(0, textCharactersMax) });
}
