import type { Endpoint, HostIndex, Listener, Table, TableService } from './table.ts';
import { linkKey, targetsOf } from './table.ts';

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

/** An element of a map in the kernel: connections to it go to the endpoints, or to the gate while the service is paused. */
export type KernelElement = {
  readonly map: 'routes' | 'links';
  /** Of a route the address, of a link the client container. */
  readonly at: string;
  readonly port: number;
  readonly service: string;
  readonly to: { readonly kind: 'endpoints'; readonly endpoints: readonly Endpoint[] } | { readonly kind: 'gate' };
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
    const { service, port } = listener.target;
    const to = destination(table.services.get(service), port);
    elements.set(`route ${listener.key}`, { map: 'routes', at: listener.address, port: listener.port, service, to });
  }
  for (const link of table.links.values()) {
    const to = destination(table.services.get(link.service), link.targetPort);
    elements.set(`link ${linkKey(link)}`, {
      map: 'links',
      at: link.client,
      port: link.port,
      service: link.service,
      to,
    });
  }
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

function destination(service: TableService | undefined, port: number): KernelElement['to'] {
  if (service === undefined) return { kind: 'endpoints', endpoints: [] };
  return service.pause === null
    ? { kind: 'endpoints', endpoints: service.endpoints.get(port) ?? [] }
    : { kind: 'gate' };
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
