import type { NodeName } from '../../controller/model/names.ts';
import type { ContainerDoc, ContainerFacts } from './containers.ts';
import type { ProxyNodeDoc, ServiceSettings, StoredCertificate, StoredLink } from './keys.ts';
import type { ServiceName } from './names.ts';
import type { LinkDoc, Pause, ProxyRecords, RouteDoc, ServiceDoc, UpstreamDoc } from './records.ts';

/** Everything that the store has for the proxies. */
export type Documents = {
  readonly containers: readonly ContainerDoc[];
  readonly nodes: readonly ProxyNodeDoc[];
  readonly routes: readonly RouteDoc[];
  readonly links: readonly StoredLink[];
  readonly services: readonly ServiceSettings[];
  readonly certificates: readonly StoredCertificate[];
  /** The nodes of the cluster; null: this host is in none. */
  readonly members: ReadonlyMap<NodeName, MemberSeen> | null;
};

export type MemberSeen = {
  /** It has a session. */
  readonly alive: boolean;
  readonly poolLost?: boolean | undefined;
  /** It has none, and answers this node all the same. */
  readonly reached?: boolean | undefined;
};

export const noDocuments: Documents = {
  containers: [],
  nodes: [],
  routes: [],
  links: [],
  services: [],
  certificates: [],
  members: null,
};

/** Who made a route or link. */
export type Origin =
  | { readonly kind: 'label'; readonly label: string; readonly container: string; readonly node: NodeName }
  | { readonly kind: 'flockctl' };

/** `where`: a container, a service, a link. */
export type Problem = { readonly where: string; readonly text: string };

export type Collected = {
  readonly records: Omit<ProxyRecords, 'generation'>;
  /** Of routes and links, by id. */
  readonly origins: ReadonlyMap<string, Origin>;
  /** Of links made by flockctl: their id in the store, by the id of the record. */
  readonly storedLinks: ReadonlyMap<string, string>;
  readonly problems: readonly Problem[];
};

/** `self`: this node, which counts as alive whatever the store says. */
export function collect(documents: Documents, self: NodeName, nowMs: number): Collected {
  const { members } = documents;
  const isMember = (node: NodeName) => members === null || node === self || members.has(node);
  const isAlive = (node: NodeName) => members === null || node === self || members.get(node)?.alive === true;
  const containers = documents.containers.filter(({ node }) => isMember(node));
  // One that waits for a disk that has failed still runs for Docker, and can't be ended: not where another serves.
  const isStuck = ({ node, hasVolume }: ContainerDoc) => hasVolume === true && members?.get(node)?.poolLost === true;
  const others = containers.filter((one) => isAlive(one.node) && !isStuck(one));
  const servicesWhere = (is: (one: ContainerDoc) => boolean) =>
    new Set(others.flatMap((one) => (is(one) ? (one.declared.service ?? []) : [])));
  const sound = servicesWhere(({ healthy }) => healthy);
  // Where it waits for its disk, one that has just been started is nearer to an answer.
  const begun = servicesWhere(({ healthy, starting }) => healthy || starting === true);
  const isServedElsewhere = ({ declared }: ContainerDoc) => declared.service !== null && sound.has(declared.service);
  const isBegunElsewhere = ({ declared }: ContainerDoc) => declared.service !== null && begun.has(declared.service);
  // A node that is cut off from the store only may still be the one that its volumes belong to.
  const isReached = ({ node }: ContainerDoc) => members?.get(node)?.reached === true;
  const mayServe = (one: ContainerDoc) =>
    isAlive(one.node) ? !(isStuck(one) && isBegunElsewhere(one)) : isReached(one) && !isServedElsewhere(one);
  const problems: Problem[] = containers.flatMap(({ name, node, problems: own }) =>
    own.map(({ text }) => ({ where: `container ${name} on ${node}`, text })),
  );
  const origins = new Map<string, Origin>();
  const storedLinks = new Map<string, string>();
  const routes: RouteDoc[] = documents.routes.map((route) => {
    origins.set(route.id, { kind: 'flockctl' });
    return route;
  });
  const links: LinkDoc[] = [];
  for (const container of containers) {
    const { declared, createdAtMs } = container;
    const made = (label: string): string => {
      const id = `${shortId(container.id)}/${label}`;
      origins.set(id, { kind: 'label', label, container: container.name, node: container.node });
      return id;
    };
    const { service } = declared;
    for (const { label, entrance, targetPort } of declared.routes)
      if (service !== null) routes.push({ id: made(label), service, createdAtMs, entrance, targetPort });
    for (const { label, ...link } of declared.links)
      addLink(links, container, { ...link, id: made(label), createdAtMs });
    for (const stored of documents.links) {
      if (!isCalled(container, stored.container)) continue;
      const id = `${stored.id}/${shortId(container.id)}`;
      origins.set(id, { kind: 'flockctl' });
      storedLinks.set(id, stored.id);
      addLink(links, container, { ...stored, id });
    }
  }
  const records = {
    services: servicesOf(containers, documents.services, nowMs, problems),
    routes,
    links,
    upstreams: containers.flatMap((container) => upstreamOf(container, mayServe(container))),
    peers: members === null ? [] : documents.nodes.filter(({ name }) => isMember(name)).map(({ address }) => address),
  };
  return { records, origins, storedLinks, problems };
}

