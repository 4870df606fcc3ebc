import type { NodeName } from '../../controller/model/names.ts';
import { buildListeners } from './listeners.ts';
import type { HostPattern, ServiceName } from './names.ts';
import type { Balance, LinkDoc, LinkPlace, Pause, ProxyRecords, ServiceDoc, UpstreamDoc } from './records.ts';

/**
 * Everything a proxy needs to know, made anew from the records with each change and swapped in as a whole. Plain data: what
 * a layer has to change follows from it and from what the layer has.
 */
export type Table = {
  readonly generation: number;
  /** By `Listener.key`. */
  readonly listeners: ReadonlyMap<string, Listener>;
  readonly services: ReadonlyMap<ServiceName, TableService>;
  /** Those of this node's containers, by `linkKey`. */
  readonly links: ReadonlyMap<string, TableLink>;
  /** This node's inner ports, by their number. */
  readonly inner: ReadonlyMap<number, Endpoint>;
  /** Who may use inner ports. */
  readonly peers: readonly string[];
  /** What could not be fulfilled, for people: the rest works. */
  readonly conflicts: readonly Conflict[];
};

/** Exactly one per address and port: two protocols can't share a port, but https and tls do. */
export type Listener =
  | {
      readonly kind: 'http';
      readonly key: string;
      readonly address: '*';
      readonly port: number;
      readonly hosts: HostIndex;
    }
  | {
      readonly kind: 'tls';
      readonly key: string;
      readonly address: '*';
      readonly port: number;
      readonly hosts: HostIndex;
    }
  | {
      readonly kind: 'tcp';
      readonly key: string;
      readonly address: string;
      readonly port: number;
      readonly target: Target;
      /** Addresses of the clients that may use it; null: everybody. */
      readonly from: readonly string[] | null;
    };

/** Where a route leads. `tls`: passed through as it is; `https`: ended here with this certificate. */
export type Target = {
  readonly route: string;
  readonly service: ServiceName;
  readonly port: number;
  readonly mode: 'http' | 'tls' | 'tcp' | { readonly certificate: string };
  /** The service is told the client's address by PROXY protocol v2. Of tls and tcp only. */
  readonly proxyProtocol: boolean;
};

export type HostIndex = {
  readonly exact: ReadonlyMap<string, PathIndex>;
  /** `*.example.com` by `example.com`. */
  readonly below: ReadonlyMap<string, PathIndex>;
  readonly any: PathIndex | null;
};

export type PathIndex = {
  readonly targets: ReadonlyMap<string, Target> /** Of the longest prefix; `/` has none. */;
  readonly segments: number;
};

export type TableService = {
  readonly name: ServiceName;
  readonly balance: Balance;
  readonly pause: Pause | null;
  /** Of healthy containers, by port of the container. A port that nothing leads to is not there. */
  readonly endpoints: ReadonlyMap<number, readonly Endpoint[]>;
};

export type Endpoint = { readonly id: string; readonly host: string; readonly port: number };

export type TableLink = {
  readonly client: string;
  readonly host: HostPattern | null;
  readonly port: number;
  readonly service: ServiceName;
  readonly targetPort: number;
  readonly place: LinkPlace;
};

export type Conflict = {
  /** The route, link or service that lost or has a problem. */
  readonly id: string;
  readonly kind: 'route-taken' | 'port-taken' | 'link-taken' | 'service-missing' | 'several-places';
  readonly text: string;
};

/** `self`: the node that the table is for. Of two claims to one thing the older one keeps it. */
export function buildTable(records: ProxyRecords, self: NodeName | null): Table {
  const conflicts: Conflict[] = [];
  const services = new Map(records.services.map((service) => [service.name, service]));
  const known = <T extends { readonly id: string; readonly service: ServiceName; readonly createdAtMs: number }>(
    docs: readonly T[],
  ) =>
    docs.toSorted(byAge).filter((doc) => {
      if (services.has(doc.service)) return true;
      const text = `there is no service ${doc.service}: start a container with the label flock.service=${doc.service}`;
      conflicts.push({ id: doc.id, kind: 'service-missing', text });
      return false;
    });
  const listeners = buildListeners(known(records.routes), conflicts);
  const own = records.links.filter((link) => self === null || link.place.node === self);
  const links = buildLinks(known(own), conflicts);
  for (const link of links.values()) addLinkListener(listeners, link);
  const wanted = wantedPorts(listeners.values(), links.values());
  return {
    generation: records.generation,
    listeners,
    services: buildServices(records, wanted, self, conflicts),
    links,
    inner: buildInner(records.upstreams, self),
    peers: records.peers,
    conflicts,
  };
}

export const emptyTable: Table = {
  generation: 0,
  listeners: new Map(),
  services: new Map(),
  links: new Map(),
  inner: new Map(),
  peers: [],
  conflicts: [],
};

export function linkKey(link: {
  readonly client: string;
  readonly port: number;
  readonly host: HostPattern | null;
}): string {
  return `${link.client} ${link.port} ${link.host ?? ''}`;
}

