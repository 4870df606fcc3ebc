import { randomBytes } from 'node:crypto';
import { listBelow } from '../../controller/cluster/entries.ts';
import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { DrainView, PausedNodeView, PauseView, ReleaseView } from '../../controller/model/proxy-api.ts';
import { formatDuration } from '../../controller/model/quantity.ts';
import type { Store } from '../../controller/store/store.ts';
import { pauseNow } from '../model/collect.ts';
import {
  type ProxyNodeDoc,
  proxyKeys,
  proxyNodeSchema,
  type ServiceSettings,
  serviceSettingsSchema,
} from '../model/keys.ts';
import type { ServiceName } from '../model/names.ts';
import type { DrainTunnels, Pause, PauseDrain } from '../model/records.ts';
import { describeMissing, drainedNodes, livingNodes, pausedNodes, releasedNodes } from './acknowledgement.ts';
import { existingService } from './near.ts';
import { type ProxyApiParts, seenBy, selfOf } from './parts.ts';
import { poll } from './poll.ts';
import { changeDocument, readable } from './store-documents.ts';

/**
 * Pause, drain and release of a service, from one node for all.
 *
 * - A pause is in the store before a proxy holds it; who reads it holds it, and says so in the document of its node.
 * - It is held where every living node says so. One that is not within its time is taken back: some nodes would hold what others serve.
 * - A pause has an id of its own, so an answer to an older one is never taken for an answer to this one. A longer one replaces it
 *   under a new id: proxies that hold go on holding.
 * - Whoever asked may die at any point: the pause ends at its time.
 */

const idBytes = 8;
/** What proxies may take from the end of a drain to their report: tunnels get a second to end. */
const reportMsDefault = 5_000;

export type PauseRequest = {
  readonly forMs: number;
  readonly waitMs: number;
  readonly keep: boolean;
  readonly extend: boolean;
};

export async function pauseService(
  parts: ProxyApiParts,
  name: ServiceName,
  { forMs, waitMs, keep, extend }: PauseRequest,
  signal: AbortSignal,
): Promise<PauseView> {
  existingService(name, seenBy(parts));
  const store = parts.store();
  const pause: Pause = { id: randomBytes(idBytes).toString('hex'), untilMs: parts.nowMs() + forMs, drain: null };
  let before: Pause | null = null;
  await changeSettings(store, name, (settings) => {
    before = pauseNow(settings?.pause ?? null, parts.nowMs());
    if (before !== null && !extend)
      throw new FlockError(
        'service-paused',
        `service ${name} is paused until ${timeOf(before)} already: "flockctl service release ${name}" ends that, --extend holds it longer`,
        { service: name, pause: before.id },
      );
    if (before === null && extend) throw notPaused(name);
    return { name, pause };
  });
  let nodes: readonly PausedNodeView[] = [];
  try {
    nodes = await waitForNodes(parts, store, Math.min(waitMs, forMs), signal, (living, documents) =>
      pausedNodes(pause.id, living, documents),
    );
  } catch (error) {
    if (!keep) await takeBack(parts, store, { name, id: pause.id, before });
    throw error;
  }
  if (nodes.every(({ done }) => done))
    return { service: name, id: pause.id, untilMs: pause.untilMs, nodes: [...nodes] };
  const end = keep
    ? `it lasts until ${timeOf(pause)} all the same, because of --keep`
    : await takeBack(parts, store, { name, id: pause.id, before });
  throw new FlockError(
    'not-acknowledged',
    `service ${name} is not paused everywhere within ${formatDuration(Math.min(waitMs, forMs))}; ${end}. Not on: ${describeMissing(nodes)}`,
    { service: name, pause: pause.id, nodes },
  );
}

export type DrainRequest = { readonly forMs: number; readonly tunnels: DrainTunnels };

/** Waits for what is in flight, on all nodes. Answers what was left when the time was over. */
export async function drainService(
  parts: ProxyApiParts,
  name: ServiceName,
  { forMs, tunnels }: DrainRequest,
  signal: AbortSignal,
): Promise<DrainView> {
  const store = parts.store();
  const drain: PauseDrain = { untilMs: parts.nowMs() + forMs, tunnels };
  const settings = await changeSettings(store, name, (current) => {
    const pause = pauseNow(current?.pause ?? null, parts.nowMs());
    if (pause === null) throw current === null ? missing(parts, name) : notPaused(name);
    if (drain.untilMs > pause.untilMs)
      throw new FlockError(
        'invalid-option',
        `the pause of service ${name} ends at ${timeOf(pause)}, before a drain of ${formatDuration(forMs)} is over: use a shorter --for, or "flockctl service pause ${name} --extend --for ..." first`,
        { service: name, pause: pause.id },
      );
    return { name, pause: { ...pause, drain } };
  });
  const id = settings.pause?.id ?? '';
  const key = { pause: id, untilMs: drain.untilMs };
  let reports = drainedNodes(key, [], []).reports;
  const late = await waitForNodes(
    parts,
    store,
    forMs + (parts.reportMsMax ?? reportMsDefault),
    signal,
    (living, documents) => {
      const found = drainedNodes(key, living, documents);
      reports = found.reports;
      return found.missing;
    },
  );
  if (late.length === 0) return { service: name, untilMs: drain.untilMs, nodes: [...reports] };
  throw new FlockError(
    'not-acknowledged',
    `the drain of service ${name} is over, but not every node has said what was left there: ${describeMissing(late)}. The service is still paused: drain it again, or release it`,
    { service: name, pause: id, nodes: late, reports },
  );
}

