import type { WorkloadDoc } from './workload.ts';

/**
 * What becomes of a workload whose container runs or does not run on its own node (M6): what a person stopped stays stopped, what ended
 * by itself although it was to run is started again, and where Docker itself restarts it, it is left to Docker. Pure.
 */
export type RevivalFacts = {
  readonly wanted: WorkloadDoc['wanted'];
  /** Docker's word: created, running, paused, restarting, exited ... */
  readonly status: string;
  readonly exitCode: number;
  /** Docker could not start it the last time, and why. */
  readonly error: string;
  readonly policy: { readonly name: string; readonly retriesMax: number };
  /** How often Docker itself has restarted it since somebody started it. */
  readonly restartCount: number;
  /** It has been seen `restarting` since it ended: Docker was about to start it again. */
  readonly wasRestarting: boolean;
  /** A terminal or a pipe was its input: its end is the end of somebody's work. */
  readonly isOneOff: boolean;
  /** Swarm alone starts and replaces it. */
  readonly isSwarmTask: boolean;
  readonly ending: Ending;
  /** For how long it has been seen down. */
  readonly downMs: number;
  /** For how long Docker's events have been seen without a break: not longer than Docker and this program run. */
  readonly watchedMs: number;
};

export type Ending =
  /** Docker was asked to send it a signal, or to stop it. */
  | 'signalled'
  | 'by-itself'
  /** A controller has stopped it, for a move that came to nothing. */
  | 'by-flock'
  /** None: it was started, and what Docker said of it is older than that. */
  | 'started'
  /** It was not seen. */
  | 'unknown';

export type Revival =
  /** It is as it should be. */
  | { readonly kind: 'none' }
  | { readonly kind: 'wanted'; readonly wanted: WorkloadDoc['wanted']; readonly why: string }
  | { readonly kind: 'start'; readonly why: string }
  | { readonly kind: 'wait'; readonly ms: number };

/**
 * From the end to the judgement. Docker that is being shut down signals all containers, and this program too: by then it has ended, and
 * has not taken that for a person's wish.
 */
const settleMs = 2_000;
/** Without a signal: one that was sent is told at once, but not always before the end. */
const settleByItselfMs = 300;
/** Docker needs so long at most to begin restarting what it restarts. */
const dockerTurnMs = 5_000;
/** At its own start, with many containers. */
const dockerStartMs = 15_000;

export function reviveOf(facts: RevivalFacts): Revival {
  const { wanted, status, policy, isSwarmTask } = facts;
  if (status === 'running' || status === 'paused' || status === 'restarting')
    return wanted === 'running' ? { kind: 'none' } : { kind: 'wanted', wanted: 'running', why: 'it was started' };
  if (wanted === 'stopped') return { kind: 'none' };
  if (isSwarmTask) return stopped('Swarm looks after it');
  if (status === 'created') return { kind: 'start', why: 'it was made and is to run' };
  // Docker is about to remove it.
  if (status !== 'exited') return { kind: 'none' };
  const isOld = facts.ending === 'started' && facts.downMs < dockerTurnMs;
  if (isOld) return { kind: 'wait', ms: settleMs };
  // Docker drops events for whoever does not read them: its end was not told.
  const ending = facts.ending === 'started' ? 'unknown' : facts.ending;
  const settledMs = ending === 'by-itself' ? settleByItselfMs : settleMs;
  if (facts.downMs < settledMs) return { kind: 'wait', ms: settledMs - facts.downMs };
  if (ending === 'by-flock') return { kind: 'start', why: 'a move had stopped it' };
  // Whoever has stopped it wanted it started after that, and Docker could not.
  if (ending === 'signalled' && facts.error === '') return stopped('a person stopped it');
  if (facts.error !== '') return { kind: 'start', why: `Docker could not start it: ${facts.error}` };
  // Docker tells nobody of `docker kill` of a container that is down and about to be restarted; nothing else keeps it from that.
  if (ending === 'by-itself' && facts.wasRestarting)
    return stopped('a person stopped it before Docker started it again');
  if (facts.isOneOff) return stopped('it has ended, and so has what it was attached to');
  const why = `it had ended by itself with code ${facts.exitCode}`;
  if (policy.name === '' || policy.name === 'no') {
    if (facts.exitCode === 0 && ending === 'by-itself') return stopped('it has finished');
    return { kind: 'start', why };
  }
  if (policy.name === 'on-failure') {
    // Docker that is shut down has most programs end like this, and does not start these again.
    if (facts.exitCode === 0) return ending === 'by-itself' ? stopped('it has finished') : { kind: 'start', why };
    if (policy.retriesMax > 0 && facts.restartCount >= policy.retriesMax)
      return stopped(`it has failed as often as its restart policy allows (${policy.retriesMax})`);
  }
  if (ending === 'unknown') {
    // Docker starts what it finds down and was to run, unless a person had stopped it.
    return facts.watchedMs < dockerStartMs
      ? { kind: 'wait', ms: dockerStartMs - facts.watchedMs }
      : stopped('Docker did not start it again at its own start: a person had stopped it');
  }
  return facts.downMs < dockerTurnMs ? { kind: 'wait', ms: dockerTurnMs - facts.downMs } : { kind: 'start', why };
}

function stopped(why: string): Revival {
  return { kind: 'wanted', wanted: 'stopped', why };
}

const firstMs = 1_000;
const longestMs = 60_000;

/** How long to wait with the next attempt after so many that did not last. */
export function backoffMs(attempts: number): number {
  return attempts === 0 ? 0 : Math.min(longestMs, firstMs * 2 ** Math.min(attempts - 1, 16));
}
