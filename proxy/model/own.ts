import type { NodeName } from '../../controller/model/names.ts';
import { type Documents, isCalled } from './collect.ts';
import type { ContainerDoc, ContainerFacts } from './containers.ts';
import type { ServiceName } from './names.ts';
import { allocatePorts, type PortState, portKeys, recallPorts } from './ports.ts';

export type OwnNode = {
  readonly node: NodeName;
  /** An IP address. */
  readonly address: string;
  /** Alone, nobody comes from elsewhere, and there are no inner ports. */
  readonly isMember: boolean;
};

/** What this node's proxy is to say of its containers, and the ports that it has given them. */
export function ownContainers(
  local: readonly ContainerFacts[],
  documents: Documents,
  { node, address, isMember }: OwnNode,
  ports: PortState,
): { readonly containers: readonly ContainerDoc[]; readonly ports: PortState; readonly missing: readonly string[] } {
  const wanted = isMember ? wantedPorts(local, documents, node) : new Map<ServiceName, ReadonlySet<number>>();
  const needs = local.map((facts) => {
    const { service } = facts.declared;
    const stored = documents.links.filter(({ container }) => isCalled(facts, container));
    return {
      facts,
      inner: service === null ? [] : [...(wanted.get(service) ?? [])],
      links: facts.gateway === null ? [] : [...new Set([...facts.declared.links, ...stored].map(({ port }) => port))],
    };
  });
  const keys = needs.flatMap(({ facts: { id }, inner, links }) => [
    ...inner.map((port) => portKeys.inner(id, port)),
    ...links.map((port) => portKeys.link(id, port)),
  ]);
  const before = documents.containers.filter((container) => container.node === node);
  const documented = portsOf(before);
  const { state, missing } = allocatePorts(keys, recallPorts(ports, documented), Object.values(documented));
  const given = (list: readonly number[], keyOf: (port: number) => string) =>
    Object.fromEntries(
      list
        .toSorted((a, b) => a - b)
        .flatMap((port) => {
          const found = state.held[keyOf(port)];
          return found === undefined ? [] : [[String(port), found]];
        }),
    );
  const containers = needs.map(({ facts, inner, links }) => ({
    ...facts,
    node,
    inner: { address, ports: given(inner, (port) => portKeys.inner(facts.id, port)) },
    linkPorts: given(links, (port) => portKeys.link(facts.id, port)),
  }));
  return { containers, ports: state, missing };
}

/** The ports of services that any route or link of the cluster leads to, also one that has lost to an older one. */
export function wantedPorts(
  local: readonly ContainerFacts[],
  documents: Documents,
  node: NodeName,
): ReadonlyMap<ServiceName, ReadonlySet<number>> {
  const wanted = new Map<ServiceName, Set<number>>();
  const want = (service: ServiceName | null, port: number) => {
    if (service === null) return;
    const ports = wanted.get(service);
    if (ports === undefined) wanted.set(service, new Set([port]));
    else ports.add(port);
  };
  for (const { service, targetPort } of [...documents.routes, ...documents.links]) want(service, targetPort);
  const others = documents.containers.filter((container) => container.node !== node);
  for (const { declared } of [...others, ...local]) {
    for (const { targetPort } of declared.routes) want(declared.service, targetPort);
    for (const { service, targetPort } of declared.links) want(service, targetPort);
  }
  return wanted;
}

function portsOf(containers: readonly ContainerDoc[]): Readonly<Record<string, number>> {
  return Object.fromEntries(
    containers.flatMap(({ id, inner, linkPorts }) => [
      ...Object.entries(inner.ports).map(([port, given]) => [portKeys.inner(id, port), given] as const),
      ...Object.entries(linkPorts).map(([port, given]) => [portKeys.link(id, port), given] as const),
    ]),
  );
}
