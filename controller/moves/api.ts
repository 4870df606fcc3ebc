import { type Request, type Response, Router } from 'express';
import { drainNode, existing } from '../cluster/membership.ts';
import { decodeNode } from '../model/cluster.ts';
import type { DrainNodeView, MovePlanView } from '../model/controller-api.ts';
import { abortBody, moveBody } from '../model/controller-api.ts';
import { viewDrain } from '../model/drain.ts';
import { FlockError, hasCode } from '../model/errors.ts';
import { eventCursor, eventKeys } from '../model/events.ts';
import { canAbort, type MoveLimits, moveLimitsDefault } from '../model/move.ts';
import { type MovePlan, nodeNotFound, planMove, planWarnings } from '../model/move-plan.ts';
import { publishedBy } from '../model/published-ports.ts';
import { param, parseBody } from '../server/problems.ts';
import type { Store } from '../store/store.ts';
import { askToTurnBack } from './aborting.ts';
import { type BeginParts, beginMove, readFacts } from './beginning.ts';
import { type Drainer, drainFacts } from './drainer.ts';
import { readEvent, readEvents } from './event-reading.ts';
import type { Mover } from './mover.ts';
import type { MoveTools } from './ports.ts';
import type { Preflight, PreflightAsker } from './preflight.ts';
import { listMoves } from './records.ts';
import { waitForChange } from './waiting.ts';

/** What flockctl asks of moves, drains and events. Any node answers for all: everything is in the store. */
export type MoveApiParts = {
  readonly tools: MoveTools;
  readonly begin: BeginParts;
  readonly mover: Pick<Mover, 'moves' | 'onChange'>;
  readonly drainer: Pick<Drainer, 'problems'>;
  readonly preflight: PreflightAsker;
  readonly isMember: boolean;
};

const answerMsMax = 60_000;
const waitMsMax = 30_000;
const eventsMaxDefault = 100;
const eventsAtOnceMax = 1_000;

type Handler = (request: Request, signal: AbortSignal) => Promise<unknown> | unknown;

export function createMoveRoutes(parts: MoveApiParts): Router {
  const { tools, begin, preflight, isMember } = parts;
  const { store } = tools;
  const router = Router();
  const route = (method: 'get' | 'post', path: string, handler: Handler) =>
    router[method](path, async (request, response) => {
      if (!isMember) throw alone();
      response.json((await handler(request, leaving(response))) ?? {});
    });

  route('post', '/v1/moves', async (request, signal) => {
    const { service, node, dryRun, ...limits } = parseBody(moveBody, request);
    const asked = { service, to: node, limits: limitsOf(limits) };
    if (dryRun) {
      const plan = planMove(asked, await readFacts(begin));
      return { plan: viewPlan(parts, plan, await preflight.whole(plan, signal)), move: null };
    }
    const begun = await beginMove(begin, 'operator', (facts) => planMove(asked, facts), signal);
    const warnings = await preflight.warnings(begun.plan, signal);
    return { plan: viewPlan(parts, begun.plan, { warnings }), move: begun.move };
  });
  route('get', '/v1/moves', async () => (await listMoves(store)).map(({ doc }) => doc));
  route('get', '/v1/moves/:id', (request, signal) => {
    const after = numberOf(request, 'after') ?? -1;
    return waitForChange(parts, { id: param(request, 'id'), after, waitMs: waitMsOf(request) }, signal);
  });
  route('post', '/v1/moves/:id/abort', (request) => {
    const { reason } = parseBody(abortBody, request);
    return askToTurnBack(store, param(request, 'id'), reason);
  });
  route('get', '/v1/events', (request, signal) => {
    const limit = Math.min(eventsAtOnceMax, Math.max(1, numberOf(request, 'limit') ?? eventsMaxDefault));
    return readEvents(tools, { after: cursorOf(request), waitMs: waitMsOf(request), limit }, signal);
  });
  route('get', '/v1/nodes/:name/drain', (request) => drainOf(parts, param(request, 'name')));
  for (const [path, draining] of [['drain', true] as const, ['undrain', false] as const])
    route('post', `/v1/nodes/:name/${path}`, async (request) => {
      const name = param(request, 'name');
      const before = await drainOf(parts, name);
      await drainNode(store, name, draining);
      if (before.draining !== draining) {
        const text = draining ? `${name} is being emptied, and gets nothing new` : `${name} is in use again`;
        begin.events.tell(draining ? 'drain-started' : 'drain-ended', name, text);
      }
      if (!draining) await endMovesOf(store, name);
      return { ...before, draining };
    });
  return router;
}

