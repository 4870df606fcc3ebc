import { availableParallelism } from 'node:os';
import { FlockError, messageOf, unreachable } from '../model/errors.ts';
import {
  decodeMove,
  isOver,
  type MoveDoc,
  type MoveId,
  type MoveProgress,
  type MoveStep,
  moveKeys,
  type StepOutcome,
  turnOf,
} from '../model/move.ts';
import { dutyOfMove, interruptionOf, type NodesSeen, stepLimitMs } from '../model/move-duty.ts';
import { timings } from '../model/timing.ts';
import type { ClusterView, Stored } from '../program/view.ts';
import { createLatch } from '../store/latch.ts';
import type { Entry } from '../store/store.ts';
import type { MoveTools } from './ports.ts';
import { isAt, type Records, readable, readMove } from './records.ts';
import { executors, type StepResult } from './steps.ts';
import { createTurns } from './turns.ts';

/**
 * Does this node's steps of all moves, and says of other nodes' that they are lost where those, or their controllers, are gone.
 *
 * INVARIANTS
 * - One worker for each move. It begins a step with a fresh look at the record, or with what it wrote itself last, and writes what came of it only where the record is
 *   still at that step; whatever else a worker knows may be old.
 * - A step that was interrupted (asked to turn back, its time over, the other node dead) has failed, whatever its last call did
 *   after all: the steps that follow look at what is.
 */
export type Mover = {
  /** What the store said last, by id. */
  moves(): ReadonlyMap<MoveId, MoveDoc>;
  /** Called after each change of them, at once; answers how to stop that. */
  onChange(listener: () => void): () => void;
  /** Works until the signal fires. Never rejects. A step that runs then is done again by whoever comes next. */
  run(signal: AbortSignal): Promise<void>;
};

export type MoverParts = {
  readonly tools: MoveTools;
  readonly records: Records;
  readonly view: Pick<ClusterView, 'seen' | 'onChange'>;
};

type Worker = {
  readonly id: MoveId;
  /** The record that its step began with. */
  begun: MoveDoc | null;
  interrupt: (reason: string) => void;
  /** The record as it left it itself. */
  written: Stored<MoveDoc> | null;
  /** Never rejects. */
  ended: Promise<void>;
};

/** After an interruption, for the executor to end: what it waits for has shorter limits of its own as a rule. */
const graceMs = 10_000;
/** Of Docker's own limits for a stop, which is not given up. */
const stopGraceMs = 160_000;
const graceMsOf = (step: MoveStep) => (step === 'stopping' ? stopGraceMs : graceMs);
const retryMs = 500;
/** Deaths of nodes are looked at anew at least so often. */
const lookMs = 1_000;

