import { z } from 'zod';
import { FlockError, hasCode, messageOf } from '../model/errors.ts';
import type { MoveDoc, StepOutcome } from '../model/move.ts';
import { pauseLeftMs } from '../model/move-duty.ts';
import { drainMsOf } from '../model/move-plan.ts';
import type { NodeName } from '../model/names.ts';
import { membersOf } from './containers.ts';
import type { MoveTools } from './ports.ts';

/** What a move asks of the proxies. */

const acknowledgeMs = 3_000;
const releaseMs = 3_000;
const attemptsMax = 3;
const againMs = 200;
const publishedLookMs = 50;

type Paused = Extract<StepOutcome, { kind: 'done' }>;
type Step = (tools: MoveTools, doc: MoveDoc, signal: AbortSignal) => Promise<StepOutcome>;

/** New requests wait, on every living node. A pause that is there already, of an attempt before or a person's, is replaced. */
export async function pause(tools: MoveTools, { services, limits }: MoveDoc, signal: AbortSignal): Promise<Paused> {
  if (services.length === 0) return { kind: 'done', note: 'no routes or links lead here' };
  const pausedAtMs = tools.clock.nowMs();
  await Promise.all(services.map((service) => pauseOne(tools, service, limits.pauseMs, signal)));
  return { kind: 'done', note: services.join(', '), pausedAtMs };
}

async function pauseOne(
  { proxy }: MoveTools,
  service: string,
  forMs: number,
  signal: AbortSignal,
  isPaused = false,
): Promise<void> {
  let extend = isPaused;
  for (let attempt = 1; ; attempt += 1) {
    try {
      await proxy.pause(service, { forMs, waitMs: acknowledgeMs, extend }, signal);
      return;
    } catch (error) {
      const isOther = hasCode(error, extend ? 'not-paused' : 'service-paused');
      if (!isOther || attempt === attemptsMax) throw error;
      extend = !extend;
    }
  }
}

/**
 * On the way back nobody is let through to containers that do not run yet: what is left of the pause becomes as long as that may take. Never
 * rejects: at worst the pause ends by itself.
 */
export async function hold(
  tools: MoveTools,
  { id, services, pausedAtMs }: MoveDoc,
  signal: AbortSignal,
): Promise<void> {
  if (pausedAtMs === null) return;
  const holding = services.map((service) => pauseOne(tools, service, wayBackMs, signal, true));
  await Promise.all(holding).catch((error: unknown) =>
    tools.log.warn({ event: 'move.not-held', move: id, reason: messageOf(error) }, 'the pause ends at its time'),
  );
}

/** A client waits half a minute at most anyhow. */
const wayBackMs = 30_000;

/** Requests end. What is left when its time is over is no reason to turn back; that nothing waits any more is one. */
export const drain: Step = async (tools, doc, signal) => {
  if (doc.services.length === 0) return { kind: 'done', note: 'nothing to drain' };
  const leftMs = pauseLeftMs(doc, tools.clock.nowMs());
  const forMs = Math.floor(Math.min(drainMsOf(doc.limits, await membersOf(tools, doc)), leftMs / 2));
  if (forMs < 0) throw new FlockError('deadline-exceeded', 'the pause is over before anything was stopped');
  const notes = await Promise.all(doc.services.map((service) => drainOne(tools, service, forMs, signal)));
  return { kind: 'done', note: notes.filter((note) => note !== '').join('; ') || 'nothing was left' };
};

async function drainOne({ proxy }: MoveTools, service: string, forMs: number, signal: AbortSignal): Promise<string> {
  try {
    const { nodes } = await proxy.drain(service, forMs, signal);
    const requests = nodes.reduce((sum, node) => sum + node.requests, 0);
    return requests === 0 ? '' : `${requests} requests of ${service} were left`;
  } catch (error) {
    signal.throwIfAborted();
    if (hasCode(error, 'not-paused')) throw error;
    return messageOf(error);
  }
}

/** What waits goes on, at the containers that the proxies know by now. Throws where one could not be released. */
export async function releaseAll(tools: MoveTools, services: readonly string[], signal: AbortSignal): Promise<string> {
  const notes = await Promise.all(services.map((service) => releaseOne(tools, service, signal)));
  return notes.filter((note) => note !== '').join('; ');
}

async function releaseOne({ proxy, clock }: MoveTools, service: string, signal: AbortSignal): Promise<string> {
  for (;;) {
    signal.throwIfAborted();
    try {
      await proxy.release(service, releaseMs, signal);
      return '';
    } catch (error) {
      signal.throwIfAborted();
      // It is released then, and who has not heard of it lets go at its time.
      if (hasCode(error, 'not-acknowledged')) return messageOf(error);
      // A service that nobody knows any more has nothing that waits.
      if (hasCode(error, 'service-not-found')) return messageOf(error);
      if (!hasCode(error, 'store-unavailable', 'not-ready', 'deadline-exceeded')) throw error;
    }
    await clock.sleep(againMs, signal);
  }
}

/** Of what a node's proxy says of a container, what is asked here (`proxy/containers/NODE/ID`). */
const publishedSchema = z.object({ state: z.string(), healthy: z.boolean(), starting: z.boolean().default(false) });

export type Place = { readonly node: NodeName; readonly id: string };

/** Waits until the store says that all of these serve and none of those does. False: the time is over. */
export async function untilPublished(
  { store, clock }: MoveTools,
  { serving, gone }: { readonly serving: readonly Place[]; readonly gone: readonly Place[] },
  untilBootMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const serves = async ({ node, id }: Place): Promise<boolean> => {
    const entry = await store.get(`proxy/containers/${node}/${id}`, { fresh: true });
    const parsed = entry === null ? null : publishedSchema.safeParse(JSON.parse(entry.value));
    if (parsed?.success !== true || parsed.data.state !== 'running') return false;
    // Its ports answer: that its health check has said nothing yet keeps no request waiting.
    return parsed.data.healthy || parsed.data.starting;
  };
  for (;;) {
    signal.throwIfAborted();
    const [ready, left] = await Promise.all([Promise.all(serving.map(serves)), Promise.all(gone.map(serves))]).catch(
      (error: unknown) => {
        if (hasCode(error, 'store-unavailable')) return [[false], []];
        throw error;
      },
    );
    if (ready.every((is) => is) && !left.some((is) => is)) return true;
    if (clock.bootMs() >= untilBootMs) return false;
    await clock.sleep(publishedLookMs, signal);
  }
}