/** What has not left the node yet stays there, when it is drained no more. */
async function endMovesOf(store: Store, name: string): Promise<void> {
  const begun = (await listMoves(store)).map(({ doc }) => doc).filter((doc) => doc.from === name && canAbort(doc));
  for (const { id } of begun.filter(({ cause }) => cause === 'drain'))
    await askToTurnBack(store, id, `${name} is drained no more`).catch((error: unknown) => {
      // It has gone too far meanwhile.
      if (!hasCode(error, 'move-refused')) throw error;
    });
}

function alone(): FlockError {
  return new FlockError(
    'no-cluster',
    'this host is in no cluster, so nothing can go to another one: "flockctl init" makes one',
  );
}

/** Fires when nobody waits for the answer any more. */
function leaving(response: Response): AbortSignal {
  const gone = new AbortController();
  response.on('close', () => gone.abort(new FlockError('caller-gone', 'the caller closed the connection')));
  return AbortSignal.any([gone.signal, AbortSignal.timeout(answerMsMax)]);
}

function limitsOf(asked: { readonly [Key in keyof MoveLimits]?: number | undefined }): MoveLimits {
  const given = Object.entries(asked).filter(([, value]) => value !== undefined);
  const limits: MoveLimits = { ...moveLimitsDefault, ...Object.fromEntries(given) };
  // A short pause leaves less for the drain, unless somebody has said how much.
  return asked.drainMs === undefined
    ? { ...limits, drainMs: Math.min(limits.drainMs, Math.floor(limits.pauseMs / 2)) }
    : limits;
}

/** `seen`: what only the hosts themselves see, as far as they were asked. */
function viewPlan(
  { begin }: MoveApiParts,
  plan: MovePlan,
  seen: Omit<Partial<Preflight>, 'warnings'> & { readonly warnings: readonly string[] },
): MovePlanView {
  const { service, from, to, workloads, volumes, services, obstacles } = plan;
  const docs = begin.view.seen()?.volumes;
  const missing = new Set(seen.imagesMissing);
  return {
    service,
    from,
    to,
    containers: workloads.map(({ name, spec }) => {
      const published = publishedBy(spec).map(({ port, protocol }) => `${port}/${protocol}`);
      return { name, image: spec.image, bringsImage: missing.has(name), published: [...new Set(published)] };
    }),
    volumes: volumes.map(({ id, name }) => {
      const found = seen.volumes?.find((volume) => volume.name === name);
      return found ?? { name, hasCopy: docs?.get(id)?.replicas.includes(to) ?? false, bytes: null };
    }),
    services: [...services],
    obstacles: [...new Set([...obstacles, ...(seen.obstacles ?? [])])],
    warnings: [...planWarnings(plan), ...seen.warnings],
  };
}

async function drainOf({ tools, begin, drainer }: MoveApiParts, name: string): Promise<DrainNodeView> {
  const facts = await readFacts(begin);
  const seen = facts.nodes.find((node) => node.name === name);
  if (seen === undefined) throw nodeNotFound(name, facts.nodes);
  // Another controller may have begun the drain a moment ago: whoever follows it here must not hear that somebody has ended it.
  const { draining } = decodeNode((await existing(tools.store, seen.name)).value);
  const doc = { ...seen, draining };
  const nodes = facts.nodes.map((node) => (node === seen ? doc : node));
  const problems = doc.name === tools.node && doc.draining ? drainer.problems() : [];
  const startedAtMs = doc.draining ? await startOf(tools, name) : null;
  return viewDrain(doc.name, drainFacts({ ...facts, nodes }, tools.clock.nowMs()), { startedAtMs, problems });
}

async function startOf({ store }: MoveTools, name: string): Promise<number | null> {
  const events = (await store.list(`${eventKeys.events}/`)).flatMap(({ value }) => readEvent(value));
  return events.findLast(({ kind, subject }) => kind === 'drain-started' && subject === name)?.atMs ?? null;
}

function textOf(request: Request, name: string): string | null {
  const value = request.query[name];
  return typeof value === 'string' ? value : null;
}

function cursorOf(request: Request): string | null {
  const text = textOf(request, 'after');
  if (text === null || eventCursor.test(text)) return text;
  throw new FlockError('invalid-request', 'after must be the cursor of an earlier answer, or 0 for all that there is');
}

function numberOf(request: Request, name: string): number | null {
  const text = textOf(request, name);
  if (text === null) return null;
  if (/^-?\d{1,15}$/.test(text)) return Number(text);
  throw new FlockError('invalid-request', `${name} must be a whole number`);
}

function waitMsOf(request: Request): number {
  return Math.min(waitMsMax, Math.max(0, numberOf(request, 'waitMs') ?? 0));
}
