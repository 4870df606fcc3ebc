import { z } from 'zod';
import { type NodeName, parseNodeName } from './names.ts';

/**
 * What happened in the cluster, for people: an append-only log in the store, of which the `eventsMax` that were written last are kept.
 *
 *     events/TIME-NODE-RANDOM       EventDoc; TIME as 13 digits, so that keys are in the order of time
 *
 * That is not the order in which they are written: clocks differ, and a node that was cut off tells late. Whoever follows the log goes by
 * the store's index, which grows with every transaction.
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

/** An event as the store has it. */
type Written = { readonly index: string };

/** `cursor`: to be asked with for what was written after these. */
export type EventPage<Event> = { readonly events: readonly Event[]; readonly cursor: string };

/** What a page's cursor looks like: an index of the store, of 64 bits; 0 is before all of them. */
export const eventCursor = /^\d{1,20}$/;

/** In the order in which they were written. Pure, as all that follows. */
export function byWriting<Event extends Written>(events: readonly Event[]): readonly Event[] {
  return events.toSorted((a, b) => compareIndexes(a.index, b.index));
}

/** The newest by time, of all events by key, and a cursor that leads on to all that is written later. */
export function newestEvents<Event extends Written>(events: readonly Event[], limit: number): EventPage<Event> {
  return { events: events.slice(-limit), cursor: lastIndex(events) };
}

/** What was written after the cursor, the first of it; the cursor itself where there is nothing yet. */
export function eventsAfter<Event extends Written>(
  events: readonly Event[],
  cursor: string,
  limit: number,
): EventPage<Event> {
  const later = byWriting(events.filter(({ index }) => compareIndexes(index, cursor) > 0));
  const last = later.slice(0, limit).at(-1)?.index ?? cursor;
  // Not cut where several have one index: what is left of them would be before the cursor.
  return { events: later.filter(({ index }) => compareIndexes(index, last) <= 0), cursor: last };
}

/** Whether nothing has been written at the cursor or after it: the list is an old one, or the store was set back or replaced. */
export function isBeforeCursor(events: readonly Written[], cursor: string): boolean {
  return compareIndexes(lastIndex(events), cursor) < 0;
}

function lastIndex(events: readonly Written[]): string {
  return byWriting(events).at(-1)?.index ?? '0';
}

function compareIndexes(a: string, b: string): number {
  const difference = BigInt(a) - BigInt(b);
  return difference < 0n ? -1 : Number(difference > 0n);
}
