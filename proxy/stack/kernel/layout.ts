import { createHash } from 'node:crypto';
import { portRange } from '../../model/ports.ts';
import { hex, markMask, markOf, reservedNumbers, setMark } from './marks.ts';

/** The part of the host's table that is the same whatever routes there are. Pure. */

/** Ours, of the host's network. Nobody else's tables are touched. */
export const hostTable = 'flock';

/** Who looks where an address leads; the value is a chain. */
export const mapTypes = {
  /** Inner ports, for peers only. */
  inner: 'inet_service',
  /** Client, gateway, link port. */
  links: 'ipv4_addr . ipv4_addr . inet_service',
  /** Routes of one address of the node, and of all of them. */
  addresses: 'ipv4_addr . inet_service',
  ports: 'inet_service',
} as const;

export const setTypes = {
  peers: 'ipv4_addr',
  /** Where to the answer would not come back through this node. */
  remote: 'ipv4_addr . inet_service',
  /**
   * Each interface with itself: who comes and leaves by the same one would be answered directly. (Where bridges pass their packets
   * through the firewall, the answer is translated there: what is bridged has no interface that it came by, and keeps its address.)
   */
  turning: 'ifname . ifname',
  /** Marks of services. The comments are their names: after a restart they are read from here. */
  services: 'mark',
  /** Marks of connections that are to end. */
  ended: 'mark',
} as const;

export type SetName = keyof typeof mapTypes | keyof typeof setTypes;

const marks = `ct mark and ${hex(markMask)}`;

/**
 * Ours come just before Docker's. Connections to the node's own addresses only: what is on its way to somewhere else with the same
 * port is not ours. From the host itself 127.0.0.0/8 is the gate's: a packet with that source must not leave by another interface
 * unless route_localnet allows all of them, which would open the host's own localhost to its neighbours.
 */
const chains: Readonly<Record<string, readonly string[]>> = {
  prerouting: [
    'type nat hook prerouting priority dstnat - 5;',
    'fib daddr type != local return',
    'ip saddr @peers tcp dport vmap @inner',
    'ip saddr . ip daddr . tcp dport vmap @links',
    'ip daddr . tcp dport vmap @addresses',
    'tcp dport vmap @ports',
  ],
  output: [
    'type nat hook output priority -105;',
    'ip daddr 127.0.0.0/8 return',
    'fib daddr type != local return',
    'ip daddr . tcp dport vmap @addresses',
    'tcp dport vmap @ports',
  ],
  postrouting: [
    'type nat hook postrouting priority srcnat - 5;',
    `${marks} == 0 return`,
    'iifname . oifname @turning masquerade',
    'ip daddr . tcp dport @remote masquerade',
  ],
  // What one end sends is made a reset for the other one, at the right place in the stream; what it sends next is answered with a
  // reset. So both learn of it, as soon as either of them says something.
  ending: [
    'tcp flags & rst == rst accept',
    `${marks} == ${hex(markOf(reservedNumbers.ending))} reject with tcp reset`,
    `${setMark(reservedNumbers.ending)} tcp flags set rst | ack`,
  ],
  forward: [
    'type filter hook forward priority filter - 5;',
    // Masqueraded, a container would look like this node to the others. What we lead there has a mark.
    `ct direction original ip daddr @peers tcp dport ${portRange.first}-${portRange.last} ${marks} == 0 reject with tcp reset`,
    `${marks} @ended goto ending`,
  ],
  input: ['type filter hook input priority filter - 5;', `${marks} @ended goto ending`],
  'host-output': ['type filter hook output priority filter - 5;', `${marks} @ended goto ending`],
};

const sets = [
  ...Object.entries(mapTypes).map(([name, type]) => `map ${name} { type ${type} : verdict; }`),
  ...Object.entries(setTypes).map(([name, type]) => `set ${name} { type ${type}; }`),
];

const body = [
  ...sets,
  ...Object.entries(chains).map(([name, lines]) => `chain ${name} {\n${lines.map((line) => `${line}\n`).join('')}}`),
].join('\n');

/** An empty chain, whose name tells one layout from another: a newer program replaces the table of an older one. */
export const layoutChain = `layout-${digest(body)}`;

/** Puts the layout, without any element, in place of whatever there is. */
export const layoutText = [
  `add table ip ${hostTable}`,
  `delete table ip ${hostTable}`,
  `table ip ${hostTable} {\n${body}\nchain ${layoutChain} { }\n}`,
].join('\n');

export function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
