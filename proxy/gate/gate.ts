import type { SecureContext } from 'node:tls';
import { emptyTable, type Listener, type Table } from '../model/table.ts';
import { doorsOf, innerDoors } from './doors.ts';
import { createHttpGate } from './http-gate.ts';
import { serveInner } from './inner.ts';
import { defaultLimits, type GateLimits } from './limits.ts';
import { createListeners, type ListenerStatus } from './listeners.ts';
import type { Observe } from './observe.ts';
import { createServices, type Services } from './services.ts';
import { createTcpGate } from './tcp-gate.ts';

/**
 * A whole proxy in this process: listens where the table says, and can hold. `apply` swaps the table at once for everything that
 * comes after; what has begun goes on as it was.
 */
export type Gate = Pick<Services, 'pause' | 'release' | 'pauses' | 'inFlight' | 'drain'> & {
  /** Resolves when each listener is open or has failed, with the state of all. Tables older than the current one are ignored. */
  apply(table: Table): Promise<readonly ListenerStatus[]>;
  /** What is served now. */
  generation(): number;
  status(): readonly ListenerStatus[];
  /** Stops listening, lets what runs end for at most `graceMs`, and cuts the rest. */
  close(graceMs: number): Promise<void>;
};

export type GateOptions = {
  readonly limits?: Partial<GateLimits>;
  readonly certificate?: (name: string) => SecureContext | null;
  readonly isTrusted?: (address: string) => boolean;
  /** Told of each request and connection when it is over. */
  readonly observe?: Observe;
  /** Of unix sockets: HAProxy has the ports of http and tls listeners, and sends what it does not serve itself there. */
  readonly behind?: string;
  /** Without a kernel layer the gate has the inner ports, too. */
  readonly inner?: boolean;
  readonly nowMs?: () => number;
};

export function createGate(options: GateOptions = {}): Gate {
  const limits: GateLimits = { ...defaultLimits, ...options.limits };
  const services = createServices(limits, options.nowMs);
  const observe = options.observe ?? (() => {});
  const tcp = createTcpGate({ services, limits, observe });
  const http = createHttpGate({
    services,
    limits,
    tcp,
    observe,
    certificate: options.certificate ?? (() => null),
    isTrusted: options.isTrusted ?? (() => false),
  });
  let table = emptyTable;
  const current = (key: string): Listener | null => table.listeners.get(key) ?? null;
  const innerOf = (port: number) => {
    const endpoint = table.inner.get(port);
    return endpoint === undefined ? null : { endpoint, peers: table.peers };
  };
  const listeners = createListeners((door) => {
    if (door.kind === 'inner') return serveInner(limits, () => innerOf(Number(door.of)));
    const now = () => current(door.of);
    return door.kind === 'tcp' ? tcp.serve(now) : http.serve(door, now);
  });
  let isClosed = false;

  return {
    async apply(next) {
      if (isClosed || next.generation < table.generation) return listeners.status();
      table = next;
      services.apply(next);
      const doors = [...next.listeners.values()].flatMap((listener) => doorsOf(listener, options.behind ?? null));
      return listeners.set([...doors, ...(options.inner === true ? innerDoors(next) : [])]);
    },
    generation: () => table.generation,
    status: listeners.status,
    pause: services.pause,
    release: services.release,
    pauses: services.pauses,
    inFlight: services.inFlight,
    drain: services.drain,
    async close(graceMs) {
      isClosed = true;
      await listeners.close();
      const names = [...table.services.keys()];
      await Promise.all(names.map((name) => services.drain(name, graceMs)));
      services.close();
      listeners.cut();
    },
  };
}
