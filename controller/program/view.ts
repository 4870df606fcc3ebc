import type { Logger } from 'pino';
import { isLocked } from '../cluster/entries.ts';
import { decodeCluster, decodeNode, decodeVolume, keys, type NodeDoc, type VolumeDoc } from '../model/cluster.ts';
import { messageOf } from '../model/errors.ts';
import { type DatasetId, type NodeName, parseNodeName } from '../model/names.ts';
import { parseProblemOf } from '../model/shape.ts';
import type { Profile } from '../model/timing.ts';
import { decodeWorkload, type WorkloadDoc, type WorkloadId, workloadKeys } from '../model/workload.ts';
import type { Entry, Store } from '../store/store.ts';
import type { Clock } from './home.ts';

/** A document with the index that a compare-and-set of it starts from. */
export type Stored<Doc> = { readonly doc: Doc; readonly index: string };

/** What the store said last of everything that controllers look at. May be late; whoever writes compares. */
export type Seen = {
  /** Empty on a host that is in no cluster. */
  readonly nodes: ReadonlyMap<NodeName, NodeDoc>;
  readonly alive: ReadonlySet<NodeName>;
  /** Nodes whose session is over, and since when this node has seen that without a break (boot clock). */
  readonly deadSinceMs: ReadonlyMap<NodeName, number>;
  /** Nodes whose controller is not at work, and since when this node has seen that without a break (boot clock). */
  readonly silentSinceMs: ReadonlyMap<NodeName, number>;
  readonly volumes: ReadonlyMap<DatasetId, VolumeDoc>;
  readonly workloads: ReadonlyMap<WorkloadId, Stored<WorkloadDoc>>;
  readonly profile: Profile;
};

export type ClusterView = {
  /** Null until everything has been seen once. */
  seen(): Seen | null;
  /** Why the store does not answer; null: it does. */
  fault(): string | null;
  /** Called after each change, at once; answers how to stop that. Must not throw. */
  onChange(listener: () => void): () => void;
  /** Watches until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type ViewParts = {
  readonly store: Store;
  /** Of a cluster, which has nodes and volumes in its store, too. */
  readonly isCluster: boolean;
  readonly clock: Pick<Clock, 'bootMs' | 'sleep'>;
  readonly log: Logger;
};

/** A watch is silent while nothing changes, so whether a store that has failed is back is asked. */
const probeMs = 2_000;

