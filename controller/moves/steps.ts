import { workloadLabel } from '../model/container-spec.ts';
import { FlockError, hasCode, messageOf } from '../model/errors.ts';
import type { MoveDoc, MoveMember, MoveProgress, MoveStep, StepOutcome } from '../model/move.ts';
import { pauseLeftMs, stepLimitMs } from '../model/move-duty.ts';
import { servicesToPause } from '../model/move-plan.ts';
import type { FormerContainer } from '../model/workload.ts';
import { changesOf, lackingNow, portsTaken, refuse, sidecarsOf } from './checks.ts';
import { containersOn, type MovedContainer, membersOf, orAborted, type PortsMade, startAll } from './containers.ts';
import { copyAll } from './copying.ts';
import { handOver } from './handover.ts';
import { drain, hold, type Place, pause, releaseAll, untilPublished } from './pausing.ts';
import type { MoveTools } from './ports.ts';
import { look } from './readiness.ts';
import { readWorkload } from './records.ts';
import { estimatesOf, lackOfRoom } from './room.ts';
import { readRoutes } from './routes.ts';

/**
 * What is done in each step (docs/design.md, section 9). Each says what is to be true at its end and looks at what is, so that it can be
 * done again after a crash anywhere in it. Throws for a failure; `written`: the record is at the next step already.
 */
export type StepResult = StepOutcome | { readonly kind: 'written' };

export type Executor = (
  tools: MoveTools,
  doc: MoveDoc,
  signal: AbortSignal,
  context: StepContext,
) => Promise<StepResult>;

export type StepContext = {
  readonly tell: (progress: MoveProgress) => Promise<void>;
  /** Resolves when the move may make people wait. */
  readonly turn: (doc: MoveDoc, signal: AbortSignal) => Promise<void>;
  /** Somebody may have begun the step before: what he has asked for last may still be under way. */
  readonly isRepeated: boolean;
};

/** What a commit, and the start after it, need of the pause at the least. */
const commitMsMin = 3_000;
/** Left for the release itself, however long the proxies have not known the new place. */
const releaseMsMin = 4_000;
/** Of a step's time, to say why it has failed. */
const reasonMs = 300;
const againMs = 500;
/** As long as a move waits for its turn its volumes are replicated to the target, most of them every second. */
const freshMs = 15_000;
/** Containers on the way back are not waited for as long as they would like. */
const returnStopSeconds = 10;

