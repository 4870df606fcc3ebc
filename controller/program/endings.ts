import { constants } from 'node:os';
import type { ContainerEvent } from '../docker/source.ts';
import { FlockError } from '../model/errors.ts';
import type { Ending } from '../model/revival.ts';

/**
 * Why containers have ended, as far as Docker's events tell: Docker says which signals it was asked to send, and a process that crashes,
 * is killed from outside, or runs out of memory gets none from it.
 */
export type Endings = {
  /** Null: the events begin now, and what was before was not seen. */
  take(event: ContainerEvent | null): void;
  /**
   * This program stops it: for a move, or because it is elsewhere by now. That is no person's wish. An end that comes after Docker has answered
   * has another reason; where Docker gave none, because it hung, or could not
   * end it, it may still end by that. Throws what `ask` throws.
   */
  stop(container: string, ask: () => Promise<void>): Promise<void>;
  /** `stopSignal`: of the container, by name or number. */
  of(container: string, stopSignal: string | null): Ending;
  /** For how long the events have been seen without a break. */
  watchedMs(): number;
};

type Told = {
  readonly signals: readonly { readonly number: number; readonly atMs: number }[];
  readonly isStopped: boolean;
  readonly diedAtMs: number | null;
  /** It was started, and has not ended since. */
  readonly isStarted: boolean;
};

const untold: Told = { signals: [], isStopped: false, diedAtMs: null, isStarted: false };
/** HUP, USR1 and others mean "read your files again" to most programs. */
const ending: ReadonlySet<number> = new Set([
  constants.signals.SIGINT,
  constants.signals.SIGQUIT,
  constants.signals.SIGKILL,
  constants.signals.SIGTERM,
]);
/** A program that ends longer after a signal has another reason. */
const effectMsMax = 600_000;
const signalsMax = 8;
/** Docker's events come a little after its answers. */
const answeredMs = 5_000;
const containersMax = 10_000;
const firstRealTime = 34;

export function createEndings(bootMs: () => number): Endings {
  let told = new Map<string, Told>();
  /** Stopped by this program, until they are started again, and when that has no effect any more (boot clock). */
  const ours = new Map<string, number>();
  let sinceMs = bootMs();

  function change(container: string, change: (before: Told) => Told): void {
    const next = change(told.get(container) ?? untold);
    told.delete(container);
    told.set(container, next);
    // The oldest first.
    for (const old of told.keys()) {
      if (told.size <= containersMax) break;
      told.delete(old);
    }
  }

  return {
    take(event) {
      if (event === null) {
        told = new Map();
        sinceMs = bootMs();
        return;
      }
      const { container, action, signal } = event;
      const atMs = bootMs();
      if (action === 'start') {
        ours.delete(container);
        change(container, () => ({ ...untold, isStarted: true }));
      } else if (action === 'destroy') {
        told.delete(container);
        ours.delete(container);
      } else if (action === 'die') {
        if (atMs > (ours.get(container) ?? 0)) ours.delete(container);
        change(container, (before) => ({ ...before, diedAtMs: atMs, isStarted: false }));
      } else if (action === 'stop') change(container, (before) => ({ ...before, isStopped: true }));
      else if (action === 'kill')
        change(container, (before) => ({
          ...before,
          signals: [...before.signals, { number: Number(signal), atMs }].slice(-signalsMax),
        }));
    },
    async stop(container, ask) {
      if (ours.size >= containersMax) ours.clear();
      ours.set(container, Number.POSITIVE_INFINITY);
      let forMs = answeredMs;
      try {
        await ask();
      } catch (error) {
        if (!isRefused(error)) forMs = effectMsMax;
        throw error;
      } finally {
        if (ours.has(container)) ours.set(container, bootMs() + forMs);
      }
    },
    of(container, stopSignal) {
      if (ours.has(container)) return 'by-flock';
      const { signals, isStopped, diedAtMs, isStarted } = told.get(container) ?? untold;
      if (isStarted) return 'started';
      if (isStopped) return 'signalled';
      if (diedAtMs === null) return 'unknown';
      const own = numberOf(stopSignal);
      const isAsked = signals.some(
        ({ number, atMs }) => (ending.has(number) || number === own) && diedAtMs - atMs < effectMsMax,
      );
      return isAsked ? 'signalled' : 'by-itself';
    },
    watchedMs: () => bootMs() - sinceMs,
  };
}

/**
 * Docker has not done it, and will not: it said so, or was not there. A 500 says only that the container has not ended yet (a process in
 * state D).
 */
function isRefused(error: unknown): boolean {
  if (!(error instanceof FlockError)) return false;
  const status = error.facts['status'];
  if (typeof status === 'number') return status < serverErrorMin;
  const { cause } = error;
  return cause instanceof Error && 'code' in cause && (cause.code === 'ECONNREFUSED' || cause.code === 'ENOENT');
}

const serverErrorMin = 500;

/** `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`. */
function numberOf(signal: string | null): number | null {
  if (signal === null || signal === '') return null;
  if (/^\d+$/.test(signal)) return Number(signal);
  const name = signal.toUpperCase().replace(/^SIG/, '');
  const realTime = /^RTMIN(?:\+(\d+))?$/.exec(name);
  if (realTime !== null) return firstRealTime + Number(realTime[1] ?? 0);
  return Object.entries(constants.signals).find(([known]) => known === `SIG${name}`)?.[1] ?? null;
}
