import type { EventsView } from '../model/controller-api.ts';
import {
  type EventDoc,
  type EventPage,
  eventKeys,
  eventSchema,
  eventsAfter,
  isBeforeCursor,
  newestEvents,
} from '../model/events.ts';
import type { Entry } from '../store/store.ts';
import type { MoveTools } from './ports.ts';

/** `after`: the cursor of an earlier answer; null: there is none. `waitMs`: for what comes after it. */
export type EventsAsked = { readonly after: string | null; readonly waitMs: number; readonly limit: number };

const prefix = `${eventKeys.events}/`;

/** The newest ones by time, or what was written after a cursor, in that order; then nothing, once the time is over. */
export async function readEvents(
  { store, clock }: Pick<MoveTools, 'store' | 'clock'>,
  { after, waitMs, limit }: EventsAsked,
  signal: AbortSignal,
): Promise<EventsView> {
  const list = () => store.list(prefix, { fresh: true });
  if (after === null) return viewOf(newestEvents(await list(), limit));
  if (waitMs === 0) return viewOf(pageAfter(await list(), after, limit));
  const ended = new AbortController();
  const timer = clock.sleep(waitMs, AbortSignal.any([signal, ended.signal])).then(() => ended.abort());
  try {
    // Its first word is what there is, the next one comes with the next event.
    for await (const entries of store.watch(prefix, ended.signal)) {
      const page = pageAfter(isBeforeCursor(entries, after) ? await list() : entries, after, limit);
      if (page.cursor !== after) return viewOf(page);
    }
    signal.throwIfAborted();
    return { events: [], cursor: after };
  } finally {
    ended.abort();
    await timer;
  }
}

/**
 * The list must be fresh, if it is before the cursor: then the store was set back or replaced, and would never come to this cursor again,
 * or come by it unseen. So it is begun anew; what was shown already may come again.
 */
function pageAfter(entries: readonly Entry[], cursor: string, limit: number): EventPage<Entry> {
  return isBeforeCursor(entries, cursor) ? newestEvents(entries, limit) : eventsAfter(entries, cursor, limit);
}

function viewOf({ events, cursor }: EventPage<Entry>): EventsView {
  return { events: events.flatMap(({ value }) => readEvent(value)), cursor };
}

/** Nothing of what a newer flock has written. */
export function readEvent(value: string): readonly EventDoc[] {
  try {
    return [eventSchema.parse(JSON.parse(value))];
  } catch {
    return [];
  }
}