export function createClusterView({ store, isCluster, clock, log }: ViewParts): ClusterView {
  const listeners = new Set<() => void>();
  const nodes = createDocuments(decodeNode, log);
  const volumes = createDocuments(decodeVolume, log);
  const workloads = createDocuments(decodeWorkload, log);
  const waiting = new Set(
    isCluster ? ['nodes', 'alive', 'controllers', 'volumes', 'workloads', 'profile'] : ['workloads'],
  );
  let names: readonly NodeName[] = [];
  let alive: ReadonlySet<NodeName> = new Set();
  let deadSinceMs: ReadonlyMap<NodeName, number> = new Map();
  let controllers: ReadonlySet<NodeName> = new Set();
  let silentSinceMs: ReadonlyMap<NodeName, number> = new Map();
  let profile: Profile = 'default';
  let seen: Seen | null = null;
  let fault: string | null = null;

  function tell(part: string): void {
    if (fault !== null) log.info({ event: 'store.answers' }, 'the store answers again');
    fault = null;
    waiting.delete(part);
    deadSinceMs = missingOf(names, alive, deadSinceMs, clock.bootMs());
    silentSinceMs = missingOf(names, controllers, silentSinceMs, clock.bootMs());
    if (waiting.size === 0)
      seen = {
        nodes: new Map([...nodes.all().values()].map(({ doc }) => [doc.name, doc])),
        alive,
        deadSinceMs,
        silentSinceMs,
        volumes: new Map([...volumes.all().values()].map(({ doc }) => [doc.id, doc])),
        workloads: new Map([...workloads.all().values()].map((stored) => [stored.doc.id, stored])),
        profile,
      };
    for (const listener of [...listeners]) listener();
  }

  function failed(error: unknown): void {
    if (fault === null) log.warn({ event: 'store.away', reason: messageOf(error) }, 'nothing is decided meanwhile');
    fault = messageOf(error);
    // Who was dead may have been alive in between.
    deadSinceMs = new Map();
    silentSinceMs = new Map();
    if (seen !== null) seen = { ...seen, deadSinceMs, silentSinceMs };
  }

  async function follow(
    part: string,
    below: string,
    signal: AbortSignal,
    take: (entries: readonly Entry[]) => void,
  ): Promise<void> {
    for await (const entries of store.watch(`${below}/`, signal, failed)) {
      take(entries);
      tell(part);
    }
  }

  /** Never changes in the life of a cluster. */
  async function readProfile(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const entry = await store.get(keys.cluster, { fresh: true });
        if (entry !== null) {
          profile = decodeCluster(entry.value).profile;
          tell('profile');
          return;
        }
      } catch (error) {
        failed(error);
      }
      await clock.sleep(probeMs, signal);
    }
  }

  async function probe(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await clock.sleep(probeMs, signal);
      if (signal.aborted || fault === null) continue;
      await store.get(keys.cluster, { fresh: true }).then(
        () => tell(''),
        () => undefined,
      );
    }
  }

  const workloadsOnly = (signal: AbortSignal) => follow('workloads', workloadKeys.workloads, signal, workloads.take);

  return {
    seen: () => seen,
    fault: () => fault,
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async run(signal) {
      const everywhere = [workloadsOnly(signal), probe(signal)];
      if (!isCluster) return void (await Promise.all(everywhere));
      await Promise.all([
        ...everywhere,
        follow('volumes', keys.volumes, signal, volumes.take),
        follow('nodes', keys.nodes, signal, (entries) => {
          nodes.take(entries);
          // A node whose document can't be read here counts all the same.
          names = namesOf(entries);
        }),
        follow('alive', keys.alives, signal, (entries) => {
          alive = new Set(namesOf(entries.filter(isLocked)));
        }),
        follow('controllers', keys.controllers, signal, (entries) => {
          controllers = new Set(namesOf(entries.filter(isLocked)));
        }),
        readProfile(signal),
      ]);
    },
  };
}

/** Who is not among those that are there, and since when. */
function missingOf(
  names: readonly NodeName[],
  there: ReadonlySet<NodeName>,
  before: ReadonlyMap<NodeName, number>,
  nowMs: number,
): ReadonlyMap<NodeName, number> {
  return new Map(names.filter((name) => !there.has(name)).map((name) => [name, before.get(name) ?? nowMs]));
}

function namesOf(entries: readonly Entry[]): readonly NodeName[] {
  return entries.flatMap(({ key }) => {
    try {
      return [parseNodeName(key.slice(key.lastIndexOf('/') + 1))];
    } catch {
      return [];
    }
  });
}

/** By key. What did not change is not read again; what can't be read is left out, and told once. */
function createDocuments<Doc>(
  decode: (text: string) => Doc,
  log: Logger,
): { take(entries: readonly Entry[]): void; all(): ReadonlyMap<string, Stored<Doc>> } {
  let known: ReadonlyMap<string, Stored<Doc | null>> = new Map();

  function read({ key, value, index }: Entry): Stored<Doc | null> {
    try {
      return { doc: decode(value), index };
    } catch (error) {
      log.error({ event: 'document.unreadable', key, reason: parseProblemOf(error) }, 'it is left out');
      return { doc: null, index };
    }
  }

  return {
    take(entries) {
      known = new Map(
        entries.map((entry) => {
          const before = known.get(entry.key);
          return [entry.key, before?.index === entry.index ? before : read(entry)];
        }),
      );
    },
    all: () =>
      new Map([...known].flatMap(([key, { doc, index }]) => (doc === null ? [] : [[key, { doc, index }] as const]))),
  };
}
