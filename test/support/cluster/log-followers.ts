import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { entryKey } from './lost-records.ts';
import type { Members } from './members.ts';
import { workloadsOf } from './moving.ts';
import { type Acknowledgement, parseAcknowledgement } from './records.ts';

/**
 * Hears what writers acknowledge wherever they run, from the beginning of each of their containers to its end: a container that has
 * moved is removed with its log.
 */
export type LogFollowers = {
  /** All that was heard of a writer's container so far, of whatever host. */
  heard(container: string): readonly Heard[];
  stop(): Promise<void>;
};

/** `id`: of the container. */
export type Heard = Acknowledgement & { readonly id: string };

const lookMs = 300;

export function followWriters(members: Members, containers: readonly string[]): LogFollowers {
  const heard = new Map(containers.map((name) => [name, new Map<string, Heard>()]));
  const stop = new AbortController();
  /** Ids of containers that are listened to now. */
  const followed = new Map<string, Promise<void>>();

  async function follow(name: string, id: string, dockerUrl: string): Promise<void> {
    const child = spawn('/usr/bin/docker', ['-H', dockerUrl, 'logs', '-f', id], {
      stdio: ['ignore', 'pipe', 'ignore'],
      signal: stop.signal,
    });
    child.on('error', () => {});
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => {
      const entry = parseAcknowledgement(line);
      if (entry !== null) heard.get(name)?.set(entryKey(entry), { ...entry, id });
    });
    await once(lines, 'close');
    await sleep(lookMs);
  }

  async function look(): Promise<void> {
    for (const { name, node, containerId } of await workloadsOf(members)) {
      const host = members.cluster.hosts.find((one) => one.name === node);
      if (!heard.has(name) || containerId === null || host === undefined || followed.has(containerId)) continue;
      const following = follow(name, containerId, host.dockerUrl).finally(() => followed.delete(containerId));
      followed.set(containerId, following);
    }
  }

  const looking = (async () => {
    while (!stop.signal.aborted) {
      await look().catch(() => {});
      await sleep(lookMs);
    }
  })();
  return {
    heard: (container) => [...(heard.get(container)?.values() ?? [])],
    async stop() {
      stop.abort();
      await looking;
      await Promise.allSettled(followed.values());
    },
  };
}
