import type { Endpoint, Table, TableService, Target } from './table.ts';

/**
 * An element of a map in the kernel: who connects to this address and port goes to one of the endpoints. There is none while the
 * service is paused, has no endpoint, or needs what the kernel can't do: the gate listens there.
 */
export type KernelElement = {
  /** `inner`: for other nodes only. */
  readonly map: 'routes' | 'links' | 'inner';
  /** `*`: every address of the node. Of an inner port always. */
  readonly address: string;
  readonly port: number;
  /** Addresses of the only clients; null: everybody. */
  readonly from: readonly string[] | null;
  readonly service: string | null;
  readonly endpoints: readonly Endpoint[];
};

/** All that the kernel is to have of a table. Pure. */
export function kernelElements(table: Table): ReadonlyMap<string, KernelElement> {
  const elements = new Map<string, KernelElement>();
  for (const listener of table.listeners.values()) {
    if (listener.kind !== 'tcp') continue;
    const { address, port, from, target } = listener;
    const endpoints = kernelEndpoints(table.services.get(target.service), target);
    const map = from === null ? 'routes' : 'links';
    if (endpoints.length > 0)
      elements.set(listener.key, { map, address, port, from, service: target.service, endpoints });
  }
  for (const [port, endpoint] of table.inner)
    elements.set(`inner ${port}`, {
      map: 'inner',
      address: '*',
      port,
      from: table.peers,
      service: null,
      endpoints: [endpoint],
    });
  return elements;
}

/** The kernel picks at random, so a service that wants its least busy container is the gate's, as are PROXY protocol headers. */
function kernelEndpoints(service: TableService | undefined, target: Target): readonly Endpoint[] {
  if (service === undefined || service.pause !== null || target.proxyProtocol) return [];
  const endpoints = service.endpoints.get(target.port) ?? [];
  return service.balance === 'least-connections' && endpoints.length > 1 ? [] : endpoints;
}
