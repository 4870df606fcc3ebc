import { portTaken } from '../model/clashes.ts';
import { ownNetworks } from '../model/container-obstacles.ts';
import { FlockError, hasCode, messageOf } from '../model/errors.ts';
import { doSubnetsMeet, subnetsOf } from '../model/host-net.ts';
import type { MoveDoc } from '../model/move.ts';
import { partings } from '../model/neighbours.ts';
import { conflictOf, isAny, publishedBy } from '../model/published-ports.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import { isOtherThan } from '../program/documents.ts';
import type { MoveTools } from './ports.ts';
import { closedOf, type Inspected, lacks, look } from './readiness.ts';
import { readWorkload } from './records.ts';

/** The containers of a move on one of its nodes. */
export type MovedContainer = {
  readonly id: string;
  readonly workload: WorkloadDoc;
  /** See MoveMember. */
  readonly closedPorts: readonly number[];
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
    return { id, workload, closedPorts: member?.closedPorts ?? [] };
  });
}

/** On the target. A container that can't have its ports would be found out only when everything stands still. */
export async function portsTaken(
  { docker, node, net }: Pick<MoveTools, 'docker' | 'node' | 'net'>,
  workloads: readonly WorkloadDoc[],
): Promise<readonly string[]> {
  const running = workloads.filter(({ wanted }) => wanted === 'running');
  const [listed, sockets] = await Promise.all([docker.list(), net.sockets()]);
  const found = running.map(async ({ name, spec }) => {
    const wanted = publishedBy(spec);
    // A network's own address comes with the network.
    const coming = Object.values(spec.networksNeeded).flatMap(subnetsOf);
    const owned = await Promise.all(
      wanted.map(({ ip }) => {
        if (ip === '' || isAny(ip) || coming.some((subnet) => doSubnetsMeet(`${ip}/32`, subnet))) return true;
        return net.isOwn(ip);
      }),
    );
    const strange = wanted.filter((_, index) => owned[index] === false);
    const others = listed.flatMap((other) => {
      const taken = conflictOf(wanted, other.ports);
      return taken === null ? [] : [portTaken(name, taken, `container ${other.name}`, node)];
    });
    const socket = others.length > 0 ? null : conflictOf(wanted, sockets);
    return [
      ...others,
      ...(socket === null ? [] : [portTaken(name, socket, 'a program', node)]),
      ...strange.map(
        ({ ip, port, protocol }) =>
          `container ${name} publishes port ${port}/${protocol} at ${ip}, which is no address of ${node}: publish it at all addresses (-p ${port}:...)`,
      ),
    ];
  });
  return (await Promise.all(found)).flat();
}

/** Throws the first of the reasons, if there is one. */
export function refuse(obstacles: readonly string[]): void {
  const [first] = obstacles;
  if (first !== undefined) throw new FlockError('move-refused', first);
}

const ended: ReadonlySet<string> = new Set(['created', 'exited', 'dead']);

/** On the source. A container in the network of one that leaves would be left without any. */
export async function sidecarsOf(
  { docker }: Pick<MoveTools, 'docker'>,
  members: readonly { readonly name: string; readonly id: string }[],
): Promise<readonly string[]> {
  const listed = await docker.list();
  return members.flatMap(({ name, id }) =>
    listed
      .filter(({ networkMode, state }) => networkMode === `container:${id}` && !ended.has(state))
      .map(
        (sidecar) =>
          `container ${sidecar.name} is in the network of ${name} (--network container:${name}) and can't go with it: remove that one first`,
      ),
  );
}

/** On the source: who is left behind that reached the containers by name, or was reached. */
export async function partingsOf(
  { docker }: Pick<MoveTools, 'docker'>,
  workloads: readonly WorkloadDoc[],
): Promise<readonly string[]> {
  const running = (await docker.list())
    .filter(({ state }) => !ended.has(state))
    .map((one) => ({ ...one, networks: one.networks.filter((name) => !ownNetworks.has(name)) }));
  const ids = new Set(workloads.map(({ containerId }) => containerId));
  const going = running.filter(({ id }) => ids.has(id));
  // Overlay networks know names on all their hosts.
  const bridges = new Set(workloads.flatMap(({ spec }) => Object.keys(spec.networksNeeded)));
  const inBridges = going.map((one) => ({ ...one, networks: one.networks.filter((name) => bridges.has(name)) }));
  return partings(
    inBridges,
    running.filter(({ id }) => !ids.has(id)),
  );
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

/**
 * On the source, before anything is stopped: the ports that take no connections though others do. With a link to a port that nothing listens
 * at, the container would never be ready on the target, nor on the way back. Throws where the container is gone.
 */
export async function closedNow(
  tools: MoveTools,
  { id, workload }: MovedContainer,
  made: Starting['ports'],
  signal: AbortSignal,
): Promise<readonly number[]> {
  const found = await look(tools, id);
  if (found === null)
    throw new FlockError(
      'move-refused',
      `container ${workload.name} is not there any more: it was removed during the move`,
    );
  const ports = await portsOf(workload, made);
  const closed = found.State.Running ? ((await closedOf(tools, found, ports, signal)) ?? []) : [];
  // It may just be starting.
  return closed.length < ports.length ? closed : [];
}

/** On the source: what people have changed since the target's container was made, which would be lost with the old one. */
export async function changesOf(
  { locals }: MoveTools,
  containers: readonly MovedContainer[],
): Promise<readonly string[]> {
  const changes = containers.map(async ({ id, workload }) => {
    const described = await locals.describeOne(id);
    return described !== null && isOtherThan(workload, described) ? [workload.name] : [];
  });
  return (await Promise.all(changes))
    .flat()
    .map((name) => `container ${name} was changed meanwhile (docker update, rename, network ...): move it again`);
}

async function portsOf({ service, spec }: WorkloadDoc, made: Starting['ports']): Promise<readonly number[]> {
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
  const { id, workload } = container;
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
        { id, found, ports, forMs: clock.bootMs() - sinceBootMs, untilBootMs },
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
