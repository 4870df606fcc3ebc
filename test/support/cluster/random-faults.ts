import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../../simulation/random.ts';
import type { Daemon } from './cluster-host.ts';
import { isolate, type Members, others } from './members.ts';

/** What may happen to a random host for a while. `heal` of the cluster ends it. */
export type Fault = { readonly what: string; readonly work: () => Promise<unknown> };

const longShare = 0.35;

export function faultsOf(current: Members, random: Random): readonly Fault[] {
  const { cluster, backend } = current;
  const host = random.pick(cluster.hosts);
  const rest = others(cluster, host);
  // Some last long enough for others to take over what the host has.
  const ms = random.chance(longShare) ? random.whole(10_000, 20_000) : random.whole(500, 5_500);
  const daemons: readonly Daemon[] = [
    'plugin',
    'plugin',
    'docker',
    'consul',
    ...(backend === 'zfs' ? ['zfs-fuse' as const] : []),
  ];
  const daemon = random.pick(daemons);
  const during = (what: string, work: () => Promise<unknown>): Fault => ({
    what: `${what} for ${ms} ms`,
    work: async () => {
      await work();
      await sleep(ms);
    },
  });
  return [
    during(`${daemon} of ${host.name} is killed`, () => host.killDaemon(daemon)),
    during(`${daemon} of ${host.name} stands still`, () => host.freezeDaemon(daemon)),
    during(`${host.name} stands still`, () => host.freeze()),
    during(`${host.name} is dead`, () => host.kill()),
    during(`${host.name} is cut off`, () => isolate(current, host)),
    during(`${host.name} is cut off from Consul`, () => cluster.network.partitionConsul([host.number], rest)),
    during(`${host.name} is not heard`, () => cluster.network.partitionOneWay([host.number], rest)),
    during(`${host.name} loses packets`, () => cluster.network.loss(host.number, 30)),
    during(`${host.name} is cut off and its plugin killed`, async () => {
      await isolate(current, host);
      await host.killDaemon('plugin');
    }),
  ];
}
