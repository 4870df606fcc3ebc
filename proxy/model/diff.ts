import type { Endpoint, HostIndex, Listener, Table, TableService, Target } from './table.ts';
import { targetsOf } from './table.ts';

/** What to do to get from one table to the next, per layer. Every list is in the order of the keys, so equal inputs give equal texts. */
export type TableChanges = {
  readonly from: number;
  readonly to: number;
  readonly kernel: readonly Change<KernelElement>[];
  readonly haproxy: readonly Change<HaproxyEntry>[];
  readonly gate: readonly Change<GateListener>[];
};

export type Change<T> =
  | { readonly kind: 'set'; readonly key: string; readonly value: T }
  | { readonly kind: 'remove'; readonly key: string; readonly value: T };

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

export type HaproxyEntry =
  | {
      readonly kind: 'route';
      readonly listener: string;
      readonly host: string;
      readonly path: string;
      readonly service: string;
      readonly port: number;
    }
  | { readonly kind: 'server'; readonly service: string; readonly port: number; readonly endpoint: Endpoint }
  | { readonly kind: 'balance'; readonly service: string; readonly balance: string }
  | { readonly kind: 'paused'; readonly service: string };

export type GateListener = { readonly kind: Listener['kind']; readonly address: string; readonly port: number };

export function diffTable(from: Table, to: Table): TableChanges {
  return {
    from: from.generation,
    to: to.generation,
    kernel: difference(kernelElements(from), kernelElements(to)),
    haproxy: difference(haproxyEntries(from), haproxyEntries(to)),
    gate: difference(gateListeners(from), gateListeners(to)),
  };
}

/** The whole state that the kernel should have: what is rebuilt after it was lost. */
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

/** The whole state that HAProxy should have. */
export function haproxyEntries(table: Table): ReadonlyMap<string, HaproxyEntry> {
  const entries = new Map<string, HaproxyEntry>();
  const used = new Set<string>();
  for (const listener of table.listeners.values()) {
    if (listener.kind === 'tcp') continue;
    for (const target of targetsOf(listener)) used.add(target.service);
    for (const { host, path, target } of routesOf(listener.hosts)) {
      const { service, port } = target;
      entries.set(`route ${listener.key} ${host} ${path}`, {
        kind: 'route',
        listener: listener.key,
        host,
        path,
        service,
        port,
      });
    }
  }
  for (const service of table.services.values()) {
    if (!used.has(service.name)) continue;
    const { name, balance } = service;
    entries.set(`balance ${name}`, { kind: 'balance', service: name, balance });
    if (service.pause !== null) entries.set(`paused ${name}`, { kind: 'paused', service: name });
    for (const [port, endpoints] of service.endpoints)
      for (const endpoint of endpoints)
        entries.set(`server ${name} ${port} ${endpoint.id}`, { kind: 'server', service: name, port, endpoint });
  }
  return entries;
}

export function gateListeners(table: Table): ReadonlyMap<string, GateListener> {
  return new Map([...table.listeners.values()].map(({ key, kind, address, port }) => [key, { kind, address, port }]));
}

/** The kernel picks at random, so a service that wants its least busy container is the gate's, as are PROXY protocol headers. */
function kernelEndpoints(service: TableService | undefined, target: Target): readonly Endpoint[] {
  if (service === undefined || service.pause !== null || target.proxyProtocol) return [];
  const endpoints = service.endpoints.get(target.port) ?? [];
  return service.balance === 'least-connections' && endpoints.length > 1 ? [] : endpoints;
}

function* routesOf(hosts: HostIndex) {
  for (const [host, paths] of hosts.exact) for (const [path, target] of paths.targets) yield { host, path, target };
  for (const [name, paths] of hosts.below)
    for (const [path, target] of paths.targets) yield { host: `*.${name}`, path, target };
  if (hosts.any !== null) for (const [path, target] of hosts.any.targets) yield { host: '*', path, target };
}

/** Removals first, so that what is freed can be taken again. */
function difference<T>(from: ReadonlyMap<string, T>, to: ReadonlyMap<string, T>): readonly Change<T>[] {
  const removed: Change<T>[] = [];
  const set: Change<T>[] = [];
  for (const [key, value] of from) if (!to.has(key)) removed.push({ kind: 'remove', key, value });
  for (const [key, value] of to) {
    const before = from.get(key);
    // All values are made here, field by field in one order.
    if (before === undefined || JSON.stringify(before) !== JSON.stringify(value)) set.push({ kind: 'set', key, value });
  }
  const inOrder = (a: Change<T>, b: Change<T>) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
  return [...removed.toSorted(inOrder), ...set.toSorted(inOrder)];
}