export function createMover({ tools, records, view }: MoverParts): Mover {
  const { node, store, clock, log } = tools;
  const workers = new Map<MoveId, Worker>();
  const listeners = new Set<() => void>();
  const latch = createLatch();
  const turns = createTurns(node, movesAtOnce(availableParallelism()), clock.nowMs);
  let moves: ReadonlyMap<MoveId, MoveDoc> = new Map();

  function take(entries: readonly Entry[]): void {
    const read = entries.flatMap((entry): Stored<MoveDoc>[] => {
      const stored = readable(entry, decodeMove);
      if (stored === null) log.error({ event: 'move.unreadable', key: entry.key }, 'a newer flock has written it');
      return stored === null ? [] : [stored];
    });
    moves = new Map(read.map(({ doc }) => [doc.id, doc]));
    turns.seen(moves);
    latch.open();
    for (const listener of listeners) listener();
  }

  function nodesSeen(): NodesSeen | null {
    const seen = view.seen();
    if (seen === null) return null;
    const { nodes, alive, deadSinceMs, silentSinceMs, profile } = seen;
    return { nodes, alive, deadSinceMs, silentSinceMs, guardMs: timings[profile].guardMs, nowBootMs: clock.bootMs() };
  }

  function look(signal: AbortSignal): void {
    const seen = nodesSeen();
    for (const doc of moves.values()) {
      const worker = workers.get(doc.id);
      if (worker !== undefined) {
        if (hasGoneOn(worker, doc)) worker.interrupt('others have gone on with it');
        const reason = seen === null || !isWorkingAt(worker, doc) ? null : interruptionOf(doc, node, seen);
        if (reason !== null) worker.interrupt(reason);
        continue;
      }
      const duty = seen === null ? dutyAlone(doc) : dutyOfMove(doc, node, seen);
      switch (duty.kind) {
        case 'work':
          start(doc.id, (one) => work(one, signal));
          break;
        case 'lost':
          start(doc.id, () => records.tellLost(doc, duty.reason));
          break;
        case 'none':
        case 'wait':
          break;
        default:
          unreachable(duty);
      }
    }
  }

  /** A host that is in no cluster, or has not seen the others yet, does its own. */
  function dutyAlone(doc: MoveDoc): { readonly kind: 'work' | 'none' } {
    return { kind: turnOf(doc) === node ? 'work' : 'none' };
  }

  function isWorkingAt({ begun }: Worker, doc: MoveDoc): boolean {
    return begun !== null && isAt(doc, begun);
  }

  /** Others have said that this node was lost. What the plugin writes while it hands over is the step's own doing. */
  function hasGoneOn({ begun }: Worker, { history }: MoveDoc): boolean {
    if (begun === null || begun.step === 'committing' || begun.step === 'returning') return false;
    return history.length > begun.history.length;
  }

  function start(id: MoveId, job: (worker: Worker) => Promise<void>): void {
    const worker: Worker = { id, begun: null, interrupt: () => undefined, written: null, ended: Promise.resolve() };
    workers.set(id, worker);
    worker.ended = job(worker)
      .catch((error: unknown) =>
        log.error({ event: 'move.worker-failed', move: id, reason: messageOf(error) }, 'begun again'),
      )
      .then(() => clock.sleep(restMs, never))
      .finally(() => {
        workers.delete(id);
        latch.open();
      });
  }

  async function work(worker: Worker, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      // What it has written itself last is as fresh as a look, for whatever is written next is compared.
      const current = worker.written ?? (await readMove(store, worker.id).catch(() => 'unknown' as const));
      if (current === 'unknown') {
        await clock.sleep(retryMs, signal);
        continue;
      }
      if (current === null || turnOf(current.doc) !== node || isOver(current.doc)) return;
      const isRepeated = worker.written === null;
      const begun = { ...current, beganAtMs: clock.nowMs() };
      const result = await attempt(worker, current.doc, isRepeated, signal);
      if (signal.aborted) return;
      worker.written = result.kind === 'written' ? null : await records.finish(begun, result, signal);
      if (result.kind !== 'written' && worker.written === null) return;
    }
  }

  /** Never rejects: whatever goes wrong is an outcome. */
  async function attempt(worker: Worker, doc: MoveDoc, isRepeated: boolean, signal: AbortSignal): Promise<StepResult> {
    const { step } = doc;
    if (step === 'done' || step === 'failed') return { kind: 'written' };
    const seen = nodesSeen();
    const hindrance = seen === null ? null : interruptionOf(doc, node, seen);
    if (hindrance !== null) return { kind: 'failed', reason: hindrance };
    const limitMs = stepLimitMs(doc, clock.nowMs());
    if (limitMs <= 0) return { kind: 'failed', reason: `${step} has taken too long` };
    const stop = new AbortController();
    const ended = AbortSignal.any([signal, stop.signal]);
    worker.begun = doc;
    worker.interrupt = (reason) => stop.abort(new FlockError('move-refused', reason));
    const over = new AbortController();
    const timer = clock.sleep(limitMs, AbortSignal.any([ended, over.signal])).then(() => {
      if (!over.signal.aborted) stop.abort(new FlockError('deadline-exceeded', `${step} has taken too long`));
    });
    const tell = (progress: MoveProgress) => records.tellProgress(doc, progress);
    const context = { tell, isRepeated, turn: turns.wait };
    try {
      // What came between the look at the record and now is seen here.
      latch.open();
      return await withGrace(executors[step](tools, doc, ended, context), ended, graceMsOf(step));
    } catch (error) {
      return failure(step, error);
    } finally {
      worker.begun = null;
      over.abort();
      await timer;
    }
  }

  function failure(step: MoveDoc['step'], error: unknown): StepOutcome {
    const reason = messageOf(error).slice(0, reasonCharactersMax);
    log.warn({ event: 'move.step-failed', step, reason }, 'a step of a move has failed');
    return { kind: 'failed', reason };
  }

  /** The executor's result; once the signal has fired, only if it comes soon. */
  async function withGrace(result: Promise<StepResult>, ended: AbortSignal, ms: number): Promise<StepResult> {
    const settled = new AbortController();
    const tooLate = new Promise<never>((_, reject) => {
      const stop = () => {
        void clock.sleep(ms, settled.signal).then(() => reject(ended.reason));
      };
      if (ended.aborted) stop();
      else ended.addEventListener('abort', stop, { once: true });
    });
    tooLate.catch(() => undefined);
    return await Promise.race([result, tooLate]).finally(() => settled.abort());
  }

  async function watch(signal: AbortSignal): Promise<void> {
    for await (const entries of store.watch(`${moveKeys.moves}/`, signal)) take(entries);
  }

  async function loop(signal: AbortSignal): Promise<void> {
    while (await latch.pass(signal)) look(signal);
  }

  async function tick(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await clock.sleep(lookMs, signal);
      turns.seen(moves);
      if ([...moves.values()].some((doc) => !isOver(doc))) latch.open();
    }
  }

  return {
    moves: () => moves,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    async run(signal) {
      const stopListening = view.onChange(() => latch.open());
      try {
        await Promise.all([watch(signal), loop(signal), tick(signal)]);
      } finally {
        stopListening();
        await Promise.all([...workers.values()].map(({ ended }) => ended));
      }
    },
  };
}

/** A move alone keeps most of two processors busy, and leaves some room in its waits. */
const movesAtOnce = (processors: number) => processors + 1;
const reasonCharactersMax = 800;
/** So that a worker that ends at once, for reasons of its own, is not begun again without a pause. */
const restMs = 20;
const never = new AbortController().signal;
