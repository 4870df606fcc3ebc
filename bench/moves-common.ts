import type { ClusterHost } from '../test/support/cluster/cluster-host.ts';
import { answersFrom, type Counter, startCounter } from '../test/support/cluster/counting.ts';
import { copiesOf, type Members } from '../test/support/cluster/members.ts';
import { known } from '../test/support/cluster/moving.ts';
import { until } from '../test/support/until.ts';

/** What the measures of moves and failovers begin with. */

export const seconds = (value: number) => `${value.toFixed(1)} s`;
export const copies = ['replicas=2', 'failover=auto'];

export async function start(
  members: Members,
  counter: Counter,
  at: ClusterHost,
  options: readonly string[],
  run: readonly string[] = [],
) {
  await startCounter(at, counter, { volume: options, run });
  await known(members, at, counter.name);
  await answersFrom(members.cluster.hosts, counter, at.name);
}

/** Until as many copies have all that the volume has. */
export async function inSync(members: Members, { volume }: Counter, count: number): Promise<void> {
  await until(`${volume} has ${count} copies`, 120_000, async () => {
    const found = (await copiesOf(members.n(1))).filter((copy) => copy.volume === volume && copy.snapshot !== null);
    return found.length === count && found.every(({ state }) => state === 'in-sync') ? true : undefined;
  });
}
