import type { Socket } from 'node:net';

/**
 * The server name that a client asks for at the start of TLS, lower case; null: it speaks something else, names none, leaves, or
 * takes longer than `limitMs`. What was read is put back, so that the connection can be given on as it came.
 */
export function serverNameOf(client: Socket, limitMs: number): Promise<string | null> {
  return new Promise((resolve) => {
    let read: Buffer = Buffer.alloc(0);
    const finish = (name: string | null) => {
      clearTimeout(timer);
      client.removeListener('readable', look);
      client.removeListener('end', leave);
      client.removeListener('close', leave);
      if (read.length > 0 && !client.readableEnded && !client.destroyed) client.unshift(read);
      resolve(name);
    };
    const look = () => {
      for (let piece: Buffer | null = client.read(); piece !== null; piece = client.read())
        read = Buffer.concat([read, piece]);
      const found = parseClientHello(read);
      if (found.kind === 'more' && read.length < helloBytesMax) return;
      finish(found.kind === 'name' ? found.name : null);
    };
    const leave = () => finish(null);
    const timer = setTimeout(leave, limitMs);
    client.once('end', leave).once('close', leave).on('readable', look);
  });
}

export type HelloParse =
  | { readonly kind: 'more' }
  | { readonly kind: 'name'; readonly name: string }
  /** No TLS, or a hello without a name. */
  | { readonly kind: 'none' };

/** A hello with post-quantum keys has about 2 KiB; TLS allows records of 16 KiB. */
const helloBytesMax = 16 * 1024 + 5;
const handshakeRecord = 22;
const clientHello = 1;
const namePattern = /^[a-z0-9_]([a-z0-9_.-]{0,252})$/;

/** RFC 8446 4.1.2 and RFC 6066 3. A hello may come in several records and any number of pieces. Pure. */
export function parseClientHello(bytes: Buffer): HelloParse {
  const parts: Buffer[] = [];
  let at = 0;
  let isWhole = false;
  let length = 0;
  while (!isWhole) {
    if (bytes.length > at && bytes[at] !== handshakeRecord) return { kind: 'none' };
    if (bytes.length < at + 5) return { kind: 'more' };
    const size = bytes.readUInt16BE(at + 3);
    if (bytes[at + 1] !== 3 || size === 0 || size > 16_384) return { kind: 'none' };
    const part = bytes.subarray(at + 5, at + 5 + size);
    parts.push(part);
    length += part.length;
    const message = parts.length === 1 ? part : Buffer.concat(parts);
    if (message.length > 0 && message[0] !== clientHello) return { kind: 'none' };
    isWhole = length >= 4 && length >= 4 + message.readUIntBE(1, 3);
    if (!isWhole && part.length < size) return { kind: 'more' };
    at += 5 + size;
  }
  try {
    const name = nameIn(Buffer.concat(parts));
    return name !== null && namePattern.test(name) ? { kind: 'name', name } : { kind: 'none' };
  } catch {
    // A length that points behind the end.
    return { kind: 'none' };
  }
}

function nameIn(message: Buffer): string | null {
  const end = 4 + message.readUIntBE(1, 3);
  // Version and random, session id, cipher suites, compression methods.
  let at = 4 + 2 + 32;
  at += 1 + message.readUInt8(at);
  at += 2 + message.readUInt16BE(at);
  at += 1 + message.readUInt8(at);
  if (at + 2 > end) return null;
  at += 2;
  while (at + 4 <= end) {
    const [type, size] = [message.readUInt16BE(at), message.readUInt16BE(at + 2)];
    // server_name; a list, of which only host names (type 0) are in use, and only one.
    if (type === 0) {
      if (message.readUInt8(at + 6) !== 0) return null;
      const length = message.readUInt16BE(at + 7);
      if (at + 9 + length > end) return null;
      return message.toString('latin1', at + 9, at + 9 + length).toLowerCase();
    }
    at += 4 + size;
  }
  return null;
}
