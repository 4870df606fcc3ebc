import { isCommitted, isOver, type MoveDoc, type MoveStep } from './move.ts';
import type { NodeName } from './names.ts';
import { formatSize } from './quantity.ts';

/** What became of a move, in a line for people. Pure. */

/** From the first of these to the last, a service with routes is paused; without routes it is away from `stopping` on. */
const pausedSteps: readonly MoveStep[] = ['pausing', 'draining', 'stopping', 'committing', 'starting', 'releasing'];
const awaySteps: readonly MoveStep[] = ['stopping', 'committing', 'starting'];

/** How long clients had to wait, or the containers did not run, milliseconds; null: it did not get that far. */
export function pauseMsOf({ history, services }: MoveDoc): number | null {
  const steps = services.length > 0 ? pausedSteps : awaySteps;
  const lines = history.filter(({ step }) => steps.includes(step));
  return lines.some(({ step }) => step === 'stopping') ? lines.reduce((sum, { ms }) => sum + ms, 0) : null;
}

/** `web from n1 to n2: 1.2 s pause, 34 MiB sent`. */
export function summaryOf(doc: MoveDoc): string {
  const { service, from, to, failure, progress, volumes } = doc;
  const way = `${service} from ${from} to ${to}`;
  if (failure !== null) {
    const place = isOver(doc) ? ` (it is on ${placeOf(doc)})` : '';
    return `${way} has failed at ${failure.step}: ${failure.reason}${place}`;
  }
  if (!isCommitted(doc)) return way;
  const pauseMs = pauseMsOf(doc);
  const parts = [
    pauseMs === null
      ? null
      : doc.services.length > 0
        ? `${formatSeconds(pauseMs)} pause`
        : `away for ${formatSeconds(pauseMs)}`,
    volumes.length === 0 ? null : `${formatSize(progress?.sentBytes ?? 0)} sent`,
  ].filter((part) => part !== null);
  return parts.length === 0 ? way : `${way}: ${parts.join(', ')}`;
}

/** Where the volumes are, and the containers belong: at the target from the commit on, unless that was taken back. */
export function placeOf({ from, to, step, history }: MoveDoc): NodeName {
  const done = new Set([...history.map((line) => line.step), step]);
  return done.has('starting') && !done.has('restoring') ? to : from;
}

export function formatSeconds(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`;
}
