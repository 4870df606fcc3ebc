import type { HostPattern, PathPrefix } from './names.ts';
import type { RouteDoc } from './records.ts';
import type { Conflict, Listener, Target } from './table.ts';

type Claims = {
  readonly listeners: Map<string, Listener>;
  readonly byPort: Map<number, Listener[]>;
  readonly owners: Map<string, RouteDoc>;
};
type Growing = { exact: Map<string, GrowingPaths>; below: Map<string, GrowingPaths>; any: GrowingPaths | null };
type GrowingPaths = { targets: Map<string, Target>; segments: number };

/**
 * Takes the routes in the order of their age: the first claim to a host and path, or to a port, keeps it; the others are reported
 * in `conflicts`.
 */
export function buildListeners(routes: readonly RouteDoc[], conflicts: Conflict[]): Map<string, Listener> {
  const claims: Claims = { listeners: new Map(), byPort: new Map(), owners: new Map() };
  for (const route of routes) {
    const kind = kindOf(route);
    const address = route.entrance.protocol === 'tcp' ? route.entrance.address : '*';
    const { port } = route.entrance;
    const rival = claims.byPort.get(port)?.find((other) => overlaps(other, kind, address));
    if (rival !== undefined) {
      const text = `port ${port} is used for ${rival.kind} by an older route, so ${describe(route)} is not served: choose another port`;
      conflicts.push({ id: route.id, kind: 'port-taken', text });
      continue;
    }
    const claim = claimOf(route);
    const owner = claims.owners.get(claim);
    if (owner !== undefined) {
      if (isSameTarget(owner, route)) continue;
      const text = `${describe(route)} belongs to service ${owner.service}, whose route is older, so it does not lead to ${route.service}:${route.targetPort}`;
      conflicts.push({ id: route.id, kind: 'route-taken', text });
      continue;
    }
    const modeClaim = `mode ${port} ${hostOfRoute(route)}`;
    const modeOwner = kind === 'tls' ? claims.owners.get(modeClaim) : undefined;
    if (modeOwner !== undefined && modeOwner.entrance.protocol !== route.entrance.protocol) {
      const text = `${describe(route)}: an older route of service ${modeOwner.service} has this host as ${modeOwner.entrance.protocol}`;
      conflicts.push({ id: route.id, kind: 'route-taken', text });
      continue;
    }
    claims.owners.set(claim, route);
    if (kind === 'tls' && modeOwner === undefined) claims.owners.set(modeClaim, route);
    add(claims, route, kind, address);
  }
  return claims.listeners;
}

function add(claims: Claims, route: RouteDoc, kind: Listener['kind'], address: string): void {
  const { entrance } = route;
  const key = `${kind} ${address}:${entrance.port}`;
  const target: Target = {
    route: route.id,
    service: route.service,
    port: route.targetPort,
    mode: modeOf(entrance),
    proxyProtocol: 'proxyProtocol' in entrance && entrance.proxyProtocol,
  };
  const listener = claims.listeners.get(key) ?? open(claims, key, kind, { address, port: entrance.port, target });
  if (listener.kind === 'tcp' || entrance.protocol === 'tcp') return;
  // Only this function has made them, and nobody else has seen them yet.
  const hosts = listener.hosts as Growing;
  const path = entrance.protocol === 'tls' ? '/' : entrance.path;
  const paths = pathsOf(hosts, entrance.host);
  paths.targets.set(path, target);
  paths.segments = Math.max(paths.segments, segmentsOf(path));
}

function open(
  claims: Claims,
  key: string,
  kind: Listener['kind'],
  at: { readonly address: string; readonly port: number; readonly target: Target },
): Listener {
  const hosts: Growing = { exact: new Map(), below: new Map(), any: null };
  const listener: Listener =
    kind === 'tcp' ? { kind, key, ...at, from: null } : { kind, key, address: '*', port: at.port, hosts };
  claims.listeners.set(key, listener);
  const onPort = claims.byPort.get(at.port);
  if (onPort === undefined) claims.byPort.set(at.port, [listener]);
  else onPort.push(listener);
  return listener;
}

function pathsOf(hosts: Growing, host: HostPattern): GrowingPaths {
  if (host === '*') {
    hosts.any ??= { targets: new Map(), segments: 0 };
    return hosts.any;
  }
  const [map, name] = host.startsWith('*.') ? [hosts.below, host.slice(2)] : [hosts.exact, host];
  let paths = map.get(name);
  if (paths === undefined) {
    paths = { targets: new Map(), segments: 0 };
    map.set(name, paths);
  }
  return paths;
}

function kindOf(route: RouteDoc): Listener['kind'] {
  const { protocol } = route.entrance;
  return protocol === 'https' ? 'tls' : protocol;
}

function modeOf(entrance: RouteDoc['entrance']): Target['mode'] {
  return entrance.protocol === 'https' ? { certificate: entrance.certificate } : entrance.protocol;
}

/** Linux binds a port either for all addresses or for single ones. */
function overlaps(other: Listener, kind: Listener['kind'], address: string): boolean {
  if (other.kind === kind && other.address === address) return false;
  return other.address === address || other.address === '*' || address === '*';
}

function claimOf(route: RouteDoc): string {
  const { entrance } = route;
  if (entrance.protocol === 'tcp') return `tcp ${entrance.address} ${entrance.port}`;
  const path = entrance.protocol === 'tls' ? '/' : entrance.path;
  return `${entrance.protocol} ${entrance.port} ${entrance.host} ${path}`;
}

function hostOfRoute({ entrance }: RouteDoc): string {
  return entrance.protocol === 'tcp' ? entrance.address : entrance.host;
}

/** As people write it in a label. */
export function describe({ entrance }: RouteDoc): string {
  if (entrance.protocol === 'tcp') return `tcp://${entrance.address === '*' ? '' : entrance.address}:${entrance.port}`;
  const standardPort = entrance.protocol === 'http' ? 80 : 443;
  const port = entrance.port === standardPort ? '' : `:${entrance.port}`;
  const path = entrance.protocol === 'tls' || entrance.path === '/' ? '' : entrance.path;
  return `${entrance.protocol}://${entrance.host.includes(':') ? `[${entrance.host}]` : entrance.host}${port}${path}`;
}

function segmentsOf(path: PathPrefix | '/'): number {
  return path === '/' ? 0 : path.split('/').length - 1;
}

function isSameTarget(a: RouteDoc, b: RouteDoc): boolean {
  return a.service === b.service && a.targetPort === b.targetPort;
}
