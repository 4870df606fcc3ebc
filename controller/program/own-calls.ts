import type { Docker } from './docker.ts';
import type { Endings } from './endings.ts';

/**
 * Docker as this program calls it: what it stops counts as no person's wish, and is stopped or removed only when Docker has answered, or
 * given up, what it was asked to start. Docker that stood still reads what it was asked meanwhile in any order, and a container that does
 * not run yet would be started after its stop.
 */
export function createOwnCalls(docker: Docker, endings: Pick<Endings, 'stop'>): Docker {
  const starting = new Map<string, Promise<void>>();

  async function started(id: string): Promise<void> {
    for (let pending = starting.get(id); pending !== undefined; pending = starting.get(id)) await pending;
  }

  return {
    ...docker,
    async start(id) {
      const before = starting.get(id);
      const asked = docker.start(id);
      const settled = Promise.allSettled([before, asked]).then(() => {
        if (starting.get(id) === settled) starting.delete(id);
      });
      starting.set(id, settled);
      await asked;
    },
    async stop(id, seconds) {
      await started(id);
      await endings.stop(id, () => docker.stop(id, seconds));
    },
    async remove(id) {
      await started(id);
      await docker.remove(id);
    },
  };
}
