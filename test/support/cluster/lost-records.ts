import assert from 'node:assert/strict';
import { until } from '../until.ts';
import type { ClusterHost } from './cluster-host.ts';
import { acknowledgedBefore, stashesOf } from './members.ts';
import { type Acknowledgement, type Entry, readRecords, type Writer } from './records.ts';

export const entryKey = ({ number, node, bootSeconds: at }: Entry) => `${number} ${node} ${at.toFixed(2)}`;

/**
 * What a takeover has left out of a volume: all of it is in stashes, and none of it was replicated before the takeover. `at`: the
 * volume's owner, where the stashes become volumes.
 */
export async function assertRescued(at: ClusterHost, writer: Writer, lost: readonly Acknowledgement[]): Promise<void> {
  const rescued = new Set<string>();
  const mayMiss = new Set<string>();
  const seen = new Set<string>();
  let nowhere: readonly Acknowledgement[] = lost;
  // A node that is no longer to hold a copy keeps what it has for half a minute before it makes a stash of it.
  await until(`all lost records of ${writer.volume} are in stashes`, 90_000, async () => {
    const stashes = (await stashesOf(at)).filter(({ id, volume }) => volume === writer.volume && !seen.has(id));
    for (const stash of stashes) {
      const name = `${writer.volume}-stash-${seen.size}`;
      seen.add(stash.id);
      await at.flockctl('stash', 'restore', stash.id, name);
      const found = await readRecords(at, { ...writer, volume: name });
      const lines = new Set(found.split('\n'));
      const before = stash.common === null ? [] : await acknowledgedBefore(lost, stash.common);
      for (const entry of lost.filter((one) => lines.has(entryKey(one)))) {
        rescued.add(entryKey(entry));
        if (!before.includes(entry)) mayMiss.add(entryKey(entry));
      }
    }
    nowhere = lost.filter((entry) => !rescued.has(entryKey(entry)));
    return nowhere.length === 0 ? true : undefined;
  }).catch((error: unknown) => {
    assert.deepEqual(nowhere, [], `records of ${writer.volume} are nowhere, not in its ${seen.size} stashes`);
    throw error;
  });
  assert.deepEqual(
    lost.filter((entry) => !mayMiss.has(entryKey(entry))),
    [],
    'records that were replicated before a takeover are only in a stash',
  );
}
