import type { Logger } from 'pino';
import type { EventLog } from '../cluster/event-log.ts';
import { swarmTaskLabel } from '../model/container-obstacles.ts';
import { messageOf } from '../model/errors.ts';
import type { InspectedWorkload } from '../model/inspected.ts';
import { backoffMs, type Revival, reviveOf } from '../model/revival.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import type { Docker } from './docker.ts';
import type { Endings } from './endings.ts';
import type { Clock } from './home.ts';

/** Watches over this node's containers that are to run, and starts them again. */
export type Reviver = {
  /** What to do about a container now. Asked at each look. */
  judge(container: InspectedWorkload, doc: WorkloadDoc): Revival;
  /** Of a container that is to be started: how long to wait before, after attempts that did not last. 0: now. */
  waitMs(containerId: string): number;
  /** Starts it, and says so. Throws `docker-failed`. */
  start(doc: WorkloadDoc, containerId: string, why: string): Promise<void>;
  /** Containers that are there no more are forgotten. */
  keep(containerIds: ReadonlySet<string>): void;
  /** How often it has started one since this program runs. */
  count(): number;
};

export type ReviverParts = {
  readonly docker: Pick<Docker, 'start'>;
  readonly endings: Endings;
  readonly events: Pick<EventLog, 'tell'>;
  readonly clock: Pick<Clock, 'bootMs'>;
  readonly log: Logger;
};

/** A start that lasted so long was a good one. */
const goodMs = 10_000;
/** What crashes each minute is told no more often: the log keeps a thousand events, of all nodes and kinds. */
const toldMs = 600_000;

type Known = {
  /** Since when it runs or does not, as far as this program has seen it (boot clock). */
  readonly isUp: boolean;
  readonly sinceMs: number;
  readonly attempts: number;
  readonly lastAttemptMs: number;
  /** When that run of it began after which Docker was about to restart it (as Docker says it). */
  readonly restartingAfter: string | null;
};

export function createReviver({ docker, endings, events, clock, log }: ReviverParts): Reviver {
  const known = new Map<string, Known>();
  let count = 0;
  /** What people were told last of a container, and how often it was started since. */
  const told = new Map<string, { readonly atMs: number; readonly since: number }>();

  function tell(id: string, name: string, text: string): void {
    const before = told.get(id);
    const nowMs = clock.bootMs();
    if (before !== undefined && nowMs - before.atMs < toldMs) {
      told.set(id, { ...before, since: before.since + 1 });
      return;
    }
    told.set(id, { atMs: nowMs, since: 0 });
    const more =
      before === undefined || before.since === 0 ? '' : ` (${before.since} times more since that was told last)`;
    events.tell('revived', name, `${text}${more}`);
  }

  function see(id: string, isUp: boolean): Known {
    const nowMs = clock.bootMs();
    const before = known.get(id) ?? { isUp, sinceMs: nowMs, attempts: 0, lastAttemptMs: 0, restartingAfter: null };
    const changed = before.isUp === isUp ? before : { ...before, isUp, sinceMs: nowMs };
    const isGood = isUp && nowMs - changed.sinceMs >= goodMs;
    const next = isGood ? { ...changed, attempts: 0 } : changed;
    known.set(id, next);
    return next;
  }

  return {
    judge({ Id, State: state, Config, HostConfig, RestartCount }, { wanted, stoppedByFlockAtMs }) {
      const isUp = state.Status === 'running' || state.Status === 'paused';
      const seen = see(Id, isUp);
      const { sinceMs } = seen;
      if (state.Status === 'restarting') known.set(Id, { ...seen, restartingAfter: state.StartedAt });
      const stopSignal = Config['StopSignal'];
      // Unless somebody has started it since.
      const isOurs = stoppedByFlockAtMs !== undefined && !(Date.parse(state.StartedAt) > stoppedByFlockAtMs);
      const ending = endings.of(Id, typeof stopSignal === 'string' ? stopSignal : null);
      return reviveOf({
        wanted,
        status: state.Status,
        exitCode: state.ExitCode,
        error: state.Error,
        policy: {
          name: HostConfig.RestartPolicy?.Name ?? 'no',
          retriesMax: HostConfig.RestartPolicy?.MaximumRetryCount ?? 0,
        },
        restartCount: RestartCount,
        wasRestarting: seen.restartingAfter === state.StartedAt,
        isOneOff: Config.AttachStdin,
        isSwarmTask: Object.hasOwn(Config.Labels ?? {}, swarmTaskLabel),
        ending: ending === 'unknown' && isOurs ? 'by-flock' : ending,
        downMs: isUp ? 0 : clock.bootMs() - sinceMs,
        watchedMs: endings.watchedMs(),
      });
    },
    waitMs(id) {
      const { attempts, lastAttemptMs } = known.get(id) ?? { attempts: 0, lastAttemptMs: 0 };
      return Math.max(0, lastAttemptMs + backoffMs(attempts) - clock.bootMs());
    },
    async start(doc, id, why) {
      const before = known.get(id);
      const attempts = (before?.attempts ?? 0) + 1;
      const nowMs = clock.bootMs();
      known.set(id, { isUp: false, sinceMs: nowMs, restartingAfter: null, ...before, attempts, lastAttemptMs: nowMs });
      try {
        await docker.start(id);
      } catch (error) {
        // What does not work is told once; the log of a container that can't start has more.
        if (attempts === 1) {
          log.warn(
            { event: 'workload.not-started', name: doc.name, reason: messageOf(error) },
            'tried again and again',
          );
          events.tell('revived', doc.name, `${why}; starting it has failed, and is tried again: ${messageOf(error)}`);
        }
        throw error;
      }
      count += 1;
      log.info({ event: 'workload.started', name: doc.name, attempts, reason: why }, 'started');
      if (attempts === 1) tell(id, doc.name, `started: ${why}`);
    },
    keep(ids) {
      for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
      for (const id of told.keys()) if (!ids.has(id)) told.delete(id);
    },
    count: () => count,
  };
}
