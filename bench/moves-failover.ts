import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterHost } from '../test/support/cluster/cluster-host.ts';
import { leaderAddress } from '../test/support/cluster/consul-server.ts';
import { type Counter, counterOf, whereIs } from '../test/support/cluster/counting.ts';
import { type Members, volumeOf } from '../test/support/cluster/members.ts';
import { move, workloadsOf } from '../test/support/cluster/moving.ts';
import { entriesBelow } from '../test/support/cluster/store-entries.ts';
import { until } from '../test/support/until.ts';
import { median } from './measure.ts';
import { copies, inSync, seconds, start } from './moves-common.ts';
import { figureRow, type Row } from './report.ts';

const failoverRounds = 8;
/** So long a volume is not taken by itself again (docs/design.md, failover). */
const calmMs = 61_000;

/** From a host's death to the service's next answer, and what of it took how long. */
export async function failover(members: Members, secondsMax: number): Promise<readonly Row[]> {
  const counter = counterOf('web');
  await start(members, counter, members.n(1), copies);
  const rounds: Readonly<Record<'detect' | 'takeover' | 'start' | 'total', number>>[] = [];
  for (let round = 0; round < failoverRounds; round += 1) {
    // Every second host that dies takes Consul's leader with it.
    if (round % 2 === 1) await moveToLeader(members, counter);
    await inSync(members, counter, 2);
    if (round > 0) await sleep(calmMs);
    rounds.push(await failoverOnce(members, counter));
  }
  const column = (name: 'detect' | 'takeover' | 'start' | 'total') => rounds.map((round) => round[name] / 1000);
  const row = (what: string, name: 'detect' | 'takeover' | 'start') =>
    figureRow(`${what}, median`, median(column(name)), seconds, null);
  return [
    row('until the session is over', 'detect'),
    row('from then until the volume has another owner (guard and transaction)', 'takeover'),
    row('from then until the first answer (mount, container, routes)', 'start'),
    figureRow(`failover in all, median of ${rounds.length}`, median(column('total')), seconds, null),
    figureRow('failover in all, longest', Math.max(...column('total')), seconds, { max: secondsMax }),
  ];
}

const leaderOf = async ({ cluster }: Members): Promise<ClusterHost | undefined> => {
  const address = await leaderAddress(cluster.hosts.map(({ server }) => server));
  return cluster.hosts.find((host) => host.address === address);
};

const placeOf = async (members: Members, counter: Counter): Promise<ClusterHost | undefined> => {
  const node = (await workloadsOf(members)).find(({ name }) => name === counter.name)?.node;
  return members.cluster.hosts.find(({ name }) => name === node);
};

async function moveToLeader(members: Members, counter: Counter): Promise<void> {
  const leader = await until('Consul has a leader', 60_000, () => leaderOf(members));
  if ((await placeOf(members, counter)) === leader) return;
  // Moves are refused while the last host that died is not a full member again.
  await until(`${counter.name} is moved to ${leader.name}`, 120_000, () =>
    move(members, leader, counter.name, leader).catch(() => undefined),
  );
}

async function failoverOnce(members: Members, counter: Counter) {
  const { cluster } = members;
  const victim = (await placeOf(members, counter)) ?? members.n(1);
  const rest = cluster.hosts.filter((host) => host !== victim);
  const asker = rest[0] ?? members.n(2);
  const isLeader = (await leaderOf(members)) === victim;
  const startMs = performance.now();
  const since = () => performance.now() - startMs;
  await victim.kill();
  const detect = await until('its session is over', 60_000, async () => {
    const alive = await entriesBelow({ hosts: rest }, `alive/${victim.name}`).catch(() => null);
    return alive?.every(({ session }) => session === null) ? since() : undefined;
  });
  const takeover = await until('another one owns the volume', 60_000, async () => {
    const found = await volumeOf({ ...members, cluster: { ...cluster, hosts: rest } }, counter.volume).catch(
      () => null,
    );
    return found !== null && found.doc.owner !== victim.name ? since() : undefined;
  });
  const total = await until('it answers', 60_000, async () =>
    (await whereIs(asker, counter)) === null ? undefined : since(),
  );
  console.log(`${victim.name} was killed${isLeader ? ', and Consul’s leader with it' : ''}: ${seconds(total / 1000)}`);
  await victim.boot();
  await cluster.waitForConsul();
  return { detect, takeover: takeover - detect, start: total - takeover, total };
}
