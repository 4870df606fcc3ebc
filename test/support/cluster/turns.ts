import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Heard } from './log-followers.ts';
import { type Members, volumeOf } from './members.ts';
import { entriesIn } from './records.ts';

/** Who owns a volume and who writes to it, one after the other. */

export type OwnersSeen = {
  /** One for each epoch that was seen. */
  seen(): readonly string[];
  stop(): Promise<void>;
};

/** Much shorter than any owner stays: the next one waits for the guard. */
const lookMs = 200;

export function followOwners(members: Members, volume: string): OwnersSeen {
  const owners = new Map<number, string>();
  let isOver = false;
  const look = async () => {
    const { doc } = await volumeOf(members, volume);
    owners.set(doc.epoch, doc.owner);
  };
  const looking = (async () => {
    for (; !isOver; await sleep(lookMs)) await look().catch(() => {});
  })();
  return {
    seen: () => [...owners].sort(([a], [b]) => a - b).map(([, owner]) => owner),
    async stop() {
      isOver = true;
      await looking;
      await look();
    },
  };
}

/** The nodes that wrote what a volume has, in its order; none is named twice in a row. Pure. */
export function writersIn(text: string): readonly string[] {
  const nodes = entriesIn(text).map(({ node }) => node);
  return nodes.filter((node, index) => node !== nodes[index - 1]);
}

/** What speaks against one writer at a time, which was the owner of then, in words. Pure. */
export function checkTurns(text: string, owners: readonly string[]): readonly string[] {
  const entries = entriesIn(text);
  const faults = entries.flatMap((entry, index) => {
    const last = entries[index - 1];
    return last === undefined || last.bootSeconds <= entry.bootSeconds
      ? []
      : [
          `record ${entry.number} is of ${entry.node} at ${entry.bootSeconds}, the one before it of ${last.node} at ${last.bootSeconds}`,
        ];
  });
  const writers = writersIn(text);
  let next = 0;
  for (const owner of owners) if (owner === writers[next]) next += 1;
  if (next < writers.length)
    faults.push(`${writers.join(', ')} have written, one after the other, and the owners were ${owners.join(', ')}`);
  return faults;
}

/** How long a host that stood still as a whole may write after it has woken up: until its own fence and watchdog have had their turn. */
export const wakeSecondsMax = 3;

/**
 * A container that has once made place for another one, on whichever host, writes no more; but what one writes right after its host has
 * woken up, which nothing can prevent. That must be kept apart, as whoever calls this has made sure (`checkRecords`).
 */
export function assertInTurns(all: readonly Heard[], wakesOf: (node: string) => readonly number[] = () => []): void {
  const heard = all.filter(
    ({ node, bootSeconds: at }) => !wakesOf(node).some((wake) => at >= wake && at < wake + wakeSecondsMax),
  );
  const runs = [...Map.groupBy(heard, ({ id }) => id).values()].map((entries) => {
    const times = entries.map(({ bootSeconds: at }) => at);
    return { node: entries[0]?.node, from: Math.min(...times), to: Math.max(...times) };
  });
  const sorted = runs.toSorted((a, b) => a.from - b.from);
  const overlaps = sorted.flatMap((run, index) => {
    const next = sorted[index + 1];
    return next === undefined || run.to < next.from ? [] : [{ run, next }];
  });
  assert.deepEqual(overlaps, []);
}
