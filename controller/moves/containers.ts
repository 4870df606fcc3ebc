import { FlockError, hasCode, messageOf } from '../model/errors.ts';
import type { MoveDoc } from '../model/move.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import type { MoveTools } from './ports.ts';
import { type Inspected, lacks, look } from './readiness.ts';
import { readWorkload } from './records.ts';

/** The containers of a move on one of its nodes. */
export type MovedContainer = {
  readonly id: string;
  readonly workload: WorkloadDoc;
  /** See MoveMember. */
  readonly closedPorts: readonly number[];
  readonly isUnhealthy: boolean;
};

const lookMs = 25;
const startsMax = 3;
const startAgainMs = 300;
const tailLines = 8;
const tailCharactersMax = 600;

/** The documents of a move's containers, in the order of their start. Throws where one is gone: a person has removed it. */
export async function membersOf({ store }: MoveTools, doc: MoveDoc): Promise<readonly WorkloadDoc[]> {
  return await Promise.all(
    doc.members.map(async ({ workload, name }) => {
      const stored = await readWorkload(store, workload);
      if (stored !== null) return stored.doc;
      throw new FlockError('move-refused', `container ${name} is not there any more: it was removed during the move`);
    }),
  );
}

/** As membersOf, with the containers on one of the nodes; a container that was not made there is a failure. */
export async function containersOn(
  tools: MoveTools,
  doc: MoveDoc,
  side: 'from' | 'to',
): Promise<readonly MovedContainer[]> {
  const workloads = await membersOf(tools, doc);
  return workloads.map((workload, index) => {
    const member = doc.members[index];
    const id = side === 'from' ? member?.sourceId : member?.targetId;
    if (id === undefined || id === null)
      throw new FlockError('move-refused', `container ${workload.name} was not made on ${doc[side]}`);
    return { id, workload, closedPorts: member?.closedPorts ?? [], isUnhealthy: member?.isUnhealthy ?? false };
  });
}

export type Starting = {
  /** When they must be ready (boot clock). */
  readonly untilBootMs: number;
  /** A container that ends, or can't be started: `fails`, soon; `again`: it is started again, until the time is over. */
  readonly ended: 'fails' | 'again';
  /** Ports of a service that count beside those of the containers' labels; never rejects. */
  readonly ports: Promise<PortsMade>;
};

export type PortsMade = (service: string) => readonly number[];

/**
 * Starts those that are to run, in order, and waits until all are ready. Throws with the reason, and what the container said; where they are
 * to be as before (`again`) only when all others have had their turn.
 */
export async function startAll(
  tools: MoveTools,
  containers: readonly MovedContainer[],
  starting: Starting,
  signal: AbortSignal,
): Promise<number> {
  const wanted = containers.filter(({ workload }) => workload.wanted === 'running');
  const problems: unknown[] = [];
  const failed = (error: unknown) => {
    signal.throwIfAborted();
    if (starting.ended === 'fails') throw error;
    problems.push(error);
  };
  const started: MovedContainer[] = [];
  for (const container of wanted)
    await start(tools, container, starting, signal).then(() => void started.push(container), failed);
  await Promise.all(started.map((container) => untilReady(tools, container, starting, signal).catch(failed)));
  if (problems.length > 0) throw problems[0];
  return wanted.length;
}

export async function portsOf({ service, spec }: WorkloadDoc, made: Starting['ports']): Promise<readonly number[]> {
  return [...new Set([...spec.ports, ...(service === null ? [] : (await made)(service))])];
}

/** The plugin may just be learning that the volumes are here, so that Docker's first attempt need not be its last. */
async function start(
  tools: MoveTools,
  { id, workload }: MovedContainer,
  { untilBootMs, ended }: Starting,
  signal: AbortSignal,
): Promise<void> {
  const { docker, clock } = tools;
  for (let attempt = 1; ; attempt += 1) {
    try {
      await orAborted(docker.start(id), signal);
      return;
    } catch (error) {
      signal.throwIfAborted();
      const isGone = hasCode(error, 'docker-failed') && error.facts['status'] === 404;
      if (isGone || (ended === 'fails' && attempt >= startsMax) || clock.bootMs() + startAgainMs >= untilBootMs)
        throw new FlockError(
          'docker-failed',
          `container ${workload.name} could not be started: ${messageOf(error)}`,
          {},
          { cause: error },
        );
      await clock.sleep(startAgainMs, signal);
    }
  }
}

async function untilReady(
  tools: MoveTools,
  container: MovedContainer,
  { untilBootMs, ended, ports: made }: Starting,
  signal: AbortSignal,
): Promise<void> {
  const { docker, clock } = tools;
  const { id, workload, isUnhealthy } = container;
  const ports = (await portsOf(workload, made)).filter((port) => !container.closedPorts.includes(port));
  const sinceBootMs = clock.bootMs();
  for (;;) {
    signal.throwIfAborted();
    const found = await look(tools, id);
    if (found === null) throw new FlockError('docker-failed', `container ${workload.name} is gone`);
    let missing = `ended with exit code ${found.State.ExitCode}`;
    if (found.State.Running && !found.State.Restarting) {
      const lacking = await lacks(
        tools,
        { id, found, ports, isUnhealthy, forMs: clock.bootMs() - sinceBootMs, untilBootMs },
        signal,
      );
      if (lacking === null) return;
      missing = lacking;
    } else if (ended === 'fails') throw await endedError(tools, container, found);
    // It may still be stopping because of what was asked before.
    else await orAborted(docker.start(id), signal).catch(() => signal.throwIfAborted());
    if (clock.bootMs() >= untilBootMs)
      throw new FlockError('deadline-exceeded', `container ${workload.name} is not ready in time: it ${missing}`);
    await clock.sleep(lookMs, signal);
  }
}

async function endedError(
  { docker }: MoveTools,
  { id, workload }: MovedContainer,
  { State }: Inspected,
): Promise<FlockError> {
  const tail = await docker.tail(id, tailLines).catch(() => '');
  const said = [State.Error, tail.trim().slice(-tailCharactersMax)].filter((text) => text !== '').join('; ');
  return new FlockError(
    'docker-failed',
    `container ${workload.name} ended with exit code ${State.ExitCode}${said === '' ? '' : `: ${said}`}`,
  );
}

/** The promise's result, or at once the signal's reason: what was asked goes on then. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    promise.catch(() => undefined);
    return Promise.reject(signal.reason);
  }
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
