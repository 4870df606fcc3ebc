import type { NodeName } from '../controller/model/names.ts';
import type { Documents } from './model/collect.ts';
import type { ContainerDoc, ContainerFacts } from './model/containers.ts';
import { type ProxyNodeDoc, proxyKeys } from './model/keys.ts';
import { type OwnNode, ownContainers } from './model/own.ts';
import type { PortState } from './model/ports.ts';

/** Documents as they were seen last, and whose they were: this host may have changed its name and its cluster since. */
export type Base = {
  readonly documents: Documents;
  /** This node at that time. */
  readonly self: NodeName;
  /** Null: the host was in no cluster. */
  readonly clusterId: string | null;
};

export type Composed = {
  readonly documents: Documents;
  readonly own: readonly ContainerDoc[];
  readonly ports: PortState;
  /** For which there was no port. */
  readonly missing: readonly string[];
};

/**
 * What the table is made of: of other nodes what they say in the store, of this node what Docker says now. `local`: null while Docker
 * has never answered; then this node's containers are those of before. After another boot of the host (`isSameBoot` is false) they are
 * nowhere until then: where they were others may be by now. Pure.
 */
export function compose(parts: {
  readonly base: Base;
  readonly own: OwnNode;
  readonly local: readonly ContainerFacts[] | null;
  readonly isSameBoot: boolean;
  readonly ports: PortState;
  readonly node: ProxyNodeDoc;
}): Composed {
  const { base, own, local, isSameBoot, ports, node } = parts;
  const { documents, self } = base;
  const isOther = (name: NodeName) => base.clusterId !== null && name !== own.node && name !== self;
  const others = documents.containers.filter((container) => isOther(container.node));
  const nodes = [...documents.nodes.filter(({ name }) => isOther(name)), node];
  const before = documents.containers
    .filter((container) => container.node === self)
    .map((container) => ({ ...container, node: own.node }));
  const made =
    local === null
      ? { containers: isSameBoot ? before : before.map(withoutPlace), ports, missing: [] }
      : ownContainers(local, { ...documents, containers: [...others, ...before] }, own, ports);
  return {
    documents: { ...documents, containers: [...others, ...made.containers], nodes },
    own: made.containers,
    ports: made.ports,
    missing: made.missing,
  };
}

function withoutPlace(container: ContainerDoc): ContainerDoc {
  return { ...container, address: null, gateway: null, healthy: false, starting: false };
}

const problemsMax = 64;
const problemCharactersMax = 1_000;

/** As a document has room for them, in an order that does not change by itself. Pure. */
export function problemsOf(problems: ReadonlyMap<string, string>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    [...problems]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .slice(0, problemsMax)
      .map(([key, text]) => [key, text.slice(0, problemCharactersMax)]),
  );
}

/** What the store is to have of this node, by key. Pure. */
export function wantedOf(node: ProxyNodeDoc, containers: readonly ContainerDoc[]): ReadonlyMap<string, string> {
  // The node first: others wait for its word about pauses.
  return new Map([
    [proxyKeys.node(node.name), JSON.stringify(node)],
    ...containers.map((one) => [proxyKeys.container(one.node, one.id), JSON.stringify(one)] as const),
  ]);
}
