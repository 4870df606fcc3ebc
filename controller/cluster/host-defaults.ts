import { createSocket } from 'node:dgram';
import { hostname, networkInterfaces } from 'node:os';
import { FlockError } from '../model/errors.ts';
import { type NodeName, parseNodeName, quote } from '../model/names.ts';

/** What the host says of itself, from which a node's name and address are taken when nobody names them. */
export type HostFacts = {
  readonly hostName: string;
  /** The address that packets to the world leave from; null: there is no default route. */
  readonly routed: string | null;
  readonly addresses: readonly { readonly interface: string; readonly address: string }[];
};

/** Interfaces that container and virtual machine software makes: their addresses are the same on every host. */
const innerInterface = /^(docker|br-|veth|virbr|lxcbr|lxdbr|cni|podman)/;
/** Of the blocks for documentation (RFC 5737, RFC 3849). Nothing is ever sent there: the kernel is only asked for the way. */
const anywhere = { udp4: '192.0.2.1', udp6: '2001:db8::1' } as const;

/** Pure. The first part of the host's name, with what a node name can't have replaced. */
export function defaultNodeName(hostName: string): NodeName {
  const text = (hostName.split('.')[0] ?? '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, '-')
    .slice(0, 63)
    .replaceAll(/^-+|-+$/g, '');
  if (text !== '' && text !== 'localhost') return parseNodeName(text);
  throw new FlockError('invalid-name', `the host's name ${quote(hostName)} makes no node name: give one with --name`);
}

/** Pure. Never a guess: one candidate, or an error that lists them. */
export function defaultAddress(facts: HostFacts): string {
  if (facts.routed !== null) return facts.routed;
  const candidates = facts.addresses.filter((candidate) => !innerInterface.test(candidate.interface));
  const [only] = candidates;
  if (only !== undefined && candidates.length === 1) return only.address;
  const list = candidates.map((candidate) => `${candidate.address} (${candidate.interface})`).join(', ');
  throw new FlockError(
    'invalid-option',
    only === undefined
      ? 'this host has no address that other nodes could reach: give one with --address'
      : `this host has no default route and several addresses: ${list}. Say with --address which one its peers are to use`,
  );
}

export async function readHostFacts(): Promise<HostFacts> {
  const all = Object.entries(networkInterfaces()).flatMap(([name, list]) =>
    (list ?? []).map((info) => ({ ...info, interface: name })),
  );
  const outer = all.filter((info) => !info.internal && !info.address.startsWith('fe80:'));
  const isVersion4 = outer.some((info) => info.family === 'IPv4');
  // Where there are both, IPv4: a temporary IPv6 address is no address for a node.
  const used = outer.filter((info) => (info.family === 'IPv4') === isVersion4);
  return {
    hostName: hostname(),
    routed: await routedAddress(isVersion4 ? 'udp4' : 'udp6'),
    addresses: used.map((info) => ({ interface: info.interface, address: info.address })),
  };
}

function routedAddress(type: 'udp4' | 'udp6'): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = createSocket(type);
    const done = (address: string | null) => {
      socket.close();
      resolve(address);
    };
    socket.once('error', () => done(null));
    socket.once('connect', () => done(socket.address().address));
    socket.connect(9, anywhere[type]);
  });
}
