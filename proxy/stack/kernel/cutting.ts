import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Commands } from '../../../plugin/exec.ts';
import type { TableLink } from '../../model/table.ts';
import type { Connection, Place } from './connections.ts';
import { inNetwork, type Nft } from './nft.ts';

/**
 * Ends connections of which the table already says that they are to end, so that both ends learn of it even if neither says
 * anything:
 * - where one end is in a container of this node, its socket is destroyed, which sends the other end a reset;
 * - else the service's end, on another node, is sent what can't belong to the stream. It answers with where it stands, and the table
 *   makes a reset for the client of the first answer and one for the service of the second.
 *
 * What is left over (a container that is gone, a firewall between the nodes that drops such packets) learns of it with the next
 * packet that it sends, a keep-alive at the latest. Answers what has failed on the way.
 */
export type Ends = {
  /** The first process of the container that has this address. */
  pidOf(host: string): number | null;
  /** Of this node's containers, by client address, with the port inside. */
  readonly links: readonly TableLink[];
  /** Addresses of this node. */
  readonly own: ReadonlySet<string>;
};

export async function endConnections(
  parts: { readonly commands: Commands; readonly nft: Nft },
  connections: readonly Connection[],
  ends: Ends,
): Promise<readonly unknown[]> {
  const sockets = new Map<number | null, string[][]>();
  const destroy = (pid: number | null, filter: string[]) => {
    const list = sockets.get(pid);
    if (list === undefined) sockets.set(pid, [filter]);
    else list.push(filter);
  };
  const far: Connection[] = [];
  for (const connection of connections) {
    const { client, entrance, service, seenClient } = connection;
    const servicePid = ends.pidOf(service.host);
    const link = ends.links.find(
      ({ place }) => place.client === client.host && place.gateway === entrance.host && place.port === entrance.port,
    );
    const clientPid = ends.pidOf(client.host);
    if (servicePid !== null || ends.own.has(service.host)) destroy(servicePid, filterOf(service, seenClient));
    // Inside it is connected to localhost.
    else if (link !== undefined && clientPid !== null) destroy(clientPid, ['dst', `127.0.0.1:${link.port}`]);
    else if (clientPid !== null || ends.own.has(client.host)) destroy(clientPid, filterOf(client, entrance));
    else far.push(connection);
  }
  const results = await Promise.allSettled([
    ...[...sockets].map(([pid, filters]) => destroySockets(parts.commands, pid, filters)),
    far.length === 0 ? null : askForPlaces(parts.nft, far),
  ]);
  return results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
}

const ssMsMax = 10_000;
/** One filter becomes a program for the kernel, of limited length. */
const filtersMax = 50;

async function destroySockets(commands: Commands, pid: number | null, filters: readonly string[][]): Promise<void> {
  const unique = [...new Map(filters.map((filter) => [filter.join(' '), filter])).values()];
  for (let start = 0; start < unique.length; start += filtersMax) {
    const some = unique.slice(start, start + filtersMax);
    const filter = some.flatMap((one, index) => [...(index === 0 ? [] : ['or']), '(', ...one, ')']);
    const [program, ...args] = inNetwork(pid ?? undefined, [
      'ss',
      '-K',
      '-H',
      '-n',
      '-t',
      'state',
      'connected',
      ...filter,
    ]);
    await commands.run(program, args, { timeoutMs: ssMsMax });
  }
}

function filterOf(own: Place, other: Place): string[] {
  return ['src', `${own.host}:${own.port}`, 'and', 'dst', `${other.host}:${other.port}`];
}

/** Long enough for a second packet, which the kernel sends after a second when nothing has come back. */
const askMs = 1_500;
const asksMax = 500;
const askTable = 'flock-ask';
export const askRemoval = `add table ip ${askTable}\ndelete table ip ${askTable}`;

/**
 * Opens a connection with the very addresses of one that exists: the service's end answers that it has one already, and where it is
 * in it. Our packet must not be taken for a new connection on the way, so it is kept out of the table of connections.
 */
async function askForPlaces(nft: Nft, connections: readonly Connection[]): Promise<void> {
  for (let start = 0; start < connections.length; start += asksMax) {
    const some = connections.slice(start, start + asksMax);
    const places = some.map(
      ({ seenClient: from, service: to }) => `${from.host} . ${from.port} . ${to.host} . ${to.port}`,
    );
    await nft.run(
      [
        askRemoval,
        `table ip ${askTable} {`,
        `set asked { type ipv4_addr . inet_service . ipv4_addr . inet_service; elements = { ${places.join(', ')} }; }`,
        'chain output { type filter hook output priority raw - 5;',
        'tcp flags & (syn | ack) == syn ip saddr . tcp sport . ip daddr . tcp dport @asked notrack; }',
        '}',
      ].join('\n'),
    );
    try {
      const sockets = some.map(({ seenClient, service }) =>
        connect({ ...service, localAddress: seenClient.host, localPort: seenClient.port }).on('error', nothing),
      );
      await sleep(askMs);
      for (const socket of sockets) socket.destroy();
    } finally {
      await nft.run(askRemoval);
    }
  }
}

const nothing = () => {};
