import type { Logger } from 'pino';
import type { Observe } from './gate/observe.ts';
import type { InFlight } from './gate/services.ts';
import type { Figures, ProxyMetrics, ServiceFigures } from './metrics.ts';
import { shortId } from './model/collect.ts';
import type { ServiceName } from './model/names.ts';
import { formatEntrance, formatLinkSource } from './model/route-text.ts';
import type { Seen } from './model/status.ts';
import { linkKey, type TableService } from './model/table.ts';
import type { Stack } from './stack/stack.ts';

/** Of all services together: layers are asked one service after the other. */
const inFlightMsMax = 1_000;

export type FigureParts = {
  readonly seen: () => Seen | null;
  readonly stack: Pick<Stack, 'problems' | 'generation' | 'inFlight'>;
  readonly isStoreUp: () => boolean;
  readonly isDockerUp: () => boolean;
};

/** What the gauges show now. */
export async function readFigures({ seen, stack, isStoreUp, isDockerUp }: FigureParts): Promise<Figures> {
  const now = seen();
  const problems = now?.problems ?? stack.problems();
  return {
    generation: now?.table.generation ?? 0,
    servedGeneration: stack.generation(),
    isStoreUp: isStoreUp(),
    isDockerUp: isDockerUp(),
    problems: problems.size,
    layerProblems: [...stack.problems().keys()].flatMap((key) => layerOf(key) ?? []),
    services: await serviceFigures([...(now?.table.services.values() ?? [])], stack.inFlight),
  };
}

const layers: readonly string[] = ['gate', 'kernel', 'haproxy'];

/** The layer that a problem is of as a whole; null: one route or listener of many. Pure. */
export function layerOf(key: string): string | null {
  const name = key.replace(/^layer /, '');
  return layers.includes(name) ? name : null;
}

/** A layer that does not have the newest table, and why: what it serves is old. Null: all have it. Pure. */
export function unserved(problems: ReadonlyMap<string, string>): string | null {
  for (const [key, text] of problems) if (key === 'gate' || key.startsWith('layer ')) return `${key}: ${text}`;
  return null;
}

async function serviceFigures(
  services: readonly TableService[],
  ask: (service: ServiceName) => Promise<InFlight>,
): Promise<readonly ServiceFigures[]> {
  const endMs = performance.now() + inFlightMsMax;
  const figures: ServiceFigures[] = [];
  // Paused ones first: what they hold is what people look for.
  for (const { name, pause, endpoints } of services.toSorted(
    (a, b) => Number(b.pause !== null) - Number(a.pause !== null),
  )) {
    const ids = new Set([...endpoints.values()].flat().map(({ id }) => id));
    // A service may have gone meanwhile.
    const inFlight = performance.now() < endMs ? await ask(name).catch(() => null) : null;
    figures.push({ name, isPaused: pause !== null, backends: ids.size, inFlight });
  }
  return figures;
}

/** What routes and links are called in metrics: the same after a container was made anew, which their ids are not. Pure. */
export function routeNames({ collected, documents }: Seen): ReadonlyMap<string, string> {
  const names = new Map(collected.records.routes.map(({ id, entrance }) => [id, formatEntrance(entrance)]));
  const containers = new Map(documents.containers.map(({ id, name }) => [id, name]));
  for (const link of collected.records.links) {
    const client = containers.get(link.client) ?? shortId(link.client);
    names.set(`link ${linkKey(link)}`, `link ${client} ${formatLinkSource(link.host, link.port)}`);
  }
  return names;
}

/** Counts what was served, and writes it down where that is wanted. */
export function createObserver(metrics: ProxyMetrics, log: Logger, isLogged: () => boolean): Observe {
  return ({ route, service, client, durationMs, weight, request }) => {
    if (request === null) metrics.observeConnection(route, service);
    else metrics.observeRequest(route, service, request.status, durationMs / 1000, weight);
    if (!isLogged()) return;
    const event = request === null ? 'access.connection' : 'access.request';
    log.info({ event, client, ...request, ms: Math.round(durationMs * 10) / 10, route, service });
  };
}
