import { ftruncateSync, readSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { connect, createSecureContext, TLSSocket } from 'node:tls';
import { spareBytesSync } from './free-space.ts';

/**
 * Carries one stream between a storage's command and another node's carrier, encrypted. It waits for its pipes as a command does, and there
 * are no other streams and hardly any garbage in it: encryption takes a fraction of what it takes in the plugin, and does not hold it up.
 *
 *     stdin (sending) or stdout (receiving): the command; 3: the connection; 4: the spool, if there is one
 *
 * The order comes by the parent's channel, and how many bytes have passed goes back there. Ends with 0 when the other side has all, or
 * when all that came is with the command; else what is wrong is the last line of stderr.
 */
export type Order = {
  readonly role: 'send' | 'receive';
  /** Both carriers' own, in hex: 256 bits. Who has it is the other one. */
  readonly key: string;
  /** Null: there is none. */
  readonly spool: {
    /** Where its space is looked at. */
    readonly folder: string;
    /** About how long the stream is; null: it is not known. */
    readonly streamBytes: number | null;
  } | null;
};
export type Passed = { readonly bytes: number };

const command = { read: 0, write: 1 };
const connectionFd = 3;
const spoolFd = 4;
const chunkBytes = 128 * 1024;
/** The most that TLS has in one record: RFC 8446, 5.1. */
const recordBytes = 16 * 1024;
/** After so much, whatever else a sender has to do (to tell how far it is, to hear that the other side has ended) has its turn. */
const turnBytes = 4 * 1024 * 1024;
const tellMs = 250;
/** How often it is looked at whether the spool has room and is worth it. */
const checkBytes = 64 * 1024 * 1024;
/** What takes no longer as a whole is rather sent again than written twice: the spool takes as much of the processor as the encryption. */
const worthMs = 60_000;

/** What a receiver says when it may begin. */
const ready = Buffer.from('.');

let passed = 0;

process.once('disconnect', () => process.exit(1));
process.once('message', (order: Order) => {
  const told = setInterval(() => process.send?.({ bytes: passed } satisfies Passed), tellMs);
  let isOver = false;
  const end = (error?: Error) => {
    if (isOver) return;
    isOver = true;
    clearInterval(told);
    if (error !== undefined) process.stderr.write(`${error.message}\n`);
    process.send?.({ bytes: passed } satisfies Passed, () => process.exit(error === undefined ? 0 : 1));
  };
  // Of the command's pipe: it has ended.
  process.once('uncaughtException', end);
  const socket = order.role === 'send' ? send(order.key, end) : receive(order.key, order.spool, end);
  socket.once('error', end);
  // After the end of the stream this says nothing new.
  socket.once('close', () => end(new Error('the connection was closed')));
});

/** TLS by a key that both sides have and nobody else: no certificate is looked at, and none would be accepted. */
const secured = {
  minVersion: 'TLSv1.3',
  // Of the hash that a key from outside goes with: RFC 8446, 4.2.11.
  ciphers: 'TLS_AES_128_GCM_SHA256',
} as const;

function send(key: string, end: (error?: Error) => void): TLSSocket {
  const socket = connect({
    ...secured,
    socket: new Socket({ fd: connectionFd, readable: true, writable: true, allowHalfOpen: true }),
    rejectUnauthorized: true,
    pskCallback: () => ({ psk: Buffer.from(key, 'hex'), identity: 'carrier' }),
    checkServerIdentity: () => new Error('it shows a certificate instead of having the key'),
  });
  const buffer = Buffer.allocUnsafeSlow(chunkBytes);
  let sinceTurn = 0;
  // The other side ends when it has all.
  socket.once('end', () => (socket.writableFinished ? end() : end(new Error('the other side has hung up'))));
  // The receiver's byte. Before it the handshake may not be over on its side, and reading the command would keep it from that.
  socket.once('data', () => setImmediate(step));
  const step = () => {
    const bytes = readSync(command.read, buffer);
    if (bytes === 0) return void socket.end();
    passed += bytes;
    sinceTurn += bytes;
    // The buffer is free again when it is called.
    socket.write(buffer.subarray(0, bytes), (error) => {
      if (error != null) return;
      if (sinceTurn < turnBytes) return step();
      sinceTurn = 0;
      setImmediate(step);
    });
  };
  return socket;
}

function receive(key: string, spool: Order['spool'], end: (error?: Error) => void): TLSSocket {
  const startedMs = performance.now();
  const gathered = Buffer.allocUnsafeSlow(chunkBytes + recordBytes);
  let held = 0;
  let isDue = false;
  let isSpooling = spool !== null;
  let checkAt = checkBytes;

  function pass(): void {
    const chunk = gathered.subarray(0, held);
    held = 0;
    if (isSpooling) isSpooling = addToSpool(chunk);
    writeAll(command.write, chunk);
    passed += chunk.length;
    if (isSpooling && spool !== null && passed >= checkAt) check(spool);
  }

  function check({ folder, streamBytes }: NonNullable<Order['spool']>): void {
    checkAt = passed + checkBytes;
    const msPerByte = (performance.now() - startedMs) / passed;
    if (streamBytes !== null && streamBytes * msPerByte < worthMs) {
      isSpooling = false;
      ftruncateSync(spoolFd, 0);
    } else isSpooling = hasRoom(folder);
  }

  const socket = admit(key, (record) => {
    gathered.set(record, held);
    held += record.length;
    if (held >= chunkBytes) pass();
    else if (!isDue) {
      isDue = true;
      setImmediate(() => {
        isDue = false;
        pass();
      });
    }
  });
  let isSecure = false;
  socket.once('secure', () => {
    isSecure = true;
    socket.write(ready);
  });
  socket.once('end', () => {
    if (!isSecure) return end(new Error('the other side has hung up before it had shown that it has the key'));
    pass();
    socket.end();
    socket.once('finish', () => end());
  });
  return socket;
}

/**
 * The server's end of TLS on the connection. `take` gets each record in a buffer that is used again: a buffer and an event for each took
 * more of the processor than decrypting it. Node has this (`onread`) only for sockets whose handle it makes itself, so the descriptor is
 * put into that; what is used for it is not public, and is of the Node that is packaged.
 */
function admit(key: string, take: (record: Uint8Array) => void): TLSSocket {
  const buffer = Buffer.allocUnsafeSlow(recordBytes);
  const callback = (bytes: number) => {
    take(buffer.subarray(0, bytes));
    return true;
  };
  const options = {
    ...{ isServer: true, secureContext: createSecureContext(secured), allowHalfOpen: true },
    ...{ pskCallback: () => Buffer.from(key, 'hex'), onread: { buffer, callback } },
  };
  // Declared without it: no socket, but a handle of its own.
  const socket: TLSSocket & Partial<Inner> = new TLSSocket(undefined as unknown as Socket, options);
  if (typeof socket._handle?.open !== 'function') throw new Error('this Node.js takes no descriptor for TLS');
  const status = socket._handle.open(connectionFd);
  if (status !== 0) throw new Error(`the connection can't be used: status ${status}`);
  // Or the handshake waits for the event that a connection is made.
  Object.assign(socket, { connecting: false });
  // Without a server nobody has it say so: what can't be decrypted would end nothing, and all that comes after it would be kept in memory.
  socket.once('_tlsError', (error: Error) => socket.destroy(error));
  return socket;
}

type Inner = { readonly _handle: { open(fd: number): number } | null };

function hasRoom(folder: string): boolean {
  try {
    return spareBytesSync(folder) >= checkBytes;
  } catch {
    return false;
  }
}

/** A spool that fails ends here, and what is in it stays a beginning; the stream goes on. */
function addToSpool(chunk: Buffer): boolean {
  try {
    writeAll(spoolFd, chunk);
    return true;
  } catch {
    return false;
  }
}

function writeAll(fd: number, chunk: Buffer): void {
  for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
}
