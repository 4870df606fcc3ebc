import type { NodeName } from './names.ts';
import type { WorkloadDoc, WorkloadId } from './workload.ts';

/**
 * What must be on one node because of `--link`: on its default bridge Docker makes no container without those that it is linked with, and
 * would take a strange one of that name; in other networks a link is a name that leads nowhere without them. Pure.
 */

/** Which of the workloads that are to run are linked with each other, either way. */
export function linksAmong(running: readonly WorkloadDoc[]): ReadonlyMap<WorkloadId, readonly WorkloadDoc[]> {
  const byName = Map.groupBy(running, ({ name }) => name);
  const pairs = running.flatMap((doc) =>
    linkedNames(doc).flatMap((name) => named(doc, byName.get(name)).map((other) => [doc, other] as const)),
  );
  const both = pairs.flatMap(([doc, other]) => [[doc, other] as const, [other, doc] as const]);
  const grouped = Map.groupBy(both, ([{ id }]) => id);
  return new Map([...grouped].map(([id, found]) => [id, found.map(([, other]) => other)]));
}

/** The names of containers that must be made on the node before it, and are not there. */
export function lackingOn(node: NodeName, doc: WorkloadDoc, workloads: readonly WorkloadDoc[]): readonly string[] {
  const { NetworkMode = 'default' } = hostConfigOf(doc);
  if (NetworkMode !== 'default' && NetworkMode !== 'bridge') return [];
  const isHere = (other: WorkloadDoc) => other.node === node && other.containerId !== null;
  return linkedNames(doc).filter((name) => {
    const found = named(
      doc,
      workloads.filter((other) => other.name === name),
    );
    return found.length === 0 || !found.every(isHere);
  });
}

/** Whether it needs others, which does not hold for what is only linked to. */
export const hasLinks = (doc: WorkloadDoc): boolean => linkedNames(doc).length > 0;

function linkedNames(doc: WorkloadDoc): readonly string[] {
  const { Links: links } = hostConfigOf(doc);
  if (!Array.isArray(links)) return [];
  return [...new Set(links.map((link) => String(link).split(':')[0] ?? ''))];
}

function hostConfigOf({ spec }: WorkloadDoc): { readonly NetworkMode?: unknown; readonly Links?: unknown } {
  return spec.create['HostConfig'] ?? {};
}

/** The other one was on the same node when the link was made, and a name means another container on each: they have a node in common. */
function named(doc: WorkloadDoc, others: readonly WorkloadDoc[] = []): readonly WorkloadDoc[] {
  const own = placesOf(doc);
  return others.filter((other) => other.id !== doc.id && placesOf(other).some((place) => own.includes(place)));
}

/** Where it has been made: one that only waits there for its name knows nobody there. */
function placesOf({ node, former, containerId }: WorkloadDoc): readonly NodeName[] {
  const before = former.map((one) => one.node);
  return containerId === null && before.length > 0 ? before : [node, ...before];
}
