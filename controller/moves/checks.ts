import { portTaken } from '../model/clashes.ts';
import { ownNetworks } from '../model/container-obstacles.ts';
import { FlockError } from '../model/errors.ts';
import { doSubnetsMeet, subnetsOf } from '../model/host-net.ts';
import type { MoveMember } from '../model/move.ts';
import { partings } from '../model/neighbours.ts';
import { conflictOf, isAny, publishedBy } from '../model/published-ports.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import { isOtherThan } from '../program/documents.ts';
import { type MovedContainer, portsOf, type Starting } from './containers.ts';
import type { MoveTools } from './ports.ts';
import { closedOf, look } from './readiness.ts';

/** What is looked at on the hosts before anything stands still. */

/** A port is closed that never was open when it was asked so often: programs restart their workers. */
const closedAsks = 3;
const closedAgainMs = 500;

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

/**
 * On the source, before anything is stopped: the ports that take no connections though others do, and whether the health check has failed.
 * With a link to a port that nothing listens at, or a check whose program is not in the image, the container would never be ready on the
 * target, nor on the way back. Throws where the container is gone.
 */
export async function lackingNow(
  tools: MoveTools,
  { id, workload }: MovedContainer,
  made: Starting['ports'],
  signal: AbortSignal,
): Promise<Required<Pick<MoveMember, 'closedPorts' | 'isUnhealthy'>>> {
  const found = await look(tools, id);
  if (found === null)
    throw new FlockError(
      'move-refused',
      `container ${workload.name} is not there any more: it was removed during the move`,
    );
  const ports = await portsOf(workload, made);
  let closed = found.State.Running ? ports : [];
  for (let asks = 0; asks < closedAsks && closed.length > 0; asks += 1) {
    if (asks > 0) await tools.clock.sleep(closedAgainMs, signal);
    closed = (await closedOf(tools, found, closed, signal)) ?? [];
  }
  const isUnhealthy = found.State.Running && found.State.Health?.Status === 'unhealthy';
  // Where all are closed it may just be starting, unless its check has had the time to fail.
  return { closedPorts: isUnhealthy || closed.length < ports.length ? closed : [], isUnhealthy };
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
