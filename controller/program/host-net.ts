import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { canonicalIp, parseRoutes, parseSockets } from '../model/host-net.ts';
import type { PublishedPort } from '../model/published-ports.ts';

/** What the host's network has already, beside what Docker knows of. The program has the network of the host. */
export type HostNet = {
  /** Sockets that wait for connections or packets. */
  sockets(): Promise<readonly PublishedPort[]>;
  /** IPv4 subnets with routes. */
  routes(): Promise<readonly string[]>;
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
  async routes() {
    return parseRoutes(await textOf(`${proc}/route`));
  },
  async isOwn(address) {
    if (/^127\./.test(address)) return true;
    const own = Object.values(networkInterfaces()).flatMap((found) => found ?? []);
    if (own.some((one) => canonicalIp(one.address) === canonicalIp(address))) return true;
    // Of hosts to which addresses come and go (keepalived).
    const family = address.includes(':') ? 'ipv6' : 'ipv4';
    return (await textOf(`/proc/sys/net/${family}/ip_nonlocal_bind`)).trim() === '1';
  },
};

/** Empty where the kernel has no such file: without IPv6. */
async function textOf(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => '');
}
