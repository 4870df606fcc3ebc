import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { parseRoutes, parseSockets } from '../model/host-net.ts';
import type { PublishedPort } from '../model/published-ports.ts';

/** What the host's network has already, beside what Docker knows of. The program has the network of the host. */
export type HostNet = {
  /** Sockets that wait for connections or packets. */
  sockets(): Promise<readonly PublishedPort[]>;
  /** IPv4 subnets that it is in. */
  subnets(): Promise<readonly string[]>;
  /** Whether sockets can have this address here. */
  isOwn(address: string): Promise<boolean>;
};

const proc = '/proc/net';

export const hostNet: HostNet = {
  async sockets() {
    const files = [
      ['tcp', 'tcp'],
      ['tcp6', 'tcp'],
      ['udp', 'udp'],
      ['udp6', 'udp'],
    ] as const;
    const read = files.map(async ([file, protocol]) => parseSockets(await textOf(`${proc}/${file}`), protocol));
    return (await Promise.all(read)).flat();
  },
  async subnets() {
    return parseRoutes(await textOf(`${proc}/route`));
  },
  async isOwn(address) {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    try {
      socket.bind({ address, port: 0, exclusive: true });
      await once(socket, 'listening');
      return true;
    } catch (error) {
      // What else keeps it from being bound is not for this to say.
      return !(error instanceof Error && 'code' in error && error.code === 'EADDRNOTAVAIL');
    } finally {
      socket.close();
    }
  },
};

/** Empty where the kernel has no such file: without IPv6. */
async function textOf(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => '');
}
