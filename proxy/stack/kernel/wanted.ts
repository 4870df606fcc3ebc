import { type KernelElement, kernelElements } from '../../model/kernel-elements.ts';
import type { Table } from '../../model/table.ts';
import { digest, layoutChain, type SetName } from './layout.ts';
import { markOf, type Numbers, reservedNumbers, setMark } from './marks.ts';

/** What is in the host's table, or should be. */
export type HostState = {
  /** Null: there is no table. */
  readonly layout: string | null;
  /** By name: the chain's rules; null where it was read from the kernel. A chain is named after its rules. */
  readonly chains: ReadonlyMap<string, readonly string[] | null>;
  /** By `elementId`. */
  readonly elements: ReadonlyMap<string, Element>;
};

/** `value`: `goto CHAIN`, `comment "TEXT"`, or nothing. */
export type Element = { readonly set: SetName; readonly key: string; readonly value: string };

export const noState: HostState = { layout: null, chains: new Map(), elements: new Map() };

export type Surroundings = {
  /** This node's containers. */
  readonly local: ReadonlySet<string>;
  /** Names of the interfaces that have IPv4 addresses. */
  readonly interfaces: readonly string[];
  readonly numbers: Numbers;
  /** Numbers of what is to end. */
  readonly ended: ReadonlySet<number>;
};

/** The state for a table, and what it can't have, by the keys of `kernelElements`. Pure. */
export function wantedState(
  table: Table,
  { local, interfaces, numbers, ended }: Surroundings,
): { readonly state: HostState; readonly problems: ReadonlyMap<string, string> } {
  const chains = new Map<string, readonly string[]>();
  const elements = new Map<string, Element>();
  const problems = new Map<string, string>();
  const add = (set: SetName, key: string, value = '') => elements.set(elementId(set, key), { set, key, value });
  const own = new Set([...local, ...[...table.inner.values()].map(({ id }) => id)]);
  for (const [key, element] of kernelElements(table)) {
    if (![element.address, ...element.endpoints.map(({ host }) => host)].every(isOfKernel)) {
      // Routes and links with other addresses are the gate's.
      if (element.map === 'inner')
        problems.set(
          key,
          `${element.endpoints.map(({ host }) => host).join()} can’t be reached by other nodes: that needs an IPv4 address other than localhost`,
        );
      continue;
    }
    const number = element.service === null ? reservedNumbers.inner : numbers.get(element.service);
    if (number === undefined) continue;
    const rules = chainRules(number, element, own);
    const chain = `to-${digest(rules.join('\n'))}`;
    chains.set(chain, rules);
    for (const [set, at] of placesOf(element)) add(set, at, `goto ${chain}`);
    for (const { id, host, port } of element.endpoints) if (!own.has(id)) add('remote', `${host} . ${port}`);
  }
  for (const peer of table.peers) if (isIpv4(peer)) add('peers', peer);
  for (const name of interfaces) if (interfacePattern.test(name)) add('turning', `${name} . ${name}`);
  for (const [service, number] of numbers) add('services', String(markOf(number)), `comment "${service}"`);
  for (const number of [reservedNumbers.ending, ...ended]) add('ended', String(markOf(number)));
  return { state: { layout: layoutChain, chains, elements }, problems };
}

export function elementId(set: SetName, key: string): string {
  return `${set} ${key}`;
}

function chainRules(number: number, { map, endpoints }: KernelElement, own: ReadonlySet<string>): readonly string[] {
  const [first, ...others] = endpoints;
  const mark = `${setMark(number)} meta l4proto tcp`;
  const places = endpoints.map(({ host, port }, index) => `${index} : ${host} . ${port}`);
  // A bridge that passes its packets through the firewall does not send one back to where it came from: a container that connects to
  // itself is the gate's.
  const selves = [...new Set(endpoints.filter(({ id }) => own.has(id)).map(({ host }) => host))];
  return [
    ...(map === 'inner' || selves.length === 0 ? [] : [`ip saddr { ${selves.join(', ')} } return`]),
    first !== undefined && others.length === 0
      ? `${mark} dnat ip to ${first.host}:${first.port}`
      : `${mark} dnat ip to numgen inc mod ${endpoints.length} map { ${places.join(', ')} }`,
  ];
}

function placesOf({ map, address, port, from }: KernelElement): readonly (readonly [SetName, string])[] {
  if (map === 'inner') return [['inner', String(port)]];
  if (map === 'links')
    return (from ?? []).filter(isIpv4).map((client) => ['links', `${client} . ${address} . ${port}`] as const);
  return [address === '*' ? ['ports', String(port)] : ['addresses', `${address} . ${port}`]];
}

/** What comes from elsewhere can't be led to the host's localhost. */
function isOfKernel(address: string): boolean {
  return address === '*' || (isIpv4(address) && !address.startsWith('127.'));
}

function isIpv4(address: string): boolean {
  return !address.includes(':');
}

/** A star at the end would mean all that begin like this. */
const interfacePattern = /^[A-Za-z0-9_.@-]{1,15}$/;