export async function releaseService(
  parts: ProxyApiParts,
  name: ServiceName,
  waitMs: number,
  signal: AbortSignal,
): Promise<ReleaseView> {
  const store = parts.store();
  let ended: Pause | null = null;
  await changeSettings(store, name, (settings) => {
    ended = settings?.pause ?? null;
    if (settings === null) existingService(name, seenBy(parts));
    return settings === null || ended === null ? settings : { ...settings, pause: null };
  });
  const pause = ended as Pause | null;
  if (pause === null) return { service: name, wasPaused: false, nodes: [] };
  const nodes = await waitForNodes(parts, store, waitMs, signal, (living, documents) =>
    releasedNodes(pause.id, living, documents),
  );
  if (nodes.every(({ done }) => done))
    return { service: name, wasPaused: pauseNow(pause, parts.nowMs()) !== null, nodes: [...nodes] };
  throw new FlockError(
    'not-acknowledged',
    `service ${name} is released, but not every node has let go of the pause within ${formatDuration(waitMs)}; each does by ${timeOf(pause)} at the latest. Not yet: ${describeMissing(nodes)}`,
    { service: name, pause: pause.id, nodes },
  );
}

/** Looks until all have done it or the time is over; a store that does not answer meanwhile is asked again. */
async function waitForNodes(
  parts: ProxyApiParts,
  store: Store,
  limitMs: number,
  signal: AbortSignal,
  judge: (living: readonly NodeName[], documents: readonly ProxyNodeDoc[]) => readonly PausedNodeView[],
): Promise<readonly PausedNodeView[]> {
  let last: readonly PausedNodeView[] | null = null;
  let fault: unknown = null;
  await poll(limitMs, signal, async () => {
    try {
      const documents = (await listBelow(store, proxyKeys.nodes)).flatMap(
        ({ value }) => readable(proxyNodeSchema, value) ?? [],
      );
      last = judge(livingNodes(seenBy(parts).documents.members, selfOf(parts)), documents);
      return last.every(({ done }) => done) ? true : null;
    } catch (error) {
      if (!hasCode(error, 'store-unavailable')) throw error;
      fault = error;
      return null;
    }
  });
  if (last === null) throw fault;
  return last;
}

/** Puts what was before in the place of the pause, unless somebody else has changed it. Answers what came of it, for people. */
async function takeBack(
  parts: ProxyApiParts,
  store: Store,
  { name, id, before }: { readonly name: ServiceName; readonly id: string; readonly before: Pause | null },
): Promise<string> {
  const rest = pauseNow(before, parts.nowMs());
  try {
    await changeSettings(store, name, (settings) =>
      settings?.pause?.id === id ? { ...settings, pause: rest } : settings,
    );
    return rest === null ? 'the pause was taken back' : `the pause until ${timeOf(rest)} holds as before`;
  } catch (error) {
    parts.log.warn({ event: 'pause.not-taken-back', service: name, error: messageOf(error) }, 'it ends at its time');
    return `it could not be taken back (${messageOf(error)}), so it ends by itself`;
  }
}

async function changeSettings(
  store: Store,
  name: ServiceName,
  change: (settings: ServiceSettings | null) => ServiceSettings | null,
): Promise<ServiceSettings> {
  return (await changeDocument(store, proxyKeys.service(name), serviceSettingsSchema, change)) ?? { name, pause: null };
}

function missing(parts: ProxyApiParts, name: ServiceName): FlockError {
  existingService(name, seenBy(parts));
  return notPaused(name);
}

function notPaused(name: ServiceName): FlockError {
  return new FlockError(
    'not-paused',
    `service ${name} is not paused (any more): "flockctl service pause ${name} --for 60s" pauses it, and it ends by itself after that time`,
    { service: name },
  );
}

function timeOf({ untilMs }: Pause): string {
  return new Date(untilMs).toISOString();
}
