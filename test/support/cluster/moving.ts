import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type EventDoc, type EventKind, eventKeys, eventSchema } from '../../../controller/model/events.ts';
import {
  decodeMove,
  isOver,
  type MoveDoc,
  type MoveStep,
  moveKeys,
  moveSteps,
} from '../../../controller/model/move.ts';
import { decodeWorkload, type WorkloadDoc, workloadKeys } from '../../../controller/model/workload.ts';
import { cli } from '../plugin-host.ts';
import { until } from '../until.ts';
import type { ClusterHost } from './cluster-host.ts';
import type { Members } from './members.ts';
import { entriesBelow } from './store-entries.ts';

/** Moves as people make them, and what the store says of them and of workloads. */

const moveMsMax = 180_000;

/** flockctl, for what takes longer than a minute. */
export function longFlockctl(host: ClusterHost, ...args: readonly string[]): Promise<string> {
  return host.host.run(process.execPath, [cli, ...args], moveMsMax);
}

export const workloadsOf = async ({ cluster }: Members): Promise<readonly WorkloadDoc[]> =>
  (await entriesBelow(cluster, `${workloadKeys.workloads}/`)).map(({ value }) => decodeWorkload(value));

export const movesOf = async ({ cluster }: Members): Promise<readonly MoveDoc[]> =>
  (await entriesBelow(cluster, `${moveKeys.moves}/`)).map(({ value }) => decodeMove(value));

export const eventsOf = async ({ cluster }: Members): Promise<readonly EventDoc[]> =>
  (await entriesBelow(cluster, `${eventKeys.events}/`)).map(({ value }) => eventSchema.parse(JSON.parse(value)));

/** Until the cluster knows the container of this name as one to be looked after on this host. */
export function known(members: Members, host: ClusterHost, container: string): Promise<WorkloadDoc> {
  return until(`container ${container} on ${host.name} is known`, 30_000, async () =>
    (await workloadsOf(members)).find(
      (doc) => doc.name === container && doc.node === host.name && doc.containerId !== null,
    ),
  );
}

/** Until the container is nobody's business any more. */
export async function forgotten(members: Members, container: string): Promise<void> {
  await until(`container ${container} is forgotten`, 30_000, async () =>
    (await workloadsOf(members)).every(({ name }) => name !== container) ? true : undefined,
  );
}

export type Moving = {
  /** The record, once it is there. */
  readonly begun: Promise<MoveDoc>;
  /** The record when it is over, and what flockctl has said. */
  readonly over: Promise<{ readonly move: MoveDoc; readonly said: string; readonly failed: boolean }>;
};

/** `flockctl move`, on `host`. */
export function startMove(
  members: Members,
  host: ClusterHost,
  service: string,
  to: ClusterHost,
  options: readonly string[] = [],
): Moving {
  const before = movesOf(members).then((moves) => new Set(moves.map(({ id }) => id)));
  const command = before.then(() =>
    longFlockctl(host, 'move', service, to.name, ...options).then(
      (said) => ({ said, failed: false }),
      (error: Error) => ({ said: error.message, failed: true }),
    ),
  );
  const find = async () => {
    const old = await before;
    return (await movesOf(members).catch(() => [])).find((one) => one.service === service && !old.has(one.id));
  };
  let refusal: string | null = null;
  void command.then(({ said, failed }) => {
    if (failed) refusal = said;
  });
  const begun = until(`a move of ${service} to ${to.name} begins`, moveMsMax, async () => {
    const found = await find();
    // It was refused, or is there since this look.
    if (found === undefined && refusal !== null && (await find()) === undefined) throw new Error(refusal);
    return found;
  });
  const over = begun.then(async ({ id }) => {
    const ended = await command;
    const move = await until(`move ${id} is over`, moveMsMax, async () => {
      const found = (await movesOf(members).catch(() => [])).find((one) => one.id === id);
      return found !== undefined && isOver(found) ? found : undefined;
    });
    return { move, ...ended };
  });
  // Whoever waits for neither has another failure to tell.
  begun.catch(() => {});
  over.catch(() => {});
  return { begun, over };
}

