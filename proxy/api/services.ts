import { listBelow } from '../../controller/cluster/entries.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { ProxyStatusView, ServiceDetailView, ServiceView } from '../../controller/model/proxy-api.ts';
import { type ProxyNodeDoc, proxyKeys, proxyNodeSchema } from '../model/keys.ts';
import type { ServiceName } from '../model/names.ts';
import type { ServiceDoc } from '../model/records.ts';
import { conditionOf, type Seen } from '../model/status.ts';
import { drainedNodes, livingNodes, pausedNodes } from './acknowledgement.ts';
import { existingService } from './near.ts';
import { type ProxyApiParts, seenBy, selfOf } from './parts.ts';
import { containersOf, linkRows, routeRows, serviceRow } from './rows.ts';
import { readable } from './store-documents.ts';

/** Counting may ask the kernel and HAProxy once for each service, and a listing must not wait for ever. */
const countsMsMax = 2_000;
const countsAtATimeMax = 4;

export async function listServices(parts: ProxyApiParts): Promise<readonly ServiceView[]> {
  const seen = seenBy(parts);
  const { services } = seen.collected.records;
  const counts = await countInFlight(
    parts,
    services.map(({ name }) => name),
  );
  return services.map((service) => serviceRow(service, seen, counts.get(service.name) ?? null));
}

export async function inspectService(parts: ProxyApiParts, name: ServiceName): Promise<ServiceDetailView> {
  const seen = seenBy(parts);
  const service = existingService(name, seen);
  const counts = await countInFlight(parts, [name]);
  const documents = (await listBelow(parts.store(), proxyKeys.nodes)).flatMap(
    ({ value }) => readable(proxyNodeSchema, value) ?? [],
  );
  return {
    service: serviceRow(service, seen, counts.get(name) ?? null),
    containers: containersOf(name, seen).map((one) => {
      const { id, node, state, healthy, address } = one;
      return { id, name: one.name, node, state, condition: conditionOf(one), healthy, address };
    }),
    routes: routeRows(seen).filter((route) => route.service === name),
    links: linkRows(seen).filter((link) => link.service === name),
    ...pauseOf(service, livingNodes(seen.documents.members, selfOf(parts)), documents),
    problems: problemsOf(name, seen),
  };
}

/** Each node's proxy, and what of the labels can't be used. Pure. */
export function proxyStatus({ documents, collected, table }: Seen, self: NodeName): ProxyStatusView {
  const { members, nodes } = documents;
  const alive = new Set(livingNodes(members, self));
  const names = [...new Set([...alive, ...(members?.keys() ?? [])])].toSorted();
  return {
    nodes: names.map((name) => {
      const doc = nodes.find((one) => one.name === name);
      return { name, alive: alive.has(name), proxy: doc === undefined ? null : viewProxy(doc) };
    }),
    problems: [
      ...collected.problems,
      ...table.conflicts
        .filter(({ kind }) => kind === 'several-places')
        .map(({ id, text }) => ({ where: `service ${id}`, text })),
    ],
  };
}

function viewProxy({ address, version, startedAtMs, pauses, problems }: ProxyNodeDoc) {
  return {
    address,
    version,
    startedAtMs,
    pauses: pauses.length,
    problems: Object.entries(problems).map(([where, text]) => ({ where, text })),
  };
}

function pauseOf(
  { pause }: ServiceDoc,
  living: readonly NodeName[],
  documents: readonly ProxyNodeDoc[],
): Pick<ServiceDetailView, 'paused' | 'drained'> {
  if (pause === null) return { paused: [], drained: [] };
  const { id, drain } = pause;
  const drained = drain === null ? [] : drainedNodes({ pause: id, untilMs: drain.untilMs }, living, documents).reports;
  return { paused: [...pausedNodes(id, living, documents)], drained: [...drained] };
}

function problemsOf(name: ServiceName, seen: Seen): string[] {
  const own = new Set([
    `service ${name}`,
    ...containersOf(name, seen).map((container) => `container ${container.name} on ${container.node}`),
  ]);
  return [
    ...seen.collected.problems.filter(({ where }) => own.has(where)).map(({ where, text }) => `${where}: ${text}`),
    ...seen.table.conflicts.filter(({ id }) => id === name).map(({ text }) => text),
  ];
}

/** What is not known in time is not in the answer. */
async function countInFlight(
  { inFlight }: ProxyApiParts,
  names: readonly ServiceName[],
): Promise<ReadonlyMap<ServiceName, ServiceView['inFlight']>> {
  const counts = new Map<ServiceName, ServiceView['inFlight']>();
  const rest = names.values();
  let isOver = false;
  const work = async (): Promise<void> => {
    for (const name of rest) {
      if (isOver) return;
      const count = await inFlight(name).catch(() => null);
      if (count !== null) counts.set(name, { requests: count.requests, tunnels: count.tunnels, held: count.held });
    }
  };
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, countsMsMax);
  await Promise.race([Promise.all(Array.from({ length: countsAtATimeMax }, work)), over.promise]);
  clearTimeout(timer);
  isOver = true;
  return new Map(counts);
}
