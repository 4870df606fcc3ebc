import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { messageOf } from '../controller/model/errors.ts';
import type { DrainReport } from './model/keys.ts';
import type { ServiceName } from './model/names.ts';
import type { DrainTunnels, ServiceDoc } from './model/records.ts';
import type { Stack } from './stack/stack.ts';

/** Drains paused services as their documents ask for, each once, and keeps the reports for as long as the pause is there. */
export type Drains = {
  /** `acknowledged`: the pauses that hold here. Before that nothing is drained: new connections would come all the time. */
  consider(services: readonly ServiceDoc[], acknowledged: readonly string[], nowMs: number): void;
  reports(): readonly DrainReport[];
  /** By `drain SERVICE`. */
  problems(): ReadonlyMap<string, string>;
};

export type DrainParts = {
  readonly drain: Stack['drain'];
  /** There is a report, or a drain has failed and can be tried again. */
  readonly onChange: () => void;
  readonly log: Logger;
  readonly retryMs?: number;
};

const retryMsDefault = 1_000;

type Wish = {
  readonly service: ServiceName;
  readonly pause: string;
  readonly untilMs: number;
  readonly tunnels: DrainTunnels;
};
type Run = { readonly wish: Wish; report: DrainReport | null; problem: string | null; isRunning: boolean };

export function createDrains({ drain, onChange, log, retryMs = retryMsDefault }: DrainParts): Drains {
  let runs: ReadonlyMap<string, Run> = new Map();

  async function start(run: Run, timeoutMs: number): Promise<void> {
    const { service, pause, untilMs, tunnels: mode } = run.wish;
    run.isRunning = true;
    try {
      const { requests, tunnels, tunnelsClosed } = await drain(service, pause, timeoutMs, mode);
      run.report = { pause, untilMs, requests, tunnels, tunnelsClosed };
      run.problem = null;
      log.info({ event: 'service.drained', service, ...run.report }, 'what was in flight has ended or was ended');
    } catch (error) {
      run.problem = `service ${service} could not be drained: ${messageOf(error)}`;
      log.warn({ event: 'service.not-drained', service, reason: messageOf(error) }, 'tried again');
      await sleep(retryMs, undefined, { ref: false });
    } finally {
      run.isRunning = false;
      if (runs.get(keyOf(run.wish)) === run) onChange();
    }
  }

  return {
    consider(services, acknowledged, nowMs) {
      const wishes = services.flatMap(wishOf);
      runs = new Map(
        wishes.map((wish) => [
          keyOf(wish),
          runs.get(keyOf(wish)) ?? { wish, report: null, problem: null, isRunning: false },
        ]),
      );
      for (const run of runs.values()) {
        if (run.isRunning || run.report !== null || !acknowledged.includes(run.wish.pause)) continue;
        void start(run, Math.max(0, run.wish.untilMs - nowMs));
      }
    },
    reports: () => [...runs.values()].flatMap(({ report }) => report ?? []),
    problems: () =>
      new Map(
        [...runs.values()].flatMap(({ wish, problem }) =>
          problem === null ? [] : [[`drain ${wish.service}`, problem] as const],
        ),
      ),
  };
}

function wishOf({ name: service, pause }: ServiceDoc): readonly Wish[] {
  if (pause === null || pause.drain === null) return [];
  const { untilMs, tunnels } = pause.drain;
  return [{ service, pause: pause.id, untilMs, tunnels }];
}

function keyOf({ service, pause, untilMs, tunnels }: Wish): string {
  return `${service} ${pause} ${untilMs} ${tunnels}`;
}