/** A move that must succeed. */
export async function move(
  members: Members,
  host: ClusterHost,
  service: string,
  to: ClusterHost,
  options: readonly string[] = [],
): Promise<MoveDoc> {
  const { move: doc, said, failed } = await startMove(members, host, service, to, options).over;
  if (doc.step !== 'done' || failed) throw new Error(`the move to ${to.name} failed: ${describe(doc)}\n${said}`);
  return doc;
}

/** Until the move does this step, or a later one; answers the record of then. */
export async function reaches(members: Members, { begun }: Moving, step: MoveStep): Promise<MoveDoc> {
  const { id } = await begun;
  const wanted = moveSteps.indexOf(step);
  return await until(`move ${id} is ${step}`, moveMsMax, async () => {
    const found = (await movesOf(members).catch(() => [])).find((one) => one.id === id);
    return found !== undefined && moveSteps.indexOf(found.step) >= wanted ? found : undefined;
  });
}

/** What a controller gets done in this time is less than two steps: each waits for the store, and for Docker or the proxies. */
const sliceMs = 10;
/** What it had sent when it was stopped has come by then. */
const underWayMs = 40;

/**
 * Has processes stand still at this step of the move; answers the record of then. They go on in short slices until it is there. Null: it was
 * there too shortly, and they go on.
 */
export async function standStillAt(
  members: Members,
  { begun }: Moving,
  step: MoveStep,
  pids: readonly number[],
): Promise<MoveDoc | null> {
  const { id } = await begun;
  const wanted = moveSteps.indexOf(step);
  const look = async () => (await movesOf(members).catch(() => [])).find((one) => one.id === id);
  for (const end = performance.now() + moveMsMax; performance.now() < end; await sleep(sliceMs)) {
    signalAll(pids, 'SIGSTOP');
    const found = await look();
    if (found?.step === step) await sleep(underWayMs);
    if (found?.step === step && (await look())?.step === step) return found;
    signalAll(pids, 'SIGCONT');
    if (found !== undefined && moveSteps.indexOf(found.step) >= wanted) return null;
  }
  throw new Error(`move ${id} has not come to ${step} within ${moveMsMax} ms`);
}

export function describe({ step, failure, history }: MoveDoc): string {
  const lines = history.map(({ step: past, node, ms, note }) => `  ${past} on ${node}, ${ms} ms: ${note}`);
  return [`${step}, ${failure === null ? 'without a failure' : `${failure.step}: ${failure.reason}`}`, ...lines].join(
    '\n',
  );
}

export const happened = async (members: Members, kind: EventKind, subject: RegExp): Promise<readonly EventDoc[]> =>
  (await eventsOf(members)).filter((event) => event.kind === kind && subject.test(`${event.subject} ${event.text}`));

/** The process of a container, as its host numbers it. */
export async function pidOf(host: ClusterHost, container: string): Promise<number> {
  return Number(await host.docker('inspect', '--format', '{{.State.Pid}}', container));
}

/** SIGKILL to a container's process, of which Docker hears as of any death. */
export async function killProcess(host: ClusterHost, container: string): Promise<void> {
  await host.host.run('kill', ['-KILL', String(await pidOf(host, container))]);
}

/** All processes of a container, as this machine numbers them. */
export async function processesOf(host: ClusterHost, container: string): Promise<readonly number[]> {
  const id = await host.docker('inspect', '--format', '{{.Id}}', container);
  const found: number[] = [];
  for (const name of (await readdir('/proc')).filter((one) => /^\d+$/.test(one)))
    if ((await readFile(`/proc/${name}/cgroup`, 'utf8').catch(() => '')).includes(id)) found.push(Number(name));
  if (found.length === 0) throw new Error(`container ${container} on ${host.name} has no process`);
  return found;
}

/** To those that are still there. */
export function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids)
    try {
      process.kill(pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
}
