import type { NodeView } from '../model/api.ts';
import {
  decodeAlive,
  decodeNode,
  decodeSpace,
  decodeVolume,
  keys,
  type NodeDoc,
  type VolumeDoc,
} from '../model/cluster.ts';
import { FlockError } from '../model/errors.ts';
import { applyLabels, type LabelChanges } from '../model/identity.ts';
import { type NodeName, parseNodeName, quote } from '../model/names.ts';
import type { Entry, Operation, Store } from '../store/store.ts';
import { byName, isLocked, listBelow } from './entries.ts';

/** Each repetition means that somebody else has changed the same node meanwhile. */
const attemptsMax = 10;
/** How many names an error text shows. */
const namesMax = 5;

export async function listNodes(store: Store): Promise<readonly NodeView[]> {
  const [nodes = [], alives = [], spaces = [], volumes = []] = await Promise.all(
    [keys.nodes, keys.alives, keys.spaces, keys.volumes].map((key) => listBelow(store, key)),
  );
  const alive = byName(alives);
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
      alive: isLocked(life),
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
  return changeNode(store, name, (doc) => ({ ...doc, draining, cordoned: draining }));
}

/**
 * Takes a dead node that owns nothing out of the cluster; with `force` also one that is to hold copies, which their owners then make
 * elsewhere. Never one that may be the last to have a volume.
 */
export async function removeNode(store: Store, rawName: string, force: boolean): Promise<void> {
  const name = parseNodeName(rawName);
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const entry = await existing(store, name);
    const alives = byName(await listBelow(store, keys.alives));
    const volumes = (await listBelow(store, keys.volumes)).map((volume) => decodeVolume(volume.value));
    const alive = alives.get(name);
    const refusal = whyNotRemove(name, volumes, (node) => isLocked(alives.get(node)), force);
    if (refusal !== null) throw refusal;
    const operations: readonly Operation[] = [
      { kind: 'compare-and-delete', key: keys.node(name), index: entry.index },
      // Its plugin writes this key with each start, so a node that comes back just now makes this a conflict.
      ...(alive === undefined
        ? []
        : [{ kind: 'compare-and-delete', key: keys.alive(name), index: alive.index } as const]),
      { kind: 'delete', key: keys.space(name) },
    ];
    if ((await store.transact(operations)).kind === 'done') return;
  }
  throw busy(name);
}

/** Pure. */
export function whyNotRemove(
  name: NodeName,
  volumes: readonly VolumeDoc[],
  isAlive: (node: NodeName) => boolean,
  force: boolean,
): FlockError | null {
  if (isAlive(name))
    return new FlockError(
      'node-exists',
      `node ${name} is alive: only a node that is down can be removed. Stop it first ("docker plugin disable -f flock" there)`,
      { name },
    );
  const owned = volumes.filter(({ owner }) => owner === name);
  if (owned.length > 0)
    return new FlockError(
      'volume-in-use',
      `node ${name} owns ${describe(owned)}: start it again and hand them over, or bring them up elsewhere ("flockctl failover VOLUME"); what is in its trash counts too`,
      { name, volumes: owned.map(({ id }) => id) },
    );
  const copies = volumes.filter(({ replicas }) => replicas.includes(name));
  const last = copies.filter(({ owner, replicas }) => ![owner, ...replicas].some((n) => n !== name && isAlive(n)));
  if (last.length > 0)
    return new FlockError(
      'volume-in-use',
      `node ${name} may have the last copy of ${describe(last)}: no other node that has one is alive. Bring one of them back first`,
      { name, volumes: last.map(({ id }) => id) },
    );
  if (copies.length > 0 && !force)
    return new FlockError(
      'volume-in-use',
      `node ${name} is to hold copies of ${describe(copies)}: "flockctl node rm --force ${name}" removes it all the same; the owners then make the copies elsewhere`,
      { name, volumes: copies.map(({ id }) => id) },
    );
  return null;
}

function describe(volumes: readonly VolumeDoc[]): string {
  const names = volumes.slice(0, namesMax).map((volume) => (volume.trashed === null ? volume.name : volume.id));
  const rest = volumes.length - names.length;
  return `${volumes.length === 1 ? 'the volume' : `${volumes.length} volumes:`} ${names.join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`;
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

async function existing(store: Store, name: NodeName): Promise<Entry> {
  const entry = await store.get(keys.node(name), { fresh: true });
  if (entry === null) throw notFound(name);
  return entry;
}

function notFound(name: string): FlockError {
  return new FlockError('node-not-found', `the cluster has no node ${quote(name)}: "flockctl node ls" shows them`);
}

function busy(name: NodeName): FlockError {
  return new FlockError('store-unavailable', `node ${name} is changed by others all the time: try again`);
}
