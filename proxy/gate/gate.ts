import type { SecureContext } from 'node:tls';
import { emptyTable, type Listener, type Table } from '../model/table.ts';
import { createHttpGate } from './http-gate.ts';
import { defaultLimits, type GateLimits } from './limits.ts';
import { createListeners, type ListenerStatus } from './listeners.ts';
import { createServices, type Services } from './services.ts';
import { createTcpGate } from './tcp-gate.ts';

/**
 * A whole proxy in this process: listens where the table says, and can hold. `apply` swaps the table at once for everything that
 * comes after; what has begun goes on as it was.
 */
export type Gate = Pick<Services, 'pause' | 'release' | 'inFlight' | 'drain'> & {
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
  readonly nowMs?: () => number;
};

export function createGate(options: GateOptions = {}): Gate {
  const limits: GateLimits = { ...defaultLimits, ...options.limits };
  const services = createServices(limits, options.nowMs);
  const tcp = createTcpGate({ services, limits });
  const http = createHttpGate({
    services,
    limits,
    tcp,
    certificate: options.certificate ?? (() => null),
    isTrusted: options.isTrusted ?? (() => false),
  });
  let table = emptyTable;
  const current = (key: string): Listener | null => table.listeners.get(key) ?? null;
  const listeners = createListeners((listener) => {
    if (listener.kind !== 'tcp') return http.serve(listener, () => current(listener.key));
    return tcp.serve(listener, () => {
      const now = current(listener.key);
      return now?.kind === 'tcp' ? now.target : null;
    });
  });
  let isClosed = false;

  return {
    async apply(next) {
      if (isClosed || next.generation < table.generation) return listeners.status();
      table = next;
      services.apply(next);
      return listeners.set(next.listeners);
    },
    generation: () => table.generation,
    status: listeners.status,
    pause: services.pause,
    release: services.release,
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
