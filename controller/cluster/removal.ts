import { decodeVolume, keys, type VolumeDoc } from '../model/cluster.ts';
import { FlockError } from '../model/errors.ts';
import { type NodeName, parseNodeName, quote } from '../model/names.ts';
import type { Entry, Operation, Store } from '../store/store.ts';
import { byName, isLocked, listBelow } from './entries.ts';
import { attemptsMax, busy, existing } from './membership.ts';
import { tombstone } from './tombstones.ts';

export type RemovalOptions = {
  /** Also one that is to hold copies: their owners make them elsewhere then. */
  readonly force: boolean;
  /** It will never come back: what is in its trash, and its volumes without a copy on another node, are given up. Implies `force`. */
  readonly lost: boolean;
  /** Volumes of it that are given up though others may have copies, by name or identifier. Nodes destroy copies of what is no volume. Implies `lost`. */
  readonly giveUp: readonly string[];
};

/** How many names an error text shows. */
const namesMax = 5;

/**
 * Takes a dead node out of the cluster; never one that is alive, nor one whose volumes can be brought up elsewhere. Every change is made
 * only as long as the node has not come back. One that was removed by mistake brings what was given up back when it joins again: nothing
 * was done to its disk.
 */
export async function removeNode(store: Store, rawName: string, options: RemovalOptions, nowMs: number): Promise<void> {
  const name = parseNodeName(rawName);
  /** By this call. */
  const done: VolumeDoc[] = [];
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const entry = await existing(store, name);
    const alives = byName(await listBelow(store, keys.alives));
    const nodes = new Set(byName(await listBelow(store, keys.nodes)).keys());
    const entries = (await listBelow(store, keys.volumes)).map((found) => ({ found, doc: decodeVolume(found.value) }));
    const locked = new Set(entries.filter(({ found }) => isLocked(found)).map(({ doc }) => doc));
    const alive = alives.get(name);
    const rest = options.giveUp.filter((text) => !done.some((doc) => isMeant(doc, text)));
    const now = { ...options, giveUp: rest, lost: options.lost || done.length > 0 };
    const decision = decideRemoval(name, now, {
      volumes: entries.map(({ doc }) => doc),
      isNode: (node) => nodes.has(node),
      isAlive: (node) => isLocked(alives.get(node)),
      isLocked: (doc) => locked.has(doc),
    });
    if (decision instanceof FlockError) throw decision;
    const stillDead: readonly Operation[] = [
      { kind: 'check-index', key: entry.key, index: entry.index },
      // Its plugin writes this key with each start, so a node that comes back just now makes this a conflict.
      ...(alive === undefined
        ? absent(keys.alive(name))
        : [{ kind: 'check-index', key: alive.key, index: alive.index } as const]),
    ];
    const given = entries.filter(({ doc }) => decision.includes(doc));
    const areGiven = await allDone(given, async ({ found, doc }) => {
      const isGiven = await giveUp(store, found, doc, [...stillDead, tombstone(doc, nowMs)]);
      if (isGiven) done.push(doc);
      return isGiven;
    });
    if (!areGiven) continue;
    const last = await store.transact([
      ...stillDead,
      { kind: 'delete', key: entry.key },
      { kind: 'delete', key: keys.alive(name) },
      { kind: 'delete', key: keys.controller(name) },
      { kind: 'delete', key: keys.space(name) },
    ]);
    if (last.kind === 'done') return;
  }
  throw busy(name);
}

/** A conflict where there is something at this key; else nothing. */
function absent(key: string): readonly Operation[] {
  return [
    { kind: 'compare-and-set', key, value: '', index: null },
    { kind: 'delete', key },
  ];
}

/** One after the other; false: somebody else has changed one meanwhile. */
async function allDone<T>(items: readonly T[], work: (item: T) => Promise<boolean>): Promise<boolean> {
  for (const item of items) if (!(await work(item))) return false;
  return true;
}

