import type { Logger } from 'pino';
import { listBelow } from '../cluster/entries.ts';
import { hasCode, messageOf } from '../model/errors.ts';
import {
  advance,
  decodeMove,
  hasStoppedInVain,
  isOver,
  type MoveDoc,
  type MoveId,
  type MoveProgress,
  moveKeys,
  type StepOutcome,
} from '../model/move.ts';
import { decodeWorkload, type WorkloadDoc, type WorkloadId, workloadKeys } from '../model/workload.ts';
import type { Clock } from '../program/home.ts';
import type { Stored } from '../program/view.ts';
import type { Entry, Operation, Store } from '../store/store.ts';

/** The records of moves in the store, and the workloads' documents that belong to them. All are changed by compare-and-set only. */

const retryMs = 500;
/** Each repetition means that somebody else has changed the same record meanwhile. */
const attemptsMax = 20;

export async function readMove(store: Store, id: MoveId): Promise<Stored<MoveDoc> | null> {
  const entry = await store.get(moveKeys.move(id), { fresh: true });
  return entry === null ? null : readable(entry, decodeMove);
}

/** Without those that can't be read. Newest first. */
export async function listMoves(store: Store): Promise<readonly Stored<MoveDoc>[]> {
  const moves = (await listBelow(store, moveKeys.moves)).flatMap((entry) => readable(entry, decodeMove) ?? []);
  return moves.toSorted((a, b) => b.doc.createdAtMs - a.doc.createdAtMs);
}

export async function listWorkloads(store: Store): Promise<readonly Stored<WorkloadDoc>[]> {
  return (await listBelow(store, workloadKeys.workloads)).flatMap((entry) => readable(entry, decodeWorkload) ?? []);
}

export async function readWorkload(store: Store, id: WorkloadId): Promise<Stored<WorkloadDoc> | null> {
  const entry = await store.get(workloadKeys.workload(id), { fresh: true });
  return entry === null ? null : readable(entry, decodeWorkload);
}

/** What a newer flock has written is left alone. */
export function readable<Doc>(entry: Entry, decode: (text: string) => Doc): Stored<Doc> | null {
  try {
    return { doc: decode(entry.value), index: entry.index };
  } catch {
    return null;
  }
}

/** Still at the step that somebody began, and not at another try of it. */
export function isAt(doc: MoveDoc, begun: MoveDoc): boolean {
  return doc.step === begun.step && doc.history.length === begun.history.length;
}

export function putMove(doc: MoveDoc, index: string | null): Operation & { readonly kind: 'compare-and-set' } {
  const value = JSON.stringify(doc);
  // One that nobody can read would never end, and its containers would never be free of it.
  decodeMove(value);
  return { kind: 'compare-and-set', key: moveKeys.move(doc.id), value, index };
}

export function putWorkload(doc: WorkloadDoc, index: string): Operation & { readonly kind: 'compare-and-set' } {
  return { kind: 'compare-and-set', key: workloadKeys.workload(doc.id), value: JSON.stringify(doc), index };
}

export type RecordParts = {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  /** Told by whoever wrote the end of a move; twice only if the store's answer to that was lost. */
  readonly onEnd: (doc: MoveDoc) => void;
};

/** A step that somebody has begun: the record as it was then. `beganAtMs`: on the wall clock of who did it. */
export type Begun = Stored<MoveDoc> & { readonly beganAtMs: number };

export type Records = {
  /**
   * Writes what came of the step that the record was at, however long the store is away, until the signal fires. Answers the record as it is
   * then, also where somebody else has gone on meanwhile; null: it is gone.
   */
  finish(begun: Begun, outcome: StepOutcome, signal: AbortSignal): Promise<Stored<MoveDoc> | null>;
  /** Says that the node whose turn it is is dead; tried once. */
  tellLost(begun: MoveDoc, reason: string): Promise<void>;
  /** Best effort: nothing depends on it. */
  tellProgress(begun: MoveDoc, progress: MoveProgress): Promise<void>;
};

