import { FlockError } from '../model/errors.ts';
import { canAbort, isCommitted, isOver, type MoveDoc, type MoveId, moveIdSchema } from '../model/move.ts';
import { quote } from '../model/names.ts';
import type { Stored } from '../program/view.ts';
import type { Store } from '../store/store.ts';
import { putMove, readMove } from './records.ts';

/** Each repetition means that the move has gone on meanwhile. */
const attemptsMax = 20;

/** Has a move turn back; again is fine. Throws `move-not-found`, and `move-refused` where it is too late. */
export async function askToTurnBack(store: Store, rawId: string, reason: string): Promise<MoveDoc> {
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const { doc, index } = await existingMove(store, rawId);
    if (doc.abort !== null || (doc.failure !== null && !isOver(doc))) return doc;
    if (!canAbort(doc)) throw tooLate(doc);
    const changed = { ...doc, abort: reason, revision: doc.revision + 1 };
    if ((await store.transact([putMove(changed, index)])).kind === 'done') return changed;
  }
  throw new FlockError('store-unavailable', `move ${rawId} changes all the time: try again`);
}

/** Throws `move-not-found`. */
export async function existingMove(store: Store, rawId: string): Promise<Stored<MoveDoc>> {
  const id = moveIdSchema.safeParse(rawId);
  const stored = id.success ? await readMove(store, id.data as MoveId) : null;
  if (stored !== null) return stored;
  throw new FlockError('move-not-found', `there is no move ${quote(rawId)} (any more): "flockctl moves ls" shows them`);
}

function tooLate(doc: MoveDoc): FlockError {
  const { id, service, step, to } = doc;
  const what = isOver(doc)
    ? `is over (${step})`
    : isCommitted(doc)
      ? `is done but for the rest: ${service} is on ${to}`
      : step;
  return new FlockError('move-refused', `move ${id} can't be turned back any more: it ${what}`, { step });
}