async function giveUp(
  store: Store,
  { key, index }: Entry,
  { id, name }: VolumeDoc,
  operations: readonly Operation[],
): Promise<boolean> {
  const holder = await store.get(keys.name(name), { fresh: true });
  const outcome = await store.transact([
    ...operations,
    { kind: 'compare-and-delete', key, index },
    ...(holder?.value === id ? [{ kind: 'compare-and-delete', key: holder.key, index: holder.index } as const] : []),
  ]);
  return outcome.kind === 'done';
}

type Seen = {
  readonly volumes: readonly VolumeDoc[];
  readonly isNode: (node: NodeName) => boolean;
  readonly isAlive: (node: NodeName) => boolean;
  /** By the node that owns it. */
  readonly isLocked: (doc: VolumeDoc) => boolean;
};

/** What is given up with the node, or why it is not removed. Pure. */
export function decideRemoval(
  name: NodeName,
  { force, lost, giveUp }: RemovalOptions,
  { volumes, isNode, isAlive, isLocked }: Seen,
): readonly VolumeDoc[] | FlockError {
  const owned = volumes.filter(({ owner }) => owner === name);
  if (isAlive(name) || owned.some(isLocked))
    return new FlockError(
      'node-exists',
      `node ${name} is alive: only a node that is down can be removed. Stop it first ("docker plugin disable -f flock" there)`,
      { name },
    );
  const isNamed = (doc: VolumeDoc) => giveUp.some((text) => isMeant(doc, text));
  // With --lost as well it may have been given up before: then this can be repeated. A slip of the pen must not stand for --lost.
  const known = lost ? volumes.filter(({ owner }) => owner !== name) : null;
  const isUnknown = (text: string) =>
    !owned.some((doc) => isMeant(doc, text)) && (known === null || known.some((doc) => isMeant(doc, text)));
  const unknown = giveUp.find(isUnknown);
  if (unknown !== undefined)
    return new FlockError(
      'volume-not-found',
      `node ${name} owns no volume ${quote(unknown)} that could be given up (any more): leave it out, or use --lost as well`,
    );
  const isLost = lost || giveUp.length > 0;
  const hasCopies = (doc: VolumeDoc) =>
    doc.trashed === null && doc.replicas.some((node) => node !== name && isNode(node));
  const elsewhere = owned.filter((doc) => hasCopies(doc) && !isNamed(doc));
  const gone = owned.filter((doc) => !elsewhere.includes(doc));
  if (elsewhere.length > 0)
    return inUse(
      name,
      elsewhere,
      `owns ${describe(elsewhere)}: start it again and hand them over, or bring them up elsewhere ("flockctl failover VOLUME")${isLost ? `; what can't be brought up is given up with "--give-up VOLUME"` : ''}`,
    );
  if (gone.length > 0 && !isLost)
    return inUse(
      name,
      gone,
      `owns ${describe(gone)}, which no other node has, or which are in its trash: start it again, and hand them over, restore or purge them there. If it will never come back, "flockctl node rm --lost ${name}" removes it and gives them up`,
    );
  const copies = volumes.filter(({ replicas }) => replicas.includes(name));
  const last = copies.filter(({ owner, replicas }) => ![owner, ...replicas].some((n) => n !== name && isAlive(n)));
  if (last.length > 0 && !isLost)
    return inUse(
      name,
      last,
      `may have the last copy of ${describe(last)}: no other node that has one is alive. Bring one of them back first`,
    );
  if (copies.length > 0 && !force && !isLost)
    return inUse(
      name,
      copies,
      `is to hold copies of ${describe(copies)}: "flockctl node rm --force ${name}" removes it all the same; the owners then make the copies elsewhere`,
    );
  return gone;
}

function isMeant({ id, name, trashed }: VolumeDoc, text: string): boolean {
  return id === text || (trashed === null && name === text);
}

function inUse(name: NodeName, volumes: readonly VolumeDoc[], text: string): FlockError {
  return new FlockError('volume-in-use', `node ${name} ${text}`, { name, volumes: volumes.map(({ id }) => id) });
}

function describe(volumes: readonly VolumeDoc[]): string {
  const names = volumes.slice(0, namesMax).map((volume) => (volume.trashed === null ? volume.name : volume.id));
  const rest = volumes.length - names.length;
  return `${volumes.length === 1 ? 'the volume' : `${volumes.length} volumes:`} ${names.join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`;
}