export const executors: Readonly<Record<Exclude<MoveStep, 'done' | 'failed'>, Executor>> = {
  async preparing(tools, doc, signal) {
    const { images, maker } = tools;
    const members: MoveMember[] = [];
    const workloads = await membersOf(tools, doc);
    refuse(await portsTaken(tools, workloads));
    for (const [index, workload] of workloads.entries()) {
      const member = doc.members[index];
      if (member === undefined) continue;
      await images.ensure(workload, [doc.from], signal);
      members.push({ ...member, targetId: await orAborted(maker.make(workload), signal) });
    }
    return { kind: 'done', note: counted(members.length, 'container'), members };
  },

  async copying(tools, doc, signal, { tell, turn }) {
    refuse(
      await sidecarsOf(
        tools,
        doc.members.map(({ name, sourceId: id }) => ({ name, id })),
      ),
    );
    refuse(await changesOf(tools, await containersOn(tools, doc, 'from')));
    // What has come of it already, before somebody else had to go on, has its room.
    if (doc.progress === null) refuse(await lackOfRoom(tools, doc.to, await estimatesOf(tools, doc, signal)));
    const first = await copyAll(tools, doc, tell, signal);
    const sinceMs = tools.clock.bootMs();
    await turn(doc, signal);
    // Others may be replicated less often.
    const isFresh = tools.clock.bootMs() - sinceMs < freshMs;
    const { note } = isFresh ? first : await copyAll(tools, doc, tell, signal);
    return { kind: 'done', note, services: await servicesNow(tools, doc) };
  },
  async pausing(tools, doc, signal) {
    // How they are, and whether they are still there, is asked before anybody has to wait.
    const made = portsMade(tools);
    const containers = await containersOn(tools, doc, 'from');
    const lacking = await Promise.all(containers.map((container) => lackingNow(tools, container, made, signal)));
    refuse(await changesOf(tools, containers));
    const members = doc.members.map((member, index) => ({ ...member, ...lacking[index] }));
    return { ...(await pause(tools, doc, signal)), members };
  },
  draining: drain,

  async stopping(tools, doc, signal, { isRepeated }) {
    const { docker, clock } = tools;
    const stopped: string[] = [];
    for (const { id, workload } of (await containersOn(tools, doc, 'from')).toReversed()) {
      signal.throwIfAborted();
      const found = await look(tools, id);
      if (found === null) throw new FlockError('docker-failed', `container ${workload.name} is gone`);
      if (!found.State.Running) continue;
      const { stopSeconds } = workload.spec;
      const leftMs = pauseLeftMs(doc, clock.nowMs());
      const isTooLate = leftMs < 1000 * stopSeconds + commitMsMin;
      // A container that was told to stop ends in the end, so nobody turns back before it has: it would end later, when it is to serve.
      if (!isTooLate || isRepeated) await docker.stop(id, stopSeconds);
      if (isTooLate)
        throw new FlockError(
          'deadline-exceeded',
          `container ${workload.name} may take ${stopSeconds} s to stop, and ${Math.max(0, Math.round(leftMs / 1000))} s are left of the pause: use a longer --timeout`,
        );
      stopped.push(workload.name);
    }
    return { kind: 'done', note: stopped.join(', ') || 'nothing ran' };
  },

  async committing(tools, doc, signal) {
    const leftMs = pauseLeftMs(doc, tools.clock.nowMs());
    if (leftMs < commitMsMin)
      throw new FlockError(
        'deadline-exceeded',
        `only ${Math.max(0, leftMs)} ms are left of the pause: use a longer --timeout`,
      );
    const note = doc.volumes.length === 0 ? 'no volumes' : counted(doc.volumes.length, 'volume');
    const untilBootMs = tools.clock.bootMs() + leftMs - commitMsMin / 2;
    await handOver(tools, doc, { side: 'to', untilBootMs, note }, signal);
    return { kind: 'written' };
  },

  async starting(tools, doc, signal) {
    const containers = await containersOn(tools, doc, 'to');
    const count = await startAll(
      tools,
      containers,
      { untilBootMs: endOf(tools, doc), ended: 'fails', ports: portsMade(tools) },
      signal,
    );
    return { kind: 'done', note: count === 0 ? 'none was to run' : `${counted(count, 'container')} ready` };
  },

  async releasing(tools, doc, signal) {
    if (doc.services.length === 0) return { kind: 'done', note: 'nothing waits', pausedAtMs: null };
    const routed = (all: readonly MovedContainer[]) =>
      all.filter(({ workload: { service, wanted } }) => wanted === 'running' && doc.services.includes(service ?? ''));
    const places = (node: Place['node'], all: readonly MovedContainer[]) => routed(all).map(({ id }) => ({ node, id }));
    const serving = places(doc.to, await containersOn(tools, doc, 'to'));
    const gone = places(doc.from, await containersOn(tools, doc, 'from'));
    const untilBootMs = endOf(tools, doc) - releaseMsMin;
    const isKnown = await untilPublished(tools, { serving, gone }, untilBootMs, signal);
    const problems = await releaseAll(tools, doc.services, signal);
    const note = isKnown ? '' : `the proxies do not say that ${doc.service} serves on ${doc.to}`;
    return { kind: 'done', note: joined(note, problems), pausedAtMs: null };
  },

  async cleaning(tools, doc, signal) {
    await removeOn(tools, doc, 'from', signal);
    return { kind: 'done', note: counted(doc.members.length, 'container') };
  },

  async returning(tools, doc, signal) {
    const containers = (await containersOn(tools, doc, 'to')).toReversed();
    const untilBootMs = endOf(tools, doc);
    const holding = hold(tools, doc, signal);
    for (;;) {
      for (const { id, workload } of containers)
        await orAborted(tools.docker.stop(id, Math.min(returnStopSeconds, workload.spec.stopSeconds)), signal);
      // Before the source can go on, and end the pause.
      await holding;
      try {
        await handOver(tools, doc, { side: 'from', untilBootMs, note: `back to ${doc.from}` }, signal);
        return { kind: 'written' };
      } catch (error) {
        // A start that nobody waits for any more has come to its end only now.
        if (!hasCode(error, 'volume-in-use') || tools.clock.bootMs() >= untilBootMs) throw error;
      }
      await tools.clock.sleep(againMs, signal);
    }
  },

  async restoring(tools, doc, signal) {
    const holding = hold(tools, doc, signal);
    const containers = await containersOn(tools, doc, 'from');
    const count = await startAll(
      tools,
      containers,
      { untilBootMs: endOf(tools, doc), ended: 'again', ports: portsMade(tools) },
      signal,
    );
    await holding;
    return { kind: 'done', note: count === 0 ? 'none was to run' : `${counted(count, 'container')} ready` };
  },

  async resuming(tools, doc, signal) {
    const note = await releaseAll(tools, doc.services, signal);
    return { kind: 'done', note: doc.services.length === 0 ? 'nothing waits' : note, pausedAtMs: null };
  },

  async clearing(tools, doc, signal) {
    await removeOn(tools, doc, 'to', signal);
    return { kind: 'done', note: '' };
  },
};

