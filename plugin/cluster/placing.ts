import type { Logger } from 'pino';
import { decodeSpace, keys, type NodeDoc, type SpaceDoc, type VolumeDoc } from '../../controller/model/cluster.ts';
import { messageOf } from '../../controller/model/errors.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import { prepareNodes } from '../../controller/model/node-index.ts';
import { placeReplicas } from '../../controller/model/placement.ts';
import type { Store } from '../../controller/store/store.ts';
import type { Storage } from '../storage/storage.ts';
import type { Directory } from './directory.ts';
import type { Clock } from './ports.ts';
import type { CopyStatus } from './replication-work.ts';
import type { Replicated, Replicator } from './replicator.ts';
import type { Transitions } from './transitions.ts';

/**
 * Each owner sees to the copies of its own volumes, so nobody has to be elected for it: the pure `placeReplicas` says where they
 * belong, one step at a time, and the document says it to everybody else.
 */
export type Placing = {
  /** What keeps a volume from having the copies it asks for, for people. */
  problems(id: DatasetId): readonly string[];
  wake(): void;
  run(signal: AbortSignal): Promise<void>;
};

export type PlacingParts = {
  readonly node: NodeName;
  readonly store: Store;
  readonly storage: Storage;
  readonly clock: Clock;
  readonly directory: Directory;
  readonly transitions: Transitions;
  readonly replicator: Replicator;
  readonly volumes: () => readonly Replicated[];
  readonly usedBytes: (id: DatasetId) => number;
  readonly log: Logger;
};

const periodMs = 5_000;
/** Between two rounds that changed as much as they may. */
const burstPeriodMs = 1_000;
const spacePeriodMs = 30_000;
/** Told again when it has changed by this share of the pool. */
const spaceShareMin = 0.02;
/** So many documents change in one round, so that a thousand new volumes don't flood the store. */
const changesMax = 20;

export function createPlacing(parts: PlacingParts): Placing {
  const { node, store, storage, clock, directory, transitions, replicator, volumes, usedBytes, log } = parts;
  const problems = new Map<DatasetId, readonly string[]>();
  const poolLostSinceMs = new Map<NodeName, number>();
  let spaces = new Map<NodeName, SpaceDoc>();
  let told: SpaceDoc | null = null;
  let spaceAtMs = Number.NEGATIVE_INFINITY;
  let wakeUp: () => void = () => undefined;

  async function exchangeSpace(): Promise<void> {
    if (clock.bootMs() - spaceAtMs < spacePeriodMs && spaces.size >= [...directory.nodes()].length) return;
    spaceAtMs = clock.bootMs();
    const status = await storage.pool();
    if (!('reason' in status)) {
      const { sizeBytes, freeBytes } = status;
      const isNews =
        told === null ||
        told.sizeBytes !== sizeBytes ||
        Math.abs(told.freeBytes - freeBytes) > spaceShareMin * sizeBytes;
      if (isNews) {
        await store.transact([{ kind: 'set', key: keys.space(node), value: JSON.stringify({ sizeBytes, freeBytes }) }]);
        told = { sizeBytes, freeBytes };
      }
    }
    const entries = await store.list(`${keys.spaces}/`);
    spaces = new Map(
      entries.map(({ key, value }) => [key.slice(keys.spaces.length + 1) as NodeName, decodeSpace(value)]),
    );
  }

  /** A copy on a pool that has failed is none, and is waited for like one on a dead node. */
  function lifeOf({ name, poolLost }: NodeDoc, seen: { readonly alive: boolean; readonly deadSinceMs: number | null }) {
    if (poolLost !== true) poolLostSinceMs.delete(name);
    else if (!poolLostSinceMs.has(name)) poolLostSinceMs.set(name, clock.bootMs());
    const sinceMs = poolLostSinceMs.get(name);
    return sinceMs === undefined ? seen : { alive: false, deadSinceMs: Math.min(sinceMs, seen.deadSinceMs ?? sinceMs) };
  }

  /** Whether there is more to do at once. */
  async function round(): Promise<boolean> {
    await exchangeSpace();
    const nodes = prepareNodes(
      [...directory.nodes()].map(({ doc, alive, deadSinceMs }) => ({
        ...doc,
        ...lifeOf(doc, { alive: alive !== null, deadSinceMs }),
        space: spaces.get(doc.name) ?? null,
      })),
    );
    let changes = 0;
    for (const { doc } of volumes()) {
      if (changes >= changesMax) return true;
      if (await place(doc, nodes)) changes += 1;
    }
    return false;
  }

  async function place(doc: VolumeDoc, nodes: ReturnType<typeof prepareNodes>): Promise<boolean> {
    const copies = new Map(replicator.status(doc.id).map((copy) => [copy.node, copy]));
    const replicas = doc.replicas.map((name) => ({ node: name, inSync: isUpToDate(copies.get(name)) }));
    const volume = { id: doc.id, owner: doc.owner, options: doc.options, usedBytes: usedBytes(doc.id), replicas };
    const placement = placeReplicas({ volume, nodes, nowMs: clock.bootMs() });
    problems.set(doc.id, [...placement.problems, ...placement.waiting.map(({ reason }) => reason)]);
    const [step] = placement.steps;
    if (step === undefined) return false;
    log.info(
      { event: `placement.${step.kind}`, volume: doc.name, node: step.node, reason: step.reason },
      'the copies of a volume change',
    );
    await transitions.update(doc.id, (current) => ({
      ...current,
      replicas:
        step.kind === 'add'
          ? [...current.replicas.filter((name) => name !== step.node), step.node]
          : current.replicas.filter((name) => name !== step.node),
    }));
    return true;
  }

  return {
    problems: (id) => problems.get(id) ?? [],
    wake: () => wakeUp(),
    async run(signal) {
      while (!signal.aborted) {
        let isMore = false;
        if (directory.complete()) {
          try {
            isMore = await round();
          } catch (error) {
            log.debug({ event: 'placement.failed', reason: messageOf(error) }, 'will be tried again');
          }
        }
        const woken = new AbortController();
        wakeUp = () => woken.abort();
        await clock.sleep(isMore ? burstPeriodMs : periodMs, AbortSignal.any([signal, woken.signal]));
        await clock.sleep(pauseMs, signal);
      }
    },
  };
}

/** A copy of a volume that is written all the time is always a little behind. */
const usualLagMsMax = 5_000;

function isUpToDate(copy: CopyStatus | undefined): boolean {
  return copy !== undefined && copy.snapshot !== null && copy.lagMs !== null && copy.lagMs <= usualLagMsMax;
}

/** What comes together is decided together. */
const pauseMs = 200;