export function createRecords({ store, clock, log, onEnd }: RecordParts): Records {
  /** Null: somebody else has changed it meanwhile. */
  async function write(
    current: Stored<MoveDoc>,
    outcome: StepOutcome,
    beganAtMs: number,
  ): Promise<Stored<MoveDoc> | null> {
    const next = advance(withTimes(current.doc, beganAtMs), outcome, clock.nowMs());
    const freed = isOver(next) ? await freeing(store, next) : [];
    const put = putMove(next, current.index);
    const done = await store.transact([put, ...freed]);
    if (done.kind === 'conflict') return null;
    const { id, step, history } = next;
    log.info({ event: 'move.step', move: id, from: current.doc.step, to: step, note: history.at(-1)?.note }, 'goes on');
    return { doc: next, index: done.indexes.get(put.key) ?? '' };
  }

  return {
    async finish(begun, outcome, signal) {
      let current: Stored<MoveDoc> | null = begun;
      let mayBeDone = false;
      while (!signal.aborted) {
        try {
          for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
            if (current === null || !isAt(current.doc, begun.doc)) {
              if (mayBeDone && current !== null && isOver(current.doc)) onEnd(current.doc);
              return current;
            }
            const written = await write(current, outcome, begun.beganAtMs);
            if (written !== null) {
              if (isOver(written.doc)) onEnd(written.doc);
              return written;
            }
            current = await readMove(store, begun.doc.id);
          }
        } catch (error) {
          mayBeDone = true;
          if (!hasCode(error, 'store-unavailable'))
            log.error({ event: 'move.not-written', move: begun.doc.id, reason: messageOf(error) }, 'tried again');
        }
        await clock.sleep(retryMs, signal);
      }
      return null;
    },
    async tellLost(begun, reason) {
      const current = await readMove(store, begun.id);
      if (current === null || !isAt(current.doc, begun)) return;
      const written = await write(current, { kind: 'lost', reason }, current.doc.stepSinceMs);
      if (written !== null && isOver(written.doc)) onEnd(written.doc);
    },
    async tellProgress(begun, progress) {
      try {
        const current = await readMove(store, begun.id);
        if (current === null || !isAt(current.doc, begun)) return;
        await store.transact([
          putMove({ ...current.doc, progress, revision: current.doc.revision + 1 }, current.index),
        ]);
      } catch (error) {
        log.debug({ event: 'move.progress-not-told', move: begun.id, reason: messageOf(error) }, 'told later');
      }
    },
  };
}

/**
 * A handover's transaction holds the time at which it was asked for, and most of that step lies between it and its end: it was over
 * when the next node could begin.
 */
function withTimes(doc: MoveDoc, beganAtMs: number): MoveDoc {
  const last = doc.history.at(-1);
  const lateMs = beganAtMs - doc.stepSinceMs;
  if (last === undefined || !['committing', 'returning'].includes(last.step)) return doc;
  if (lateMs <= 0 || lateMs > lateMsMax) return doc;
  return {
    ...doc,
    stepSinceMs: beganAtMs,
    history: [...doc.history.slice(0, -1), { ...last, ms: last.ms + lateMs }],
  };
}

/** Later, the node was busy with something else, or its clock is another one. */
const lateMsMax = 60_000;

/** A move that is over lets go of its containers in the transaction that ends it. */
async function freeing(store: Store, move: MoveDoc): Promise<readonly Operation[]> {
  const { id, members } = move;
  // Whoever has stopped them may have died before it could start them again.
  const stopped = hasStoppedInVain(move) ? { stoppedByFlockAtMs: move.stepSinceMs } : {};
  const workloads = await Promise.all(members.map(({ workload }) => readWorkload(store, workload)));
  return workloads.flatMap((stored) =>
    stored?.doc.move === id
      ? [putWorkload({ ...stored.doc, ...stopped, move: null, revision: stored.doc.revision + 1 }, stored.index)]
      : [],
  );
}
