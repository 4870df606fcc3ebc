import { createServer, type Socket } from 'node:net';
import type { Listener, Target } from '../model/table.ts';
import { dial, keepAliveMs } from './dial.ts';
import type { GateLimits } from './limits.ts';
import type { GateListenerServer } from './listeners.ts';
import type { Observe } from './observe.ts';
import { type Ends, encodeHeader, endsOf } from './proxy-protocol.ts';
import type { Services } from './services.ts';
import { join } from './tunnel.ts';

/**
 * Connections as they are, for databases and everything that is not HTTP. A connection is accepted, waits while its service is
 * paused, and is then joined to one to a container. While it waits at most `heldBodyBytesMax` of it are read.
 */
export type TcpGate = {
  /** A server for a tcp listener, not listening yet. `current`: the listener as the newest table has it. */
  serve(current: () => Listener | null): GateListenerServer;
  /** Takes a connection that was accepted (with half-open allowed) elsewhere. `ends`: of the client's own connection. */
  take(client: Socket, target: Target, ends: Ends | null): void;
};

export function createTcpGate(options: {
  readonly services: Services;
  readonly limits: GateLimits;
  readonly observe: Observe;
}): TcpGate {
  const { services, limits, observe } = options;

  function take(client: Socket, target: Target, ends: Ends | null): void {
    const startMs = performance.now();
    client.once('close', () => {
      const { route, service } = target;
      const durationMs = performance.now() - startMs;
      observe({ route, service, client: ends?.client.address ?? '', durationMs, weight: 1, request: null });
    });
    client.on('error', nothing);
    // Reads up to the stream's limit and no further, and tells the end of a client that has sent nothing: that one has left. A
    // client that has sent something and ended waits for its answer.
    client.on('readable', nothing);
    let held: { leave(): void } | null = null;
    const leave = () => {
      held?.leave();
      client.destroy();
    };
    client.once('end', leave);
    client.once('close', leave);
    held = services.enter({
      service: target.service,
      bytes: connectionBytes,
      go(pass) {
        client.removeListener('end', leave);
        client.removeListener('close', leave);
        if (client.destroyed) return pass.done();
        const isWanted = () => !client.destroyed;
        dial(pass, target.port, limits, isWanted).then(
          (service) => {
            if (service === null) {
              client.resetAndDestroy();
              pass.done();
              return;
            }
            if (client.destroyed) {
              service.destroy();
              pass.done();
              return;
            }
            client.removeListener('readable', nothing);
            if (target.proxyProtocol) service.write(encodeHeader(ends));
            pass.becomeTunnel(join(client, service, limits, pass.done));
          },
          () => {
            client.destroy();
            pass.done();
          },
        );
      },
      refuse() {
        client.destroy();
      },
    });
  }

  return {
    serve(current) {
      const clients = new Set<Socket>();
      const server = createServer(
        {
          allowHalfOpen: true,
          noDelay: true,
          keepAlive: true,
          keepAliveInitialDelay: keepAliveMs,
          highWaterMark: limits.heldBodyBytesMax,
        },
        (client) => {
          clients.add(client);
          client.once('close', () => clients.delete(client));
          const listener = current();
          if (listener?.kind !== 'tcp') {
            client.destroy();
            return;
          }
          const ends = endsOf(client);
          const isMeant = listener.from === null || (ends !== null && listener.from.includes(ends.client.address));
          // As if nobody listened.
          if (isMeant) take(client, listener.target, ends);
          else client.resetAndDestroy();
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
    },
    take,
  };
}

/** A socket with its two streams, as the heap has it; what it may read comes on top. */
const connectionBytes = 4096;
const nothing = () => {};
