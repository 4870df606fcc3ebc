import { setTimeout as sleep } from 'node:timers/promises';
import { leaderAddress } from '../test/support/cluster/consul-server.ts';
import { type Counter, counterOf, whereIs } from '../test/support/cluster/counting.ts';
import { type Members, volumeOf } from '../test/support/cluster/members.ts';
import { workloadsOf } from '../test/support/cluster/moving.ts';
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

async function failoverOnce(members: Members, counter: Counter) {
  const { cluster } = members;
  const placed = (await workloadsOf(members)).find(({ name }) => name === counter.name)?.node;
  const victim = cluster.hosts.find(({ name }) => name === placed) ?? members.n(1);
  const rest = cluster.hosts.filter((host) => host !== victim);
  const asker = rest[0] ?? members.n(2);
  const leader = await leaderAddress(cluster.hosts.map(({ server }) => server));
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
  console.log(
    `${victim.name} was killed${leader === victim.address ? ', and Consul’s leader with it' : ''}: ${seconds(total / 1000)}`,
  );
  await victim.boot();
  await cluster.waitForConsul();
  return { detect, takeover: takeover - detect, start: total - takeover, total };
}
