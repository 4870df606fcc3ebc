import { linksOf, serviceOf } from './workload-labels.ts';

/** Containers of one host that reach each other by name, as Docker does it in a bridge network: that ends at the host. Pure. */
export type Neighbour = {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Names of the user-defined networks of this host that it is in. */
  readonly networks: readonly string[];
};

const namedMax = 6;

/** What people should know before the group goes: who stays and shares a network with it, and has no link that leads to the other. */
export function partings(group: readonly Neighbour[], staying: readonly Neighbour[]): readonly string[] {
  return group.flatMap((one) => {
    const left = staying.filter((other) => sharedBy(one, other).length > 0 && !areLinked(one, other));
    if (left.length === 0) return [];
    const networks = [...new Set(left.flatMap((other) => sharedBy(one, other)))].join(', ');
    const names = left.slice(0, namedMax).map(({ name }) => name);
    const more = left.length > namedMax ? ` and ${left.length - namedMax} more` : '';
    return [
      `${one.name} shares network ${networks} with ${names.join(', ')}${more}: names in it are known on one host only, so after the move they don't reach each other by them. A link does from every host: label flock.link='PORT -> SERVICE:PORT'`,
    ];
  });
}

function sharedBy(one: Neighbour, other: Neighbour): readonly string[] {
  return one.networks.filter((network) => other.networks.includes(network));
}

function areLinked(one: Neighbour, other: Neighbour): boolean {
  return leadsTo(one, other) || leadsTo(other, one);
}

function leadsTo({ labels }: Neighbour, other: Neighbour): boolean {
  const service = serviceOf(other.labels);
  return service !== null && linksOf(labels).some((link) => link.service === service);
}
