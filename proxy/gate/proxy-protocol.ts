import type { Socket } from 'node:net';
import { parseIp } from '../model/names.ts';

/**
 * PROXY protocol v2 (HAProxy's proxy-protocol.txt, section 2.2): the binary header that tells a server who the client is and
 * where it has connected to.
 */
export type Ends = { readonly client: End; readonly server: End };
export type End = { readonly address: string; readonly port: number };

const signature = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const fixedBytes = 16;
/** Addresses take 36 bytes, unix paths 216; the rest are extensions, which nobody here sends. */
const headerBytesMax = fixedBytes + 2_048;
const proxied = 0x21;
const local = 0x20;
const tcp4 = 0x11;
const tcp6 = 0x21;

/** The two ends of an accepted connection; null where it is closed already or on a unix socket. */
export function endsOf(socket: Socket): Ends | null {
  const client = endOf(socket.remoteAddress, socket.remotePort);
  const server = endOf(socket.localAddress, socket.localPort);
  return client === null || server === null ? null : { client, server };
}

/** Null: nothing is known of the client, and the header says so. */
export function encodeHeader(ends: Ends | null): Buffer {
  if (ends === null) return Buffer.concat([signature, Buffer.from([local, 0, 0, 0])]);
  const { client, server } = ends;
  const isV4 = isIpv4(client.address) && isIpv4(server.address);
  const bytesOf = isV4 ? bytesOfV4 : bytesOfV6;
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(client.port, 0);
  ports.writeUInt16BE(server.port, 2);
  const body = Buffer.concat([bytesOf(client.address), bytesOf(server.address), ports]);
  const fixed = Buffer.from([proxied, isV4 ? tcp4 : tcp6, 0, body.length]);
  return Buffer.concat([signature, fixed, body]);
}

export type HeaderParse =
  | { readonly kind: 'more' }
  /** `bytes`: how long it is. `ends`: null where it names none. */
  | { readonly kind: 'header'; readonly bytes: number; readonly ends: Ends | null }
  | { readonly kind: 'none' };

export function parseHeader(bytes: Buffer): HeaderParse {
  const known = Math.min(bytes.length, signature.length);
  if (!bytes.subarray(0, known).equals(signature.subarray(0, known))) return { kind: 'none' };
  if (bytes.length < fixedBytes) return { kind: 'more' };
  const [command, family] = [bytes[12], bytes[13]];
  const length = fixedBytes + bytes.readUInt16BE(14);
  if ((command !== proxied && command !== local) || length > headerBytesMax) return { kind: 'none' };
  if (bytes.length < length) return { kind: 'more' };
  const body = bytes.subarray(fixedBytes, length);
  const size = family === tcp4 ? 4 : 16;
  if (command === local || (family !== tcp4 && family !== tcp6)) return { kind: 'header', bytes: length, ends: null };
  if (body.length < 2 * size + 4) return { kind: 'none' };
  const end = (index: number): End => ({
    address: textOf(body.subarray(index * size, (index + 1) * size)),
    port: body.readUInt16BE(2 * size + 2 * index),
  });
  return { kind: 'header', bytes: length, ends: { client: end(0), server: end(1) } };
}

/**
 * Reads the header that a connection begins with; what comes behind it stays in the socket. Null: there is none, or not within
 * `limitMs`, or the client has left.
 */
export function readHeader(
  client: Socket,
  limitMs: number,
): Promise<(HeaderParse & { readonly kind: 'header' }) | null> {
  return new Promise((resolve) => {
    let read: Buffer = Buffer.alloc(0);
    const finish = (found: (HeaderParse & { readonly kind: 'header' }) | null) => {
      clearTimeout(timer);
      client.removeListener('readable', look);
      client.removeListener('end', leave);
      client.removeListener('close', leave);
      const rest = found === null ? read : read.subarray(found.bytes);
      if (rest.length > 0 && !client.readableEnded && !client.destroyed) client.unshift(rest);
      resolve(found);
    };
    const look = () => {
      for (let piece: Buffer | null = client.read(); piece !== null; piece = client.read())
        read = Buffer.concat([read, piece]);
      const found = parseHeader(read);
      if (found.kind !== 'more') finish(found.kind === 'header' ? found : null);
    };
    const leave = () => finish(null);
    const timer = setTimeout(leave, limitMs);
    client.once('end', leave).once('close', leave).on('readable', look);
  });
}

function endOf(address: string | undefined, port: number | undefined): End | null {
  if (address === undefined || port === undefined) return null;
  return { address: address.startsWith('::ffff:') ? address.slice(7) : address, port };
}

function isIpv4(address: string): boolean {
  return !address.includes(':');
}

function bytesOfV4(address: string): Buffer {
  return Buffer.from(address.split('.').map(Number));
}

function bytesOfV6(address: string): Buffer {
  if (isIpv4(address)) return Buffer.concat([Buffer.alloc(10), Buffer.from([0xff, 0xff]), bytesOfV4(address)]);
  // One form per address, without dots; a scope (fe80::1%eth0) means nothing elsewhere.
  const [left = '', right] = (parseIp(address.replace(/%.*$/, '')) ?? '::').split('::');
  const groups = (text: string | undefined) => (text ? text.split(':') : []);
  const [first, last] = [groups(left), groups(right)];
  const all = [...first, ...Array<string>(8 - first.length - last.length).fill('0'), ...last];
  return Buffer.from(all.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff]));
}

function textOf(bytes: Buffer): string {
  if (bytes.length === 4) return [...bytes].join('.');
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(2 * index).toString(16));
  return parseIp(groups.join(':')) ?? '::';
}
