import type { Logger } from 'pino';
import { removedEpoch } from '../../controller/cluster/tombstones.ts';
import {
  type AliveDoc,
  decodeAlive,
  decodeNode,
  decodeVolume,
  keys,
  type NodeDoc,
  type VolumeDoc,
} from '../../controller/model/cluster.ts';
import { messageOf } from '../../controller/model/errors.ts';
import type { DatasetId, NodeName, VolumeName } from '../../controller/model/names.ts';
import type { Seen } from '../../controller/model/ownership.ts';
import type { Entry, SessionId, Store } from '../../controller/store/store.ts';
import type { Clock } from './ports.ts';

/**
 * What this node has last seen of the store, always at hand: Docker's questions are answered from it, also while the store is away.
 * It may be old; whoever decides something by it has the store check that in the same transaction, or looks freshly.
 */
export type Directory = {
  volume(id: DatasetId): SeenVolume | null;
  byName(name: VolumeName): SeenVolume | null;
  volumes(): Iterable<SeenVolume>;
  node(name: NodeName): SeenNode | null;
  nodes(): Iterable<SeenNode>;
  /** A fresh look at one volume; null: the store has no such. Throws `store-unavailable`. */
  look(id: DatasetId): Promise<SeenVolume | null>;
  /** The last epoch of a volume that somebody has removed, by a fresh look; null: nobody has. Throws `store-unavailable`. */
  removedEpoch(id: DatasetId): Promise<number | null>;
  /** How this node's session relates to what was seen. */
  seen(volume: SeenVolume, session: SessionId | null): Seen;
  /** Whether everything has been seen once since the start. */
  complete(): boolean;
  run(signal: AbortSignal): Promise<void>;
};

export type SeenVolume = {
  readonly doc: VolumeDoc;
  readonly index: string;
  readonly session: SessionId | null;
  /** Boot time when this node first saw it unlocked at this index; null while it is locked. */
  readonly freeSinceMs: number | null;
};

export type SeenNode = {
  readonly doc: NodeDoc;
  readonly alive: AliveDoc | null;
  /** Boot time when this node first saw it dead; null while it lives. */
  readonly deadSinceMs: number | null;
};

export type DirectoryParts = {
  readonly store: Store;
  readonly clock: Clock;
  /** What was seen before the plugin was restarted. */
  readonly cache: {
    load(): readonly VolumeDoc[];
    save(put: readonly VolumeDoc[], gone: readonly DatasetId[]): void;
    /** The nodes as one text, so that they are reached also when the plugin starts while the store is away. */
    loadNodes(): string | null;
    saveNodes(text: string): void;
  };
  readonly onChange: () => void;
  readonly log: Logger;
};

