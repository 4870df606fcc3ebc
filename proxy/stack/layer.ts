import type { ServiceName } from '../model/names.ts';
import type { Table } from '../model/table.ts';

/**
 * What carries connections in front of the gate: the kernel, HAProxy. A layer keeps no truth of its own: `apply` brings it from
 * whatever it has (after a restart, too) to what the table says, and changes only what differs.
 */
export type Layer = {
  readonly name: 'kernel' | 'haproxy';
  /**
   * Resolves when everything that is new goes as the table says, and paused services' connections go to the gate. Rejects if that
   * can't be reached; it is called again then. Calls do not overlap. A table equal to the last one costs next to nothing.
   */
  apply(table: Table): Promise<void>;
  /** What could not be fulfilled of the last table, by `Listener.key` or route: the rest works. */
  problems(): ReadonlyMap<string, string>;
  /** What runs through this layer now. Requests and tunnels (WebSockets, TCP connections) are counted apart. */
  inFlight(service: ServiceName): Promise<{ readonly requests: number; readonly tunnels: number }>;
  /** Ends the tunnels of a service; answers how many there were. */
  cutTunnels(service: ServiceName): Promise<number>;
  /** Lets go; what it serves stays as it is. */
  close(): Promise<void>;
};
