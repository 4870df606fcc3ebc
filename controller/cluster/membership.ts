import type { NodeView } from '../model/api.ts';
import { decodeAlive, decodeNode, decodeSpace, decodeVolume, keys, type NodeDoc } from '../model/cluster.ts';
import { FlockError } from '../model/errors.ts';
import { applyLabels, type LabelChanges } from '../model/identity.ts';
import { type NodeName, parseNodeName, quote } from '../model/names.ts';
import type { Entry, Store } from '../store/store.ts';
import { byName, isLocked, listBelow } from './entries.ts';

/** Each repetition means that somebody else has changed the same node meanwhile. */
export const attemptsMax = 10;

export async function listNodes(store: Store): Promise<readonly NodeView[]> {
  const [nodes = [], alives = [], controllers = [], spaces = [], volumes = []] = await Promise.all(
    [keys.nodes, keys.alives, keys.controllers, keys.spaces, keys.volumes].map((key) => listBelow(store, key)),
  );
  const alive = byName(alives);
  const controller = byName(controllers);
  const space = byName(spaces);
  const docs = volumes.map((entry) => decodeVolume(entry.value));
  return nodes.map((entry) => {
    const doc = decodeNode(entry.value);
    const life = alive.get(doc.name);
    const room = space.get(doc.name);
    const { sizeBytes = null, freeBytes = null } = room === undefined ? {} : decodeSpace(room.value);
    const owned = docs.filter(({ owner, trashed }) => owner === doc.name && trashed === null).length;
    return {
      ...doc,
      poolLost: doc.poolLost === true,
      alive: isLocked(life),
      controller: isLocked(controller.get(doc.name)),
      version: life === undefined ? null : decodeAlive(life.value).version,
      sizeBytes,
      freeBytes,
      volumes: owned,
      copies: docs.filter(({ replicas }) => replicas.includes(doc.name)).length,
    };
  });
}

export async function viewNode(store: Store, name: string): Promise<NodeView> {
  const view = (await listNodes(store)).find((node) => node.name === name);
  if (view === undefined) throw notFound(name);
  return view;
}

export function labelNode(store: Store, name: string, changes: LabelChanges): Promise<void> {
  return changeNode(store, name, (doc) => ({ ...doc, labels: applyLabels(doc.labels, changes) }));
}

/** A cordoned node gets no new volumes and copies; what it has stays. */
export function cordonNode(store: Store, name: string, cordoned: boolean): Promise<void> {
  return changeNode(store, name, (doc) => ({ ...doc, cordoned }));
}

/** A draining node is to lose what it has: the owners of its copies make them elsewhere, its own volumes are moved by its controller. */
export function drainNode(store: Store, name: string, draining: boolean): Promise<void> {
  return changeNode(store, name, (doc) => ({ ...doc, draining }));
}

/** What a node says of its own pool. */
export function markPool(store: Store, name: NodeName, isLost: boolean): Promise<void> {
  return changeNode(store, name, ({ poolLost: _, ...doc }) => (isLost ? { ...doc, poolLost: true } : doc));
}

async function changeNode(store: Store, rawName: string, change: (doc: NodeDoc) => NodeDoc): Promise<void> {
  const name = parseNodeName(rawName);
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const entry = await existing(store, name);
    const value = JSON.stringify(change(decodeNode(entry.value)));
    if (value === entry.value) return;
    const operation = { kind: 'compare-and-set', key: entry.key, value, index: entry.index } as const;
    if ((await store.transact([operation])).kind === 'done') return;
  }
  throw busy(name);
}

export async function existing(store: Store, name: NodeName): Promise<Entry> {
  const entry = await store.get(keys.node(name), { fresh: true });
  if (entry === null) throw notFound(name);
  return entry;
}

export function notFound(name: string): FlockError {
  return new FlockError('node-not-found', `the cluster has no node ${quote(name)}: "flockctl node ls" shows them`);
}

export function busy(name: NodeName): FlockError {
  return new FlockError('store-unavailable', `node ${name} is changed by others all the time: try again`);
}