export function createDirectory({ store, clock, cache, onChange, log }: DirectoryParts): Directory {
  let volumes = new Map<DatasetId, SeenVolume>();
  let names = new Map<VolumeName, DatasetId>();
  let nodes = new Map<NodeName, SeenNode>();
  let nodeDocs = new Map<NodeName, NodeDoc>();
  let alives = new Map<NodeName, { readonly doc: AliveDoc; readonly locked: boolean }>();
  /** Documents, and null for those that are gone, that the cache does not have as they are. */
  const unsaved = new Map<DatasetId, VolumeDoc | null>();
  const complete = { volumes: false, nodes: false, alives: false };

  for (const doc of cache.load()) {
    volumes.set(doc.id, { doc, index: '', session: null, freeSinceMs: null });
    if (doc.trashed === null) names.set(doc.name, doc.id);
  }

  const knownNodes: readonly string[] = JSON.parse(cache.loadNodes() ?? '[]');
  nodeDocs = new Map(knownNodes.map((text) => decodeNode(text)).map((doc) => [doc.name, doc]));
  combineNodes();

  function toVolume(entry: Entry): SeenVolume {
    const doc = decodeVolume(entry.value);
    const before = volumes.get(doc.id);
    // Whoever locked it in between has changed the index, and the guard time starts anew.
    const since = before?.index === entry.index ? before.freeSinceMs : null;
    const freeSinceMs = entry.session === null ? (since ?? clock.bootMs()) : null;
    return { doc, index: entry.index, session: entry.session, freeSinceMs };
  }

  function takeVolumes(entries: readonly Entry[]): void {
    const next = new Map<DatasetId, SeenVolume>();
    const changed: VolumeDoc[] = [];
    for (const entry of entries) {
      const before = volumes.get(idOf(entry));
      if (before !== undefined && before.index === entry.index && before.session === entry.session) {
        next.set(before.doc.id, before);
        continue;
      }
      const volume = decoded(entry, toVolume);
      if (volume === null) continue;
      next.set(volume.doc.id, volume);
      if (before === undefined || JSON.stringify(before.doc) !== JSON.stringify(volume.doc)) changed.push(volume.doc);
    }
    const gone = [...volumes.keys()].filter((id) => !next.has(id));
    volumes = next;
    names = new Map(
      [...next.values()].flatMap(({ doc }) => (doc.trashed === null ? [[doc.name, doc.id] as const] : [])),
    );
    for (const doc of changed) unsaved.set(doc.id, doc);
    for (const id of gone) unsaved.set(id, null);
    save();
    complete.volumes = true;
  }

  /** A cache that can't be written (a full disk) is no reason to stand still: it is written with the next change. */
  function save(): void {
    if (unsaved.size === 0) return;
    try {
      const docs = [...unsaved.values()].filter((doc) => doc !== null);
      cache.save(
        docs,
        [...unsaved].flatMap(([id, doc]) => (doc === null ? [id] : [])),
      );
      unsaved.clear();
    } catch (error) {
      tellUnsaved(error);
    }
  }

  function saveNodes(): void {
    const text = JSON.stringify([...nodeDocs.values()].map((doc) => JSON.stringify(doc)));
    try {
      if (text !== (cache.loadNodes() ?? '[]')) cache.saveNodes(text);
    } catch (error) {
      tellUnsaved(error);
    }
  }

  function tellUnsaved(error: unknown): void {
    log.warn(
      { event: 'store.cache-failed', reason: messageOf(error) },
      'what was seen of the store is not kept on disk',
    );
  }

  function combineNodes(): void {
    const next = new Map<NodeName, SeenNode>();
    for (const [name, doc] of nodeDocs) {
      const alive = alives.get(name);
      const lives = alive?.locked === true;
      const deadSinceMs = lives ? null : (nodes.get(name)?.deadSinceMs ?? clock.bootMs());
      next.set(name, { doc, alive: lives ? alive.doc : null, deadSinceMs });
    }
    nodes = next;
  }

  function decoded<T>(entry: Entry, decode: (entry: Entry) => T): T | null {
    try {
      return decode(entry);
    } catch (error) {
      log.error(
        { event: 'store.unreadable', key: entry.key, reason: messageOf(error) },
        'an entry of the store is ignored',
      );
      return null;
    }
  }

  async function follow(prefix: string, signal: AbortSignal, take: (entries: readonly Entry[]) => void): Promise<void> {
    const onFault = (error: unknown) =>
      log.debug({ event: 'store.watch-fault', prefix, reason: messageOf(error) }, 'watching the store goes on');
    for await (const entries of store.watch(`${prefix}/`, signal, onFault)) {
      take(entries);
      onChange();
    }
  }

  return {
    volume: (id) => volumes.get(id) ?? null,
    byName: (name) => {
      const id = names.get(name);
      return id === undefined ? null : (volumes.get(id) ?? null);
    },
    volumes: () => volumes.values(),
    node: (name) => nodes.get(name) ?? null,
    nodes: () => nodes.values(),
    async look(id) {
      const entry = await store.get(keys.volume(id), { fresh: true });
      return entry === null ? null : toVolume(entry);
    },
    removedEpoch: (id) => removedEpoch(store, id),
    seen: ({ doc, session: locker }, session) => ({
      doc,
      lock: locker === null ? 'free' : locker === session ? 'ours' : 'other',
    }),
    complete: () => complete.volumes && complete.nodes && complete.alives,
    async run(signal) {
      await Promise.all([
        follow(keys.volumes, signal, takeVolumes),
        follow(keys.nodes, signal, (entries) => {
          nodeDocs = new Map(
            entries
              .flatMap((entry) => decoded(entry, (one) => decodeNode(one.value)) ?? [])
              .map((doc) => [doc.name, doc]),
          );
          saveNodes();
          complete.nodes = true;
          combineNodes();
        }),
        follow(keys.alives, signal, (entries) => {
          alives = new Map(
            entries.flatMap((entry) => {
              const doc = decoded(entry, (one) => decodeAlive(one.value));
              const name = entry.key.slice(keys.alives.length + 1) as NodeName;
              return doc === null ? [] : [[name, { doc, locked: entry.session !== null }] as const];
            }),
          );
          complete.alives = true;
          combineNodes();
        }),
      ]);
    },
  };
}

function idOf(entry: Entry): DatasetId {
  return entry.key.slice(keys.volumes.length + 1) as DatasetId;
}
