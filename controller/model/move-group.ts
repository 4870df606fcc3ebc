import { FlockError } from './errors.ts';
import { quote } from './names.ts';
import { nearNames } from './near-names.ts';
import type { WorkloadDoc } from './workload.ts';

/** Which containers move together. Pure. */

const namedMax = 8;
/** So much of a container's id tells it. */
const idCharactersMin = 12;

/**
 * The containers of one node that people mean by a service's or a container's name, or a container's id. Throws `service-not-found`
 * with the names that are near, and `move-refused` where the name is that of containers on several nodes.
 */
export function findAsked(asked: string, workloads: readonly WorkloadDoc[]): readonly WorkloadDoc[] {
  const ways: readonly ((workload: WorkloadDoc) => boolean)[] = [
    ({ service }) => service === asked,
    ({ name }) => name === asked,
    ({ id, containerId }) =>
      id === asked || (asked.length >= idCharactersMin && containerId?.startsWith(asked) === true),
  ];
  for (const isMeant of ways) {
    const found = workloads.filter(isMeant);
    const running = found.filter(({ wanted }) => wanted === 'running');
    const meant = running.length > 0 ? running : found;
    if (meant.length === 0) continue;
    if (meant.every(({ node }) => node === meant[0]?.node)) return meant;
    throw new FlockError(
      'move-refused',
      `${quote(asked)} is on several nodes: name one of its containers, or give its id: ${listed(meant)}`,
      { containers: meant.map(({ name, node, containerId }) => ({ name, node, containerId })) },
    );
  }
  throw notFound(asked, workloads);
}

function listed(workloads: readonly WorkloadDoc[]): string {
  const names = workloads
    .slice(0, namedMax)
    .map(
      ({ name, node, containerId }) =>
        `${name} (${containerId?.slice(0, idCharactersMin) ?? 'not made yet'}) on ${node}`,
    );
  return `${names.join(', ')}${workloads.length > namedMax ? ` and ${workloads.length - namedMax} more` : ''}`;
}

function notFound(asked: string, workloads: readonly WorkloadDoc[]): FlockError {
  const known = [...new Set(workloads.flatMap(({ name, service }) => [name, ...(service === null ? [] : [service])]))];
  const near = nearNames(asked, known);
  const rest = known.length > namedMax ? ` and ${known.length - namedMax} more` : '';
  const list =
    near.length > 0
      ? `did you mean ${near.join(' or ')}?`
      : known.length === 0
        ? 'there is none that flock looks after: start a container with a flock volume, or with a label such as flock.service=web'
        : `there are ${known.slice(0, namedMax).join(', ')}${rest}`;
  return new FlockError('service-not-found', `there is no service or container ${quote(asked)}; ${list}`, { near });
}

/** Whether the text, of `--volumes-from` or `--link`, means this container. */
function isMeantBy(text: string, { name, containerId }: WorkloadDoc): boolean {
  return text === name || (text.length >= idCharactersMin && containerId?.startsWith(text) === true);
}

/**
 * Everything on the same node that can't be without these: what mounts one of their volumes, what must run before or after one of
 * them. In the order in which they are started.
 */
export function groupOf(asked: readonly WorkloadDoc[], workloads: readonly WorkloadDoc[]): readonly WorkloadDoc[] {
  const near = workloads.filter(({ node }) => node === asked[0]?.node);
  const group = new Set(asked);
  for (let size = 0; size < group.size; ) {
    size = group.size;
    for (const one of near) if ([...group].some((member) => areBound(one, member))) group.add(one);
  }
  return startOrder([...group]);
}

function areBound(a: WorkloadDoc, b: WorkloadDoc): boolean {
  if (a.volumes.some(({ id }) => b.volumes.some((other) => other.id === id))) return true;
  return mustFollow(a, b) || mustFollow(b, a);
}

function mustFollow(later: WorkloadDoc, earlier: WorkloadDoc): boolean {
  return later.after.some((text) => isMeantBy(text, earlier));
}

/** What must run before others comes before them, else the older one first. A circle, which Docker does not allow, is cut anywhere. */
export function startOrder(group: readonly WorkloadDoc[]): readonly WorkloadDoc[] {
  const rest = group.toSorted((a, b) => a.createdAtMs - b.createdAtMs || (a.name < b.name ? -1 : 1));
  const order: WorkloadDoc[] = [];
  while (rest.length > 0) {
    const free = rest.findIndex((one) => !rest.some((other) => other !== one && mustFollow(one, other)));
    order.push(...rest.splice(Math.max(0, free), 1));
  }
  return order;
}