function buildLinks(links: readonly LinkDoc[], conflicts: Conflict[]): ReadonlyMap<string, TableLink> {
  const byPort = new Map<string, LinkDoc>();
  const found = new Map<string, TableLink>();
  for (const link of links) {
    // localhost:PORT is the same for all links of a container, whatever other name they have.
    const claim = `${link.client} ${link.port}`;
    const owner = byPort.get(claim);
    if (owner !== undefined && !isSameTarget(owner, link)) {
      const text = `port ${link.port} of the container leads to ${owner.service}:${owner.targetPort} already, so not to ${link.service}:${link.targetPort}: choose another port`;
      conflicts.push({ id: link.id, kind: 'link-taken', text });
      continue;
    }
    byPort.set(claim, owner ?? link);
    const { client, host, port, service, targetPort, place } = link;
    found.set(linkKey(link), { client, host, port, service, targetPort, place });
  }
  return found;
}

/** Where the gate takes the connections of a link that the kernel does not, from its container only. */
function addLinkListener(listeners: Map<string, Listener>, link: TableLink): void {
  const { client, gateway, port } = link.place;
  const key = `tcp ${gateway}:${port}`;
  const target: Target = {
    route: `link ${linkKey(link)}`,
    service: link.service,
    port: link.targetPort,
    mode: 'tcp',
    proxyProtocol: false,
  };
  listeners.set(key, { kind: 'tcp', key, address: gateway, port, target, from: [client] });
}

/** Unhealthy containers too: other nodes decide whom to send to. */
function buildInner(upstreams: readonly UpstreamDoc[], self: NodeName | null): ReadonlyMap<number, Endpoint> {
  const inner = new Map<number, Endpoint>();
  for (const upstream of upstreams) {
    if (upstream.node !== self) continue;
    for (const [port, outer] of Object.entries(upstream.inner.ports))
      inner.set(outer, { id: upstream.container, host: upstream.address, port: Number(port) });
  }
  return inner;
}

function wantedPorts(
  listeners: Iterable<Listener>,
  links: Iterable<TableLink>,
): ReadonlyMap<ServiceName, ReadonlySet<number>> {
  const wanted = new Map<ServiceName, Set<number>>();
  const want = (service: ServiceName, port: number) => {
    const ports = wanted.get(service);
    if (ports === undefined) wanted.set(service, new Set([port]));
    else ports.add(port);
  };
  for (const listener of listeners) for (const target of targetsOf(listener)) want(target.service, target.port);
  for (const link of links) want(link.service, link.targetPort);
  return wanted;
}

function buildServices(
  records: ProxyRecords,
  wanted: ReadonlyMap<ServiceName, ReadonlySet<number>>,
  self: NodeName | null,
  conflicts: Conflict[],
): ReadonlyMap<ServiceName, TableService> {
  const byService = (upstreams: readonly UpstreamDoc[]) =>
    Map.groupBy(upstreams.toSorted(byStart), (upstream) => upstream.service);
  const healthy = byService(records.upstreams.filter((upstream) => upstream.healthy));
  // Docker's first check comes half a minute after the start as a rule: where nobody else serves, that would be a pause.
  const starting = byService(records.upstreams.filter((upstream) => upstream.starting === true));
  return new Map(
    records.services.map((service) => {
      const upstreams = placesOf(service, healthy.get(service.name) ?? starting.get(service.name) ?? [], conflicts);
      const endpoints = new Map<number, readonly Endpoint[]>();
      for (const port of wanted.get(service.name) ?? [])
        endpoints.set(
          port,
          upstreams.flatMap((upstream) => endpointOf(upstream, port, self)),
        );
      const { name, balance, pause } = service;
      return [name, { name, balance, pause, endpoints }];
    }),
  );
}

/** A stateful service's data is in one place; a second container is a mistake, and the first one has the clients. */
function placesOf(
  service: ServiceDoc,
  upstreams: readonly UpstreamDoc[],
  conflicts: Conflict[],
): readonly UpstreamDoc[] {
  const [first, ...others] = upstreams;
  if (!service.stateful || first === undefined || others.length === 0) return upstreams;
  const text = `service ${service.name} is stateful but runs in ${upstreams.length} containers: only ${first.container} on ${first.node} is used, stop the others`;
  conflicts.push({ id: service.name, kind: 'several-places', text });
  return [first];
}

function endpointOf(upstream: UpstreamDoc, port: number, self: NodeName | null): readonly Endpoint[] {
  if (self === null || upstream.node === self) return [{ id: upstream.container, host: upstream.address, port }];
  const inner = upstream.inner.ports[String(port)];
  // Its node has not opened the inner port yet.
  return inner === undefined ? [] : [{ id: upstream.container, host: upstream.inner.address, port: inner }];
}

export function* targetsOf(listener: Listener): Generator<Target> {
  if (listener.kind === 'tcp') {
    yield listener.target;
    return;
  }
  const { exact, below, any } = listener.hosts;
  for (const paths of exact.values()) yield* paths.targets.values();
  for (const paths of below.values()) yield* paths.targets.values();
  if (any !== null) yield* any.targets.values();
}

function isSameTarget(a: LinkDoc, b: LinkDoc): boolean {
  return a.service === b.service && a.targetPort === b.targetPort;
}

type Aged = { readonly id: string; readonly createdAtMs: number };
function byAge(a: Aged, b: Aged): number {
  return a.createdAtMs - b.createdAtMs || compare(a.id, b.id);
}

function byStart(a: UpstreamDoc, b: UpstreamDoc): number {
  return a.startedAtMs - b.startedAtMs || compare(a.container, b.container);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
