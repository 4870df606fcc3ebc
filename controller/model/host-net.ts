import { z } from 'zod';
import type { PublishedPort } from './published-ports.ts';

/** What a host's network has already, as Linux tells it (proc_net(5)). Pure. */

const listening: Readonly<Record<'tcp' | 'udp', string>> = { tcp: '0A', udp: '07' };

/** Sockets that wait for others, of /proc/net/tcp, tcp6, udp or udp6. */
export function parseSockets(text: string, protocol: 'tcp' | 'udp'): readonly PublishedPort[] {
  return rowsOf(text).flatMap(([, local = '', , state]) => {
    const [address = '', port = ''] = local.split(':');
    if (state !== listening[protocol] || !/^[0-9A-F]{4}$/.test(port)) return [];
    return [{ ip: addressOf(address), port: Number.parseInt(port, 16), protocol }];
  });
}

/**
 * IPv4 subnets such as `10.0.0.0/24` that this host is in itself, of /proc/net/route. Not those behind gateways: such a route often covers
 * far more than is there, and people count on the narrower one of a network before it.
 */
export function parseRoutes(text: string): readonly string[] {
  return rowsOf(text).flatMap(([, destination = '', gateway, flags = '', , , , mask = '']) => {
    const length = bytesOf(mask)
      .map((byte) => byte.toString(2))
      .join('')
      .replaceAll('0', '').length;
    const isOwn = gateway === '00000000' && (Number.parseInt(flags, 16) & rejecting) === 0;
    return length < lengthMin || !isOwn ? [] : [`${addressOf(destination)}/${length}`];
  });
}

const networkSchema = z.object({
  IPAM: z.object({ Config: z.array(z.object({ Subnet: z.string().nullish() })).nullish() }).nullish(),
});

/** Of the body of `POST /networks/create`. */
export function subnetsOf(network: unknown): readonly string[] {
  const config = networkSchema.safeParse(network).data?.IPAM?.Config ?? [];
  return config.flatMap(({ Subnet }) => Subnet ?? []);
}

/** RTF_REJECT of linux/route.h. */
const rejecting = 0x200;
/** Of the halves of all addresses that VPNs take. */
const lengthMin = 8;

/** Whether two IPv4 subnets have addresses in common. What is no such subnet meets nothing. */
export function doSubnetsMeet(one: string, other: string): boolean {
  const [a, b] = [rangeOf(one), rangeOf(other)];
  return a !== null && b !== null && a.first < b.end && b.first < a.end;
}

/** Addresses as numbers, `end` not among them. */
function rangeOf(subnet: string): { readonly first: number; readonly end: number } | null {
  const found = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(subnet);
  if (found === null) return null;
  const [a = 0, b = 0, c = 0, d = 0, length = 0] = found.slice(1).map(Number);
  const size = 2 ** (32 - length);
  const address = ((a * 256 + b) * 256 + c) * 256 + d;
  const first = address - (address % size);
  return { first, end: first + size };
}

/** The lines below the first, in words. */
function rowsOf(text: string): readonly (readonly string[])[] {
  const lines = text.split('\n').slice(1);
  return lines.map((line) => line.trim().split(/\s+/)).filter((words) => words.length > 1);
}

/** Addresses are in words of 32 bits, each in the order of the processor's bytes: little-endian wherever flock runs. */
function bytesOf(hex: string): readonly number[] {
  const words = hex.match(/.{8}/g) ?? [];
  return words.flatMap((word) => (word.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16)).reverse());
}

function addressOf(hex: string): string {
  const bytes = bytesOf(hex);
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.every((byte) => byte === 0)) return '::';
  const isMapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 255 && bytes[11] === 255;
  if (isMapped) return bytes.slice(12).join('.');
  const groups = bytes.flatMap((byte, index) => (index % 2 === 0 ? [256 * byte + (bytes[index + 1] ?? 0)] : []));
  return canonicalIp(groups.map((group) => group.toString(16)).join(':'));
}

/** One text for each address. */
function canonicalIp(ip: string): string {
  return URL.canParse(`http://[${ip}]`) ? new URL(`http://[${ip}]`).hostname.slice(1, -1) : ip;
}
