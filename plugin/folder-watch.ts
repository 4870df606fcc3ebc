import { setTimeout as sleep } from 'node:timers/promises';
import type { DockerView } from './docker-view.ts';

/** After a start, when the daemon may yet take the folder away; later it is looked at for operators who do. */
const earlyMs = 1_000;
const early = 60;
const lateMs = 10_000;

/**
 * Watches whether Docker's daemon has the folder that it shares with this plugin, and tells once when it has it no more. One that never
 * had it is not told of: then each mount says so itself, and starting anew would go on for ever.
 */
export async function watchFolder(
  view: Pick<DockerView, 'sharesFolder'>,
  onGone: () => void,
  signal: AbortSignal,
): Promise<void> {
  let hadIt = false;
  for (let count = 0; !signal.aborted; count += 1) {
    const hasIt = await view.sharesFolder();
    if (hasIt === true) hadIt = true;
    if (hasIt === false && hadIt) return onGone();
    await sleep(count < early ? earlyMs : lateMs, undefined, { signal }).catch(() => undefined);
  }
}
