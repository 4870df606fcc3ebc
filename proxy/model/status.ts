import type { NodeName } from '../../controller/model/names.ts';
import { type Collected, type Documents, isCalled } from './collect.ts';
import type { ContainerDoc } from './containers.ts';
import type { ProxyNodeDoc } from './keys.ts';
import type { Entrance, LinkDoc, RouteDoc } from './records.ts';
import { buildTable, type Conflict, linkKey, type Table } from './table.ts';

/** How a route or link is, as this node sees it. `text` says why, for people; null where there is nothing to say. */
export type RouteState = { readonly state: RouteStateName; readonly text: string | null };
export const routeStates = ['serving', 'paused', 'conflict', 'problem', 'no-container'] as const;
export type RouteStateName = (typeof routeStates)[number];

export type Seen = {
  readonly documents: Documents;
  readonly collected: Collected;
  readonly table: Table;
  /** Of listeners and layers on this node, by key. */
  readonly problems: ReadonlyMap<string, string>;
};

const serving: RouteState = { state: 'serving', text: null };

export function routeState(route: RouteDoc, seen: Seen): RouteState {
  const conflict = seen.table.conflicts.find(({ id }) => id === route.id);
  if (conflict !== undefined) return { state: 'conflict', text: conflict.text };
  const { entrance } = route;
  const certificate = entrance.protocol === 'https' ? [`certificate ${entrance.certificate}`] : [];
  const keys = [...certificate, listenerKeyOf(entrance), route.id];
  return problemOf(keys, seen.problems, livingOf(seen)) ?? targetState(route, seen);
}

/** `conflicts`: those of the link's node, see `linkConflicts`. */
export function linkState(link: LinkDoc, conflicts: readonly Conflict[], seen: Seen): RouteState {
  const conflict = conflicts.find(({ id }) => id === link.id);
  if (conflict !== undefined) return { state: 'conflict', text: conflict.text };
  const keys = [`tcp ${link.place.gateway}:${link.place.port}`, linkKey(link)];
  // Gateways and link ports are the same on many nodes; this node's own document is among them.
  const nodes = livingOf(seen).filter(({ name }) => name === link.place.node);
  return problemOf(keys, new Map(), nodes) ?? targetState(link, seen);
}

/** This node's table has its own links only. */
export function linkConflicts({ collected: { records } }: Seen): ReadonlyMap<NodeName, readonly Conflict[]> {
  const nodes = new Set(records.links.map(({ place }) => place.node));
  return new Map(
    [...nodes].map((node) => {
      const { conflicts } = buildTable({ ...records, generation: 0, routes: [], upstreams: [] }, node);
      return [node, conflicts];
    }),
  );
}

/** Of a link that no container has now. */
export function idleLinkState(container: string, { documents }: Seen): RouteState {
  const found = documents.containers.find((one) => isCalled(one, container));
  if (found === undefined) return { state: 'no-container', text: `there is no container ${container}` };
  const [problem] = found.problems;
  return { state: 'no-container', text: problem?.text ?? `container ${found.name} on ${found.node} is ${found.state}` };
}

export function listenerKeyOf(entrance: Entrance): string {
  const { protocol, port } = entrance;
  if (protocol === 'tcp') return `tcp ${entrance.address}:${port}`;
  return `${protocol === 'http' ? 'http' : 'tls'} *:${port}`;
}

function targetState({ service, targetPort }: RouteDoc | LinkDoc, { documents, table }: Seen): RouteState {
  const found = table.services.get(service);
  if (found?.pause) return { state: 'paused', text: `until ${new Date(found.pause.untilMs).toISOString()}` };
  // A link of another node is not in this table; its own node knows how it is.
  const endpoints = found?.endpoints.get(targetPort);
  if (endpoints !== undefined ? endpoints.length > 0 : hasHealthy(documents, service)) return serving;
  const own = documents.containers.filter(({ declared }) => declared.service === service);
  const list = own.slice(0, containersNamedMax).map((one) => `${one.name} on ${one.node} is ${conditionOf(one)}`);
  const text = own.length === 0 ? 'no container runs this service' : `no healthy container: ${list.join(', ')}`;
  return { state: 'no-container', text };
}

const containersNamedMax = 5;

/** How a container is, for people. */
export function conditionOf({ state, healthy, starting, closedPorts = [] }: ContainerDoc): string {
  if (state !== 'running' || healthy) return state;
  if (starting !== true) return 'not healthy';
  if (closedPorts.length === 0) return 'starting';
  return `starting, and takes no connections at port ${closedPorts.join(' and ')} yet`;
}

function hasHealthy(documents: Documents, service: string): boolean {
  return documents.containers.some(
    ({ declared, healthy, starting }) => (healthy || starting === true) && declared.service === service,
  );
}

function livingOf({ documents: { nodes, members } }: Seen): readonly ProxyNodeDoc[] {
  return nodes.filter(({ name }) => members === null || members.get(name)?.alive === true);
}

/** Of the first key that has one, here before elsewhere. */
function problemOf(
  keys: readonly string[],
  own: ReadonlyMap<string, string>,
  nodes: readonly ProxyNodeDoc[],
): RouteState | null {
  for (const key of keys) {
    const here = own.get(key);
    if (here !== undefined) return { state: 'problem', text: here };
  }
  for (const key of keys)
    for (const { name, problems } of nodes) {
      const there = problems[key];
      if (there !== undefined) return { state: 'problem', text: `on ${name}: ${there}` };
    }
  return null;
}
