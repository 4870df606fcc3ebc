import { createServer, type Socket } from 'node:net';
import type { Endpoint } from '../model/table.ts';
import { connectWithin } from './agents.ts';
import { keepAliveMs } from './dial.ts';
import type { GateLimits } from './limits.ts';
import type { GateListenerServer } from './listeners.ts';
import { endsOf } from './proxy-protocol.ts';
import { join } from './tunnel.ts';

/**
 * Inner ports where the kernel does not have them: what other nodes' proxies send to a container of this node. They hold and count,
 * this passes on. Resets whoever is no peer, as if nobody listened.
 */
export function serveInner(
  limits: GateLimits,
  current: () => { readonly endpoint: Endpoint; readonly peers: readonly string[] } | null,
): GateListenerServer {
  const clients = new Set<Socket>();
  const server = createServer(
    { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs, pauseOnConnect: true },
    (client) => {
      clients.add(client);
      client.once('close', () => clients.delete(client));
      client.on('error', () => {});
      const now = current();
      const from = endsOf(client)?.client.address;
      if (now === null || from === undefined || !now.peers.includes(from)) {
        client.resetAndDestroy();
        return;
      }
      const { host, port } = now.endpoint;
      const service = connectWithin(limits.connectMsMax, { host, port, allowHalfOpen: true, keepAlive: true });
      const refuse = () => client.resetAndDestroy();
      const leave = () => service.destroy();
      service.once('error', refuse);
      client.once('close', leave);
      service.once('connect', () => {
        service.removeListener('error', refuse);
        client.removeListener('close', leave);
        join(client, service, limits, () => {});
      });
    },
  );
  server.maxConnections = limits.connectionsPerListenerMax;
  return {
    server,
    retire() {},
    cut() {
      for (const client of clients) client.destroy();
    },
  };
}
