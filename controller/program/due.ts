import type { Clock } from './home.ts';

/** When a job that has failed, or a check that was done, is due again; by the job's key. */
export type Due = {
  /** 0: it is due. */
  waitMs(key: string): number;
  /** Due again after so long. */
  done(key: string, ms: number): void;
  /** The same; each further failure doubles the time, up to `msMax`: an attempt may cost another host much. */
  failed(key: string, ms: number, msMax?: number): void;
};

/** What has not been tried for so long after it was due is not wanted any more. */
const keptMs = 600_000;

export function createDue(clock: Pick<Clock, 'bootMs'>): Due {
  /** `failedMs`: what was waited for after the last failure; 0: it has not failed. */
  const due = new Map<string, { readonly atMs: number; readonly failedMs: number }>();

  function set(key: string, ms: number, failedMs: number): void {
    const nowMs = clock.bootMs();
    for (const [other, { atMs }] of due) if (atMs + keptMs <= nowMs) due.delete(other);
    due.set(key, { atMs: nowMs + ms, failedMs });
  }

  return {
    waitMs: (key) => Math.max(0, (due.get(key)?.atMs ?? 0) - clock.bootMs()),
    done: (key, ms) => set(key, ms, 0),
    failed(key, ms, msMax = ms) {
      const failedMs = Math.min(msMax, Math.max(ms, 2 * (due.get(key)?.failedMs ?? 0)));
      set(key, failedMs, failedMs);
    },
  };
}
