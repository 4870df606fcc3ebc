import type { Scheduler } from './scheduler.ts';

/**
 * The border of one simulated process: whatever comes in from outside (timers, answers, calls) passes here, so that nothing of it
 * runs while it is stopped (SIGSTOP), and nothing ever again after it was killed.
 */
export type Gate = {
  isRunning(): boolean;
  isDead(): boolean;
  /** Now, when the process goes on, or never. */
  deliver(run: () => void): void;
  /** The same promise as the process sees it. */
  pass<T>(work: Promise<T>): Promise<T>;
  /** Something that the process does itself; throws in a dead one, which would be a fault of the simulation. */
  own<T>(work: () => T): T;
  pause(): void;
  resume(): void;
  kill(): void;
  onDeath(run: () => void): void;
};

export function createGate(scheduler: Scheduler): Gate {
  let state: 'running' | 'paused' | 'dead' = 'running';
  let waiting: (() => void)[] = [];
  const mourners: (() => void)[] = [];

  function deliver(run: () => void): void {
    if (state === 'running') run();
    else if (state === 'paused') waiting.push(run);
  }

  return {
    isRunning: () => state === 'running',
    isDead: () => state === 'dead',
    deliver,
    pass: (work) =>
      new Promise((resolve, reject) => {
        work.then(
          (value) => deliver(() => resolve(value)),
          (error: unknown) => deliver(() => reject(error)),
        );
      }),
    own(work) {
      if (state === 'dead') throw new Error('simulation: a dead process acts');
      return work();
    },
    pause() {
      if (state === 'running') state = 'paused';
    },
    resume() {
      if (state !== 'paused') return;
      state = 'running';
      const late = waiting;
      waiting = [];
      // One after the other, as an event loop takes them, each with all that follows from it.
      for (const run of late) scheduler.after(0, () => deliver(run));
    },
    kill() {
      state = 'dead';
      waiting = [];
      for (const run of mourners.splice(0)) run();
    },
    onDeath(run) {
      mourners.push(run);
    },
  };
}
