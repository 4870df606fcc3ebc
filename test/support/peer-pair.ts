import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Router } from 'express';
import { issueCertificate, makeAuthority, makeKey } from '../../controller/cluster/ca.ts';
import type { NodeIdentity, PeerAddress } from '../../controller/model/identity.ts';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import type { Transfer } from '../../plugin/cluster/ports.ts';
import { createCarriers } from '../../plugin/peer/carrier.ts';
import { createPeerClient, type PeerClient } from '../../plugin/peer/client.ts';
import { createDoor, type Door } from '../../plugin/peer/door.ts';
import { createPacer, type Pacer } from '../../plugin/peer/pacing.ts';
import { createPartials, type Partials } from '../../plugin/peer/partials.ts';
import type { Limits } from '../../plugin/peer/protocol.ts';
import { type ReceiveParts, receiveSnapshot } from '../../plugin/peer/receiver.ts';
import { sendSnapshot } from '../../plugin/peer/sender.ts';
import { startPeerServer } from '../../plugin/peer/server.ts';
import type { ReceiveRequest, Storage } from '../../plugin/storage/storage.ts';
import { log } from './cluster-hosts.ts';

/** Two nodes on the loopback address with real TLS: what is sent from one is received by the other one's storage. */
export type PeerPair = {
  readonly client: PeerClient;
  readonly partials: Partials;
  readonly door: Door;
  /** Nodes whose door the sender does not try (again). */
  readonly shut: Set<NodeName>;
  /** Below it are channels and partials. */
  readonly folder: string;
  /** May be changed between streams. */
  readonly settings: { encryptedHere: boolean; encryptedThere: boolean; bytesPerSecond: number | null };
  /** Where the client finds the other node. */
  at: PeerAddress;
  /** Streams that the receiver has answered. */
  received: number;
  send(transfer: Transfer, signal?: AbortSignal, onProgress?: (bytes: number) => void): Promise<void>;
  dispose(): Promise<void>;
};

/** The plugin's carriers, from the source. */
export const carrierScript = join(import.meta.dirname, '../../plugin/peer/carrier-process.ts');

export type PeerPairOptions = {
  /** From when a stream is carried; default: none is. */
  readonly carriedBytes?: number;
  readonly carriersMax?: number;
  readonly carrierScript?: string;
  readonly from: Storage;
  readonly to: Storage;
  readonly limits?: Limits;
  readonly freeBytes?: () => number;
  readonly options?: ReceiveRequest['options'];
};

export const sender = parseNodeName('node-1');
export const receiver = parseNodeName('node-2');
const clusterId = '0123456789abcdef';
const never = new AbortController().signal;

export function makeIdentities(): { readonly one: NodeIdentity; readonly two: NodeIdentity } {
  const authority = makeAuthority(clusterId, Date.now());
  const identify = (name: NodeName): NodeIdentity => {
    const key = makeKey();
    const node = { clusterId, name, address: '127.0.0.1' };
    const store = { port: 1, storeAddress: 'http://127.0.0.1:8500', storeToken: null };
    const ca = { caCertificate: authority.certificate, caKey: authority.key };
    return { ...node, ...store, ...ca, key, certificate: issueCertificate(authority, node, key, Date.now()) };
  };
  return { one: identify(sender), two: identify(receiver) };
}

/** As Copies does, without an owner and epochs. */
export function plainCopies(storage: Storage, options?: ReceiveRequest['options']): ReceiveParts['copies'] {
  return () => ({
    async receive(_peer, { doc, to, from }, read, signal) {
      const request = {
        id: doc.id,
        to,
        from,
        stamp: '{}',
        resumable: true,
        ...(options === undefined ? {} : { options }),
      };
      await read((source, reading) => storage.receive(request, source, AbortSignal.any([reading, signal])));
    },
  });
}