/** Never a container that its workload's document gives to the node by now. */
async function removeOn(tools: MoveTools, doc: MoveDoc, side: 'from' | 'to', signal: AbortSignal): Promise<void> {
  const { store, docker } = tools;
  for (const member of doc.members.toReversed()) {
    const stored = await readWorkload(store, member.workload);
    if (stored !== null && stored.doc.node === doc[side]) continue;
    const ids = side === 'from' ? [member.sourceId] : await targetIdsOf(tools, member, stored?.doc.former ?? []);
    for (const id of ids) await orAborted(docker.remove(id), signal);
  }
}

/**
 * Also what was made, and not written down any more: nothing has started it then. What was put away, or is to be, and what people have made
 * of it stays.
 */
async function targetIdsOf(
  { docker }: MoveTools,
  { workload, name, targetId }: MoveMember,
  former: readonly FormerContainer[],
): Promise<readonly string[]> {
  if (targetId !== null) return [targetId];
  return (await docker.list())
    .filter((one) => one.labels[workloadLabel] === workload && one.name === name && one.state === 'created')
    .map(({ id }) => id)
    .filter((id) => !former.some(({ containerId }) => containerId === id));
}

/** Since the move was begun, hours may have gone by: routes may have been made, and people may have started what did not run. */
async function servicesNow(tools: MoveTools, doc: MoveDoc): Promise<readonly string[]> {
  try {
    const workloads = await membersOf(tools, doc);
    const { services } = await readRoutes(tools.store);
    return [...new Set([...doc.services, ...servicesToPause(workloads, services)])];
  } catch (error) {
    // Hours of copying are not to be for nothing: what was known is paused, once the store is back.
    if (!hasCode(error, 'store-unavailable')) throw error;
    return doc.services;
  }
}

/** Ports that clients are led to by what flockctl has made: the containers' labels do not say it. */
async function portsMade({ store, log }: MoveTools): Promise<PortsMade> {
  try {
    return (await readRoutes(store)).portsOf;
  } catch (error) {
    log.warn({ event: 'routes.unknown', reason: messageOf(error) }, 'the ports of labels count alone');
    return () => [];
  }
}

function endOf({ clock }: MoveTools, doc: MoveDoc): number {
  return clock.bootMs() + stepLimitMs(doc, clock.nowMs()) - reasonMs;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

function joined(...texts: readonly string[]): string {
  return texts.filter((text) => text !== '').join('; ');
}