/** The pause that holds now; null: there is none, or its time is over. */
export function pauseNow(pause: Pause | null, nowMs: number): Pause | null {
  return pause !== null && pause.untilMs > nowMs ? pause : null;
}

/** When the first of the pauses that hold now ends by itself; null: there is none. */
export function nextPauseEndMs(services: readonly ServiceSettings[], nowMs: number): number | null {
  const ends = services.flatMap(({ pause }) => pauseNow(pause, nowMs)?.untilMs ?? []);
  return ends.length === 0 ? null : Math.min(...ends);
}

/** By name, or by the first twelve or more digits of its id. */
export function isCalled({ id, name }: Pick<ContainerFacts, 'id' | 'name'>, text: string): boolean {
  return name === text || (text.length >= shortIdLength && id.startsWith(text));
}

/** A service is there while a container declares it, running or not, and while it is paused: it may just be moving. */
function servicesOf(
  containers: readonly ContainerDoc[],
  settings: readonly ServiceSettings[],
  nowMs: number,
  problems: Problem[],
): readonly ServiceDoc[] {
  const pauses = new Map(settings.map(({ name, pause }) => [name, pauseNow(pause, nowMs)]));
  const byService = Map.groupBy(containers, ({ declared }) => declared.service);
  const services = new Map<ServiceName, ServiceDoc>();
  for (const [name, own] of byService) {
    if (name === null) continue;
    const sorted = own.toSorted((a, b) => a.createdAtMs - b.createdAtMs || (a.id < b.id ? -1 : 1));
    const [oldest, newest] = [sorted[0], sorted.at(-1)];
    if (oldest === undefined || newest === undefined) continue;
    const { balance } = newest.declared;
    const stateful = own.some(({ declared }) => declared.stateful);
    const differing = own.find(({ declared }) => declared.balance !== balance || declared.stateful !== stateful);
    if (differing !== undefined)
      problems.push({
        where: `service ${name}`,
        text: `its containers have different labels flock.balance or flock.stateful: it is ${stateful ? 'stateful' : 'not stateful'}, with ${balance} as its newest container ${newest.name} says`,
      });
    services.set(name, {
      name,
      createdAtMs: oldest.createdAtMs,
      balance,
      stateful,
      pause: pauses.get(name) ?? null,
    });
  }
  for (const [name, pause] of pauses)
    if (pause !== null && !services.has(name))
      // Nobody knows how old it is; the same each time, or the table would differ each time.
      services.set(name, { name, createdAtMs: 0, balance: 'round-robin', stateful: false, pause });
  return [...services.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function upstreamOf(container: ContainerDoc, mayServe: boolean): readonly UpstreamDoc[] {
  const { id, declared, node, startedAtMs, address, inner } = container;
  if (declared.service === null || address === null) return [];
  const healthy = container.healthy && mayServe;
  const starting = container.starting === true && mayServe;
  return [{ container: id, service: declared.service, node, startedAtMs, healthy, starting, address, inner }];
}

function addLink(
  links: LinkDoc[],
  { id: client, node, address, gateway, linkPorts }: ContainerDoc,
  link: Omit<LinkDoc, 'client' | 'place'>,
): void {
  const linkPort = linkPorts[String(link.port)];
  // It does not run, or its node has not given it a port yet.
  if (address === null || gateway === null || linkPort === undefined) return;
  const { id, createdAtMs, host, port, service, targetPort } = link;
  const place = { node, client: address, gateway, port: linkPort };
  links.push({ id, client, createdAtMs, host, port, service, targetPort, place });
}

export const shortIdLength = 12;

export function shortId(id: string): string {
  return id.slice(0, shortIdLength);
}
