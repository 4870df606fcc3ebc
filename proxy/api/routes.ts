import { FlockError } from '../../controller/model/errors.ts';
import { type NodeName, quote } from '../../controller/model/names.ts';
import type { MadeRouteView } from '../../controller/model/proxy-api.ts';
import { proxyKeys } from '../model/keys.ts';
import type { RouteDoc, ServiceDoc } from '../model/records.ts';
import { formatEntrance, parseServiceRoute } from '../model/route-text.ts';
import type { Seen } from '../model/status.ts';
import { buildTable } from '../model/table.ts';
import { routeCertificateNotes } from './certificates.ts';
import { existingService } from './near.ts';
import { type ProxyApiParts, seenBy, selfOf } from './parts.ts';
import { poll } from './poll.ts';
import { describeOrigin, routeRow } from './rows.ts';
import { createDocument, removeDocument } from './store-documents.ts';

/** How long an answer waits for this node's table to have what was changed. */
export const seenMsMax = 2_000;
const storedId = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** `force`: also to a service that no container has yet. */
export async function addRoute(
  parts: ProxyApiParts,
  text: string,
  force: boolean,
  signal: AbortSignal,
): Promise<MadeRouteView> {
  const wanted = parseServiceRoute(text);
  const seen = seenBy(parts);
  if (!force) existingService(wanted.service, seen, missingServiceRemedy);
  const createdAtMs = parts.nowMs();
  const refusal = routeRefusal({ ...wanted, id: 'new', createdAtMs }, seen, selfOf(parts));
  if (refusal !== null) throw refusal;
  const made = await createDocument(parts.store(), proxyKeys.route, (id): RouteDoc => ({ ...wanted, id, createdAtMs }));
  const after = await poll(seenMsMax, signal, () => {
    const now = seenBy(parts);
    return now.documents.routes.some(({ id }) => id === made.id) ? now : null;
  });
  const route = routeRow(made, after ?? seenBy(parts));
  return { route, notes: [...routeCertificateNotes(made.entrance, after ?? seen, parts.nowMs())] };
}

export const missingServiceRemedy = '. --force makes it all the same, for a service that comes later';

/** Why a route can't be made; null: it can. Pure. */
export function routeRefusal(route: RouteDoc, { collected }: Seen, self: NodeName): FlockError | null {
  const { records, origins } = collected;
  const address = formatEntrance(route.entrance);
  const twin = records.routes.find(({ entrance }) => formatEntrance(entrance) === address);
  if (twin !== undefined) {
    const origin = origins.get(twin.id) ?? ({ kind: 'flockctl' } as const);
    const remedy =
      origin.kind === 'flockctl'
        ? `"flockctl route rm ${twin.id}" removes that route`
        : 'it goes with that container, or with the label';
    return new FlockError(
      'route-exists',
      `${address} leads to ${twin.service}:${twin.targetPort} already, ${describeOrigin(origin)}: ${remedy}`,
      { id: twin.id },
    );
  }
  // The table itself says what fits into it; this one is the youngest, and its service counts as there.
  const isKnown = records.services.some(({ name }) => name === route.service);
  const services = isKnown ? records.services : [...records.services, serviceToCome(route)];
  const routes = [...records.routes, { ...route, createdAtMs: Number.MAX_SAFE_INTEGER }];
  const { conflicts } = buildTable({ ...records, generation: 0, services, routes }, self);
  const conflict = conflicts.find(({ id }) => id === route.id);
  if (conflict === undefined) return null;
  return new FlockError(conflict.kind === 'port-taken' ? 'port-taken' : 'route-exists', conflict.text, { address });
}

export async function removeRoute(parts: ProxyApiParts, id: string, signal: AbortSignal): Promise<void> {
  if (storedId.test(id) && (await removeDocument(parts.store(), proxyKeys.route(id)))) {
    await poll(seenMsMax, signal, () =>
      seenBy(parts).documents.routes.some((route) => route.id === id) ? null : true,
    );
    return;
  }
  const origin = seenBy(parts).collected.origins.get(id);
  if (origin?.kind === 'label')
    throw new FlockError(
      'made-by-label',
      `route ${id} is ${describeOrigin(origin)}: start that container without the label`,
      { id },
    );
  throw new FlockError('route-not-found', `there is no route ${quote(id)}: "flockctl route ls" shows them`, { id });
}

function serviceToCome({ service: name }: RouteDoc): ServiceDoc {
  return { name, createdAtMs: 0, balance: 'round-robin', stateful: false, pause: null };
}
