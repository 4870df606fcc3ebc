import { isDeepStrictEqual } from 'node:util';
import { createdAtMsOf, type Described, workloadLabel } from '../model/container-spec.ts';
import type { InspectedWorkload } from '../model/inspected.ts';
import type { NodeName, VolumeName } from '../model/names.ts';
import {
  type WorkloadDoc,
  type WorkloadId,
  type WorkloadVolume,
  workloadIdFor,
  workloadKeys,
} from '../model/workload.ts';
import type { Operation, Store } from '../store/store.ts';
import type { LocalContainer } from './local.ts';
import type { Stored } from './view.ts';

/** What this node writes into the documents of its workloads. All but `write` is pure. */

export type Workloads = ReadonlyMap<WorkloadId, Stored<WorkloadDoc>>;

/** Whose container this is. */
export type Belonging =
  | { readonly kind: 'workload'; readonly stored: Stored<WorkloadDoc> }
  | { readonly kind: 'new'; readonly id: WorkloadId }
  /** It was made for a move, and nobody comes back for it. */
  | { readonly kind: 'left'; readonly id: WorkloadId }
  /** It was put away, is to be, or is part of a move: it has no document of its own. */
  | { readonly kind: 'none' };

/** The containers of a node that documents speak of, by id. */
export type Spoken = { readonly own: ReadonlyMap<string, Stored<WorkloadDoc>>; readonly former: ReadonlySet<string> };

export function spokenOf(workloads: Workloads, me: NodeName): Spoken {
  const all = [...workloads.values()];
  return {
    own: new Map(
      all.flatMap((stored) =>
        stored.doc.node === me && stored.doc.containerId !== null ? [[stored.doc.containerId, stored] as const] : [],
      ),
    ),
    former: new Set(all.flatMap(({ doc }) => doc.former.map(({ containerId }) => containerId))),
  };
}

/** The workload that flock has made it for; null: a person has made it. */
function labelledWorkload({ Config }: InspectedWorkload): WorkloadId | null {
  const label = Config.Labels?.[workloadLabel];
  return label !== undefined && /^[0-9a-f]{16}$/.test(label) ? (label as WorkloadId) : null;
}

export function belongingOf(
  inspected: InspectedWorkload,
  workloads: Workloads,
  spoken: Spoken,
  me: NodeName,
): Belonging {
  const { Id } = inspected;
  const own = spoken.own.get(Id);
  if (own !== undefined) return { kind: 'workload', stored: own };
  if (spoken.former.has(Id)) return { kind: 'none' };
  const label = labelledWorkload(inspected);
  const doc = workloads.get(label ?? workloadIdFor(Id))?.doc;
  if (doc === undefined) return { kind: 'new', id: label ?? workloadIdFor(Id) };
  return label !== null && isLeftBehind(inspected, doc, me) ? { kind: 'left', id: label } : { kind: 'none' };
}

/**
 * Whether it is what a move has made on this node, and of no use any more; it runs only if a person has started it, beside the workload's own.
 * People copy labels, too (`docker commit`), and use what was put away: theirs has another name or another image.
 */
export function isLeftBehind(
  { Name, Image, State }: Pick<InspectedWorkload, 'Name' | 'Image'> & { readonly State: { readonly Status: string } },
  { name, node, move, spec }: Pick<WorkloadDoc, 'name' | 'node' | 'move' | 'spec'>,
  me: NodeName,
): boolean {
  const isThere = State.Status === 'created' || State.Status === 'running';
  return node !== me && move === null && isThere && Name === `/${name}` && Image === spec.imageId;
}

type MarkedContainer = Pick<InspectedWorkload, 'Image'> & {
  readonly State: { readonly Status: string };
  readonly Config: { readonly Labels?: Readonly<Record<string, string>> | null | undefined };
};

/**
 * Whether flock has made it for this workload, as far as can be seen. People copy labels (`docker commit`, tools that make containers anew):
 * one that has run is flock's only if its image is the workload's, too.
 */
