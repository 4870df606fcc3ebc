/** What can be wrong with the cables between hosts, as data; hosts are numbers from 1. */
export type NetworkFault =
  /** Nothing gets from one host to the other, or nothing of these ports; ARP does, so that it is not noticed by that. */
  | { readonly kind: 'cut'; readonly from: number; readonly to: number; readonly ports: 'all' | 'consul' }
  /** This share of what the host sends and receives is dropped. */
  | { readonly kind: 'loss'; readonly host: number; readonly percent: number };

/** The bridge's port of a host. */
export function portOf(host: number): string {
  return `p${host}`;
}

export const table = 'flock_faults';

/** Consul's RPC, gossip in the data center and between them, and its HTTP. */
const consulPorts = '{ 8300-8302, 8500 }';

/** nftables' text that puts these faults in the place of all before, in one transaction. Pure. */
export function renderFaults(faults: readonly NetworkFault[]): string {
  const rules = faults.flatMap(renderFault);
  return [
    // Declared first, because only a table that is there can be deleted.
    `table bridge ${table} {}`,
    `delete table bridge ${table}`,
    `table bridge ${table} {`,
    'chain forward {',
    'type filter hook forward priority 0',
    ...rules,
    '}',
    '}',
  ].join('\n');
}

function renderFault(fault: NetworkFault): readonly string[] {
  switch (fault.kind) {
    case 'cut': {
      const between = `iifname ${portOf(fault.from)} oifname ${portOf(fault.to)}`;
      if (fault.ports === 'all') return [`${between} ether type != arp drop`];
      // A connection has the port at the end that was called, whichever end sends.
      return ['dport', 'sport'].map((end) => `${between} meta l4proto { tcp, udp } th ${end} ${consulPorts} drop`);
    }
    case 'loss':
      return ['iifname', 'oifname'].map(
        (side) => `${side} ${portOf(fault.host)} numgen random mod 100 < ${fault.percent} drop`,
      );
  }
}

/** Both ways between each of one and each of the other. Pure. */
export function cuts(
  one: readonly number[],
  other: readonly number[],
  ports: 'all' | 'consul' = 'all',
): readonly NetworkFault[] {
  return [...oneWayCuts(one, other, ports), ...oneWayCuts(other, one, ports)];
}

/** Nothing gets from each of one to each of the other. Pure. */
export function oneWayCuts(
  one: readonly number[],
  other: readonly number[],
  ports: 'all' | 'consul' = 'all',
): readonly NetworkFault[] {
  return one.flatMap((from) =>
    other.filter((to) => to !== from).map((to) => ({ kind: 'cut', from, to, ports }) as const),
  );
}
