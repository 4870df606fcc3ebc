import { createLatch } from '../../controller/store/latch.ts';
import type { Context } from '../volumes/context.ts';
import { limitVolumes } from '../volumes/limit.ts';
import type { Retreat } from './retreat.ts';

export type Limiting = {
  /** A volume has come here. */
  wake(): void;
  run(signal: AbortSignal): Promise<void>;
};

/** Limits volumes that have come here, beside everything else: a slow pool must keep nobody waiting with this. Sweeps do what fails. */
export function createLimiting(
  context: Pick<Context, 'storage' | 'state' | 'locks' | 'log'>,
  retreat: Pick<Retreat, 'fault'>,
): Limiting {
  const latch = createLatch();
  return {
    wake: latch.open,
    async run(signal) {
      while (await latch.pass(signal)) if (retreat.fault() === null) await limitVolumes(context, signal);
    },
  };
}