export function isMadeFor(
  { Image, State, Config }: MarkedContainer,
  { id, spec }: Pick<WorkloadDoc, 'id' | 'spec'>,
): boolean {
  return Config.Labels?.[workloadLabel] === id && (State.Status === 'created' || Image === spec.imageId);
}

/**
 * The volumes of a container with their ids; null while one of them is not known yet. One that is gone from the store keeps the id that
 * it had.
 */
export function volumesOf(
  { volumes }: Described,
  idOf: (name: VolumeName) => WorkloadVolume['id'] | null,
  before: readonly WorkloadVolume[],
): readonly WorkloadVolume[] | null {
  const found = volumes.flatMap((name) => {
    const id = idOf(name) ?? before.find((volume) => volume.name === name)?.id;
    return id === undefined ? [] : [{ id, name }];
  });
  return found.length === volumes.length ? found : null;
}

export function newWorkload(
  id: WorkloadId,
  { inspected, described }: LocalContainer,
  volumes: readonly WorkloadVolume[],
  node: NodeName,
): WorkloadDoc {
  const status = inspected.State.Status;
  return {
    id,
    ...described,
    volumes,
    createdAtMs: createdAtMsOf(inspected),
    node,
    epoch: 1,
    containerId: inspected.Id,
    wanted: status === 'running' || status === 'paused' || status === 'restarting' ? 'running' : 'stopped',
    former: [],
    move: null,
    revision: 1,
  };
}

/** The document with what its container is like now; the same one where nothing has changed. */
export function refreshed(
  doc: WorkloadDoc,
  { inspected, described }: LocalContainer,
  volumes: readonly WorkloadVolume[],
): WorkloadDoc {
  const isMade = Object.hasOwn(inspected.Config.Labels ?? {}, workloadLabel);
  const { spec } = described;
  // Where the name means another image here, the container was made by the id.
  const isById = spec.image === spec.imageId && doc.spec.imageId === spec.imageId;
  const next: WorkloadDoc = {
    ...doc,
    ...described,
    volumes,
    spec: isById ? { ...spec, image: doc.spec.image } : spec,
    // What flock makes has the volumes themselves in place of --volumes-from.
    after: isMade ? doc.after : described.after,
  };
  return isDeepStrictEqual(plain(next), plain(doc)) ? doc : next;
}

/** Whether a container is not what its document says, so that another one made by that would not be the same. */
export function isOtherThan({ name, spec }: WorkloadDoc, described: Pick<Described, 'name' | 'spec'>): boolean {
  const body = ({ create, networks }: WorkloadDoc['spec']) => plain({ create, networks });
  return name !== described.name || !isDeepStrictEqual(body(spec), body(described.spec));
}

/** Whether what flock has stopped runs again, or is not to run any more. */
export function hasComeUp({ State }: InspectedWorkload, { wanted, stoppedByFlockAtMs }: WorkloadDoc): boolean {
  return stoppedByFlockAtMs !== undefined && (State.Status === 'running' || wanted === 'stopped');
}

function plain(doc: object): unknown {
  return JSON.parse(JSON.stringify(doc));
}

/** Writes it over the version that was seen; null: as a new one; and only if `others` have not changed. Answers whether it did. */
export async function write(
  store: Store,
  doc: WorkloadDoc,
  index: string | null,
  others: readonly Stored<WorkloadDoc>[] = [],
): Promise<boolean> {
  const value = JSON.stringify({ ...doc, revision: index === null ? doc.revision : doc.revision + 1 });
  const operation: Operation = { kind: 'compare-and-set', key: workloadKeys.workload(doc.id), value, index };
  const checks = others.map((other): Operation => {
    return { kind: 'check-index', key: workloadKeys.workload(other.doc.id), index: other.index };
  });
  return (await store.transact([...checks, operation])).kind === 'done';
}

export async function remove(store: Store, { doc, index }: Stored<WorkloadDoc>): Promise<boolean> {
  const operation: Operation = { kind: 'compare-and-delete', key: workloadKeys.workload(doc.id), index };
  return (await store.transact([operation])).kind === 'done';
}
