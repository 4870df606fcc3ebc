import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import express, { type Router } from 'express';
import pino from 'pino';
import { loadIdentity } from '../../controller/cluster/files.ts';
import { admit } from '../../controller/cluster/joining.ts';
import { type AliveDoc, keys } from '../../controller/model/cluster.ts';
import type { NodeIdentity, PeerAddress } from '../../controller/model/identity.ts';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { createMemoryStore, type MemoryStore } from '../../controller/store/memory.ts';
import type { SessionId, Store } from '../../controller/store/store.ts';
import { createPeerClient, type PeerClient } from '../../plugin/peer/client.ts';
import { type PeerServer, startPeerServer } from '../../plugin/peer/server.ts';
import type { ClusterDeps } from '../../plugin/server/cluster-api.ts';

/** Hosts on the loopback address that can make and join clusters: real files, real TLS, one store in memory. */
export type ClusterHosts = {
  readonly shared: MemoryStore;
  /** To look at and to change what the hosts see. */
  readonly store: Store;
  nowMs: number;
  add(handler?: Router): Promise<ClusterHost>;
  dispose(): Promise<void>;
};

export type ClusterHost = {
  readonly deps: ClusterDeps;
  identity(): NodeIdentity;
  server(): PeerServer;
  client(): PeerClient;
  address(): PeerAddress;
  /** Data streams that it was given. */
  readonly streams: { readonly socket: TLSSocket; readonly peer: NodeName }[];
};

export const log = pino({ level: 'silent' });

export function createClusterHosts(): ClusterHosts {
  let random = 0;
  const clock = {
    nowMs: () => Date.now(),
    sleep: async (ms: number, signal?: AbortSignal) => void (await sleep(ms, undefined, { signal })),
  };
  const shared = createMemoryStore({
    clock,
    timeoutMs: 1_000,
    random: () => {
      random = (random * 1_103_515_245 + 12_345) % 2 ** 31;
      return random / 2 ** 31;
    },
  });
  const ends: (() => Promise<void>)[] = [];
  const nodes = new Map<NodeName, PeerAddress>();
  const hosts: ClusterHosts = {
    shared,
    store: shared.connect('test'),
    nowMs: Date.now(),
    async add(handler = express.Router()) {
      const folder = await mkdtemp(join(tmpdir(), 'flock-member-'));
      ends.push(() => rm(folder, { recursive: true }));
      let running: { identity: NodeIdentity; store: Store; server: PeerServer; client: PeerClient } | null = null;
      const get = () => {
        if (running === null) throw new Error('not in a cluster');
        return running;
      };
      const streams: ClusterHost['streams'] = [];
      const deps: ClusterDeps = {
        folder,
        identity: () => running?.identity ?? null,
        store: () => running?.store ?? null,
        openStore: async () => shared.connect(folder),
        volumeNames: () => [],
        format: () => 'btrfs',
        nowMs: () => hosts.nowMs,
        hostFacts: async () => ({ hostName: 'Some_Host.example', routed: '127.0.0.1', addresses: [] }),
        async joined(identity) {
          const store = shared.connect(identity.name);
          const server = await startPeerServer({
            identity,
            address: '127.0.0.1',
            port: 0,
            handler,
            join: (body) => admit(store, identity, body, hosts.nowMs),
            isMember: async (name) => (await store.get(keys.node(name), { fresh: true })) !== null,
            onData: (socket, peer) => void streams.push({ socket, peer }),
            log,
          });
          const client = createPeerClient({ identity, resolve: (name) => nodes.get(name) ?? null });
          nodes.set(identity.name, { address: '127.0.0.1', port: server.port });
          running = { identity, store, server, client };
          ends.unshift(async () => {
            client.close();
            await server.close();
            await store.close();
          });
        },
      };
      return {
        deps,
        identity: () => get().identity,
        server: () => get().server,
        client: () => get().client,
        address: () => ({ address: '127.0.0.1', port: get().server.port }),
        streams,
      };
    },
    async dispose() {
      for (const end of ends) await end();
      await hosts.store.close();
      shared.close();
    },
  };
  return hosts;
}

/** As the plugin of a living node does. */
export async function makeAlive(store: Store, name: string): Promise<SessionId> {
  const session = await store.createSession({ name, ttlMs: 3_600_000, lockDelayMs: 0 });
  const value = JSON.stringify({ incarnation: session, version: '1.0.0' } satisfies AliveDoc);
  await store.transact([{ kind: 'lock', key: keys.alive(parseNodeName(name)), value, session }]);
  return session;
}

/** As the plugin finds it when it starts. */
export function identityOf(host: ClusterHost): Promise<NodeIdentity | null> {
  return loadIdentity(host.deps.folder);
}