export async function startPeerPair({
  from,
  to,
  limits,
  // Whatever else this machine's disk is full of.
  freeBytes = () => 2 ** 40,
  options,
  carriedBytes = Number.POSITIVE_INFINITY,
  carriersMax = 4,
  carrierScript: script = carrierScript,
}: PeerPairOptions): Promise<PeerPair> {
  const folder = await mkdtemp(join(tmpdir(), 'flock-peers-'));
  const { one, two } = makeIdentities();
  const settings = { encryptedHere: true, encryptedThere: true, bytesPerSecond: null as number | null };
  const partials = createPartials(join(folder, 'partials'), { freeBytes: async () => freeBytes() });
  const door = createDoor({ address: '127.0.0.1', port: 0, ticketMs: 2_000 });
  const pacer: Pacer = createPacer(() => settings.bytesPerSecond);
  const carriers = createCarriers({ script, max: carriersMax, bytesMin: carriedBytes });
  const shut = new Set<NodeName>();
  const shutDoors = { add: (node: NodeName) => void shut.add(node), has: (node: NodeName) => shut.has(node) };
  const common = { folder: join(folder, 'channels'), ...(limits === undefined ? {} : { limits }) };
  const server = await startPeerServer({
    identity: two,
    address: '127.0.0.1',
    port: 0,
    handler: Router(),
    join: async () => ({}),
    isMember: () => true,
    onData: async (socket, peer) => {
      const isEncrypted = () => settings.encryptedThere;
      const copies = plainCopies(to, options);
      await receiveSnapshot(
        { ...common, copies, storage: to, partials, door, carriers, isEncrypted, log },
        socket,
        peer,
      );
      pair.received += 1;
    },
    log,
  });
  const client = createPeerClient({ identity: one, resolve: () => pair.at });
  const pair: PeerPair = {
    client,
    partials,
    door,
    shut,
    folder,
    settings,
    at: { address: '127.0.0.1', port: server.port },
    received: 0,
    send: (transfer, signal = never, onProgress = () => undefined) =>
      sendSnapshot(
        { ...common, client, storage: from, pacer, isEncrypted: () => settings.encryptedHere, carriers, shutDoors },
        receiver,
        transfer,
        onProgress,
        signal,
      ),
    async dispose() {
      client.close();
      door.close();
      await server.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return pair;
}

export const filesOf = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);

/** What happens to the bytes that the client sends through it, counted over all its connections. Once it has happened, it does not again. */
export type Fault = { readonly kind: 'cut' | 'corrupt' | 'stall'; readonly at: number };

/** A line to `target` that breaks as it is told. */
export async function startBadLine(target: PeerAddress): Promise<{
  readonly at: PeerAddress;
  fault: Fault | null;
  /** Bytes from the client so far. */
  passed: number;
  close(): void;
}> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ host: target.address, port: target.port, allowHalfOpen: true });
    let isStalled = false;
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
    }
    const destroy = () => {
      near.destroy();
      far.destroy();
    };
    far.pipe(near);
    near.on('close', destroy).on('end', () => far.end());
    far.on('close', destroy);
    near.on('data', (chunk: Buffer) => {
      const { fault } = line;
      const before = line.passed;
      line.passed += chunk.length;
      if (isStalled) return;
      if (fault === null || line.passed <= fault.at) {
        if (!far.write(chunk)) {
          near.pause();
          far.once('drain', () => near.resume());
        }
        return;
      }
      line.fault = null;
      const offset = fault.at - before;
      if (fault.kind === 'corrupt') {
        chunk[offset] = (chunk[offset] ?? 0) ^ 1;
        far.write(chunk);
        return;
      }
      isStalled = true;
      if (fault.kind === 'stall') near.pause();
      far.write(chunk.subarray(0, offset), () => {
        if (fault.kind === 'cut') destroy();
      });
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const line = {
    at: { address: '127.0.0.1', port: (server.address() as AddressInfo).port },
    fault: null as Fault | null,
    passed: 0,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
  return line;
}
