import type { LinkView, OriginView, RouteView, ServiceView } from '../../controller/model/proxy-api.ts';
import { isCalled, type Origin, shortId } from '../model/collect.ts';
import type { ContainerDoc } from '../model/containers.ts';
import type { StoredLink } from '../model/keys.ts';
import type { LinkDoc, RouteDoc, ServiceDoc } from '../model/records.ts';
import { formatEntrance } from '../model/route-text.ts';
import { idleLinkState, linkConflicts, linkState, type RouteState, routeState, type Seen } from '../model/status.ts';

/** What the lists show, from what this node sees. Pure. */

export function routeRows(seen: Seen): readonly RouteView[] {
  return seen.collected.records.routes
    .map((route) => routeRow(route, seen))
    .toSorted((a, b) => compare(a.address, b.address) || a.createdAtMs - b.createdAtMs || compare(a.id, b.id));
}

export function routeRow(route: RouteDoc, seen: Seen): RouteView {
  const { id, entrance, service, targetPort, createdAtMs } = route;
  const { state, text } = routeState(route, seen);
  return {
    id,
    address: formatEntrance(entrance),
    service,
    port: targetPort,
    certificate: entrance.protocol === 'https' ? entrance.certificate : null,
    proxyProtocol: 'proxyProtocol' in entrance && entrance.proxyProtocol,
    origin: originOf(seen.collected.origins.get(id)),
    createdAtMs,
    state,
    reason: text,
  };
}

/** One row for each container that has a link, and one for each link that waits for its container. */
export function linkRows(seen: Seen): readonly LinkView[] {
  const { containers, links: stored } = seen.documents;
  const conflicts = linkConflicts(seen);
  const records = new Map(seen.collected.records.links.map((link) => [link.id, link]));
  const stateOf = (id: string, container: string): RouteState => {
    const record: LinkDoc | undefined = records.get(id);
    return record === undefined
      ? idleLinkState(container, seen)
      : linkState(record, conflicts.get(record.place.node) ?? [], seen);
  };
  const declared = containers.flatMap((container) =>
    container.declared.links.map((link): LinkView => {
      const id = `${shortId(container.id)}/${link.label}`;
      const origin = { kind: 'label', label: link.label, container: container.name, node: container.node } as const;
      return row({ ...link, id, createdAtMs: container.createdAtMs }, container, origin, stateOf(id, container.id));
    }),
  );
  const made = stored.flatMap((link) => {
    const origin = { kind: 'flockctl' } as const;
    const found = containers.filter((container) => isCalled(container, link.container));
    if (found.length === 0) return [row(link, link.container, origin, stateOf(link.id, link.container))];
    return found.map((container) =>
      row(link, container, origin, stateOf(`${link.id}/${shortId(container.id)}`, container.id)),
    );
  });
  return [...declared, ...made].toSorted(
    (a, b) => compare(a.container, b.container) || a.port - b.port || compare(a.id, b.id),
  );
}

function row(
  { id, host, port, service, targetPort, createdAtMs }: Omit<StoredLink, 'container'>,
  container: ContainerDoc | string,
  origin: OriginView,
  { state, text }: RouteState,
): LinkView {
  const place =
    typeof container === 'string'
      ? { container, node: null }
      : { container: container.name, node: String(container.node) };
  return { id, ...place, host, port, service, servicePort: targetPort, origin, createdAtMs, state, reason: text };
}

export function serviceRow(service: ServiceDoc, seen: Seen, inFlight: ServiceView['inFlight']): ServiceView {
  const { name, stateful, balance, pause } = service;
  const containers = containersOf(name, seen);
  const { documents, collected } = seen;
  const declared = documents.containers.flatMap((container) => container.declared.links);
  return {
    name,
    stateful,
    balance,
    containers: {
      total: containers.length,
      healthy: containers.filter(({ healthy }) => healthy).length,
      starting: containers.filter(({ healthy, starting }) => !healthy && starting === true).length,
    },
    nodes: [...new Set(containers.map(({ node }) => String(node)))].toSorted(),
    routes: collected.records.routes.filter((route) => route.service === name).length,
    links: [...declared, ...documents.links].filter((link) => link.service === name).length,
    pause,
    inFlight,
  };
}

export function containersOf(service: string, { documents }: Seen): readonly ContainerDoc[] {
  return documents.containers
    .filter(({ declared }) => declared.service === service)
    .toSorted((a, b) => compare(a.node, b.node) || compare(a.name, b.name));
}

/** What made a route or link, for people. */
export function describeOrigin(origin: OriginView): string {
  if (origin.kind === 'flockctl') return 'made by flockctl';
  return `made by label ${origin.label} of container ${origin.container} on ${origin.node}`;
}

function originOf(origin: Origin | undefined): OriginView {
  return origin ?? { kind: 'flockctl' };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
