import { z } from 'zod';
import { FlockError, hasCode } from '../model/errors.ts';
import type { FormerContainer, WorkloadDoc } from '../model/workload.ts';
import type { Docker } from './docker.ts';

/** What happens to a container of this node whose workload is elsewhere by now. */

type AwayDocker = Pick<Docker, 'inspect' | 'stop' | 'remove' | 'rename' | 'setRestartPolicy'>;

const inspectedSchema = z.object({
  Name: z.string().transform((name) => name.replace(/^\//, '')),
  State: z.object({ Status: z.string() }),
});
const namesMax = 100;
/** What it would still write is lost: its volumes are elsewhere. */
const stopSecondsMax = 60;

/**
 * Moved: all of it is elsewhere, so it goes. Left: its node was dead, so what it printed and had in its own file system stays, stopped,
 * under another name. May be repeated. Answers what was done, for people; null: there is no such container any more.
 */
export async function putAway(
  docker: AwayDocker,
  workload: WorkloadDoc,
  former: Pick<FormerContainer, 'containerId' | 'why'>,
): Promise<string | null> {
  const { containerId: id, why } = former;
  const found = inspectedSchema.safeParse(await docker.inspect(id));
  if (!found.success) return null;
  const { Name: name, State: state } = found.data;
  if (why === 'left') await docker.setRestartPolicy(id, 'no');
  if (state.Status !== 'created' && state.Status !== 'exited')
    await docker.stop(id, Math.min(workload.spec.stopSeconds, stopSecondsMax));
  const where = `its workload is on ${workload.node} since it was moved there`;
  if (why === 'moved') {
    await docker.remove(id);
    return `removed: ${where}`;
  }
  const base = `${workload.name}.left-${workload.epoch}`;
  if (name.startsWith(`${workload.name}.left-`)) return `stopped: it was put away as ${name} before`;
  return `stopped, and kept as ${await renamed(docker, id, base)}: its workload is on ${workload.node} now`;
}

/** The first free name. */
async function renamed(docker: AwayDocker, id: string, base: string): Promise<string> {
  for (let number = 1; number <= namesMax; number += 1) {
    const name = number === 1 ? base : `${base}-${number}`;
    try {
      await docker.rename(id, name);
      return name;
    } catch (error) {
      if (!hasCode(error, 'docker-failed') || error.facts['status'] !== 409) throw error;
    }
  }
  throw new FlockError(
    'docker-failed',
    `container ${id.slice(0, 12)} can't be put away: ${base} and ${namesMax - 1} names like it are taken. Remove old ones (docker rm)`,
  );
}
