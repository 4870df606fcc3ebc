import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError, hasCode } from '../../controller/model/errors.ts';
import { policyOf } from '../../controller/model/failover.ts';
import { type NodeName, quote, type VolumeName } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { SessionId } from '../../controller/store/store.ts';
import type { State } from '../state.ts';
import type { Directory } from './directory.ts';
import type { Duties } from './duties.ts';
import type { Fence } from './fence.ts';
import type { Lease } from './lease.ts';
import type { Clock, Peers } from './ports.ts';
import type { Retreat } from './retreat.ts';

/** What a mount needs before it may be given: that the volume is this node's own, and that this is proven. */
export type Obtaining = {
  /** Brings the volume here and waits for the proof. Called under the lock of the name. */
  obtain(name: VolumeName, signal: AbortSignal): Promise<void>;
  /** Throws `lease-lost` unless the volume may be written long enough for a container to start. */
  assure(record: VolumeRecord): void;
};

export type ObtainingParts = {
  readonly node: NodeName;
  readonly clock: Clock;
  readonly peers: Peers;
  readonly state: State;
  readonly lease: Lease;
  readonly directory: Directory;
  readonly fence: Fence;
  readonly duties: Duties;
  readonly retreat: Pick<Retreat, 'fault' | 'stateOf'>;
  readonly fenceAfterMs: number;
};

export function createObtaining(parts: ObtainingParts): Obtaining {
  const { node, clock, peers, state, lease, directory, fence, duties, retreat, fenceAfterMs } = parts;
  /** Enough for a mount to become a running container under the watch of the fence. */
  const mountMarginMs = Math.min(1_000, fenceAfterMs / 4);

  function assure(record: VolumeRecord): void {
    if (fence.isProven(record.id, mountMarginMs)) return;
    throw new FlockError(
      'lease-lost',
      `this node can't prove now that volume ${quote(record.name)} is its own: the store has not confirmed it for ${(fenceAfterMs / 1000).toFixed(1)} s. Look at Consul ("consul members", "flockctl status")`,
    );
  }

  /** Under the lock of the name, so what is to be done about the volume here is done here too: nobody else gets to it. */
  async function obtain(name: VolumeName, signal: AbortSignal): Promise<void> {
    const startedMs = clock.bootMs();
    for (;;) {
      const local = state.byName(name);
      const isReady = local !== undefined && local.phase.kind !== 'handing-over';
      if (isReady && local.phase.kind !== 'ready') return;
      if (isReady && fence.isProven(local.id, mountMarginMs)) return await fence.watch(local.id);
      refuseWithoutPool(name, local);
      const leftMs = obtainMs - (clock.bootMs() - startedMs);
      const id = local?.id ?? directory.byName(name)?.doc.id;
      if (id === undefined) throw new FlockError('volume-not-found', `there is no volume ${quote(name)}`);
      const session = lease.session();
      if (session === null) {
        // A host that has just booted, or whose Consul is just electing, needs a moment.
        if (leftMs < sessionMarginMs) throw notInStore(name);
      } else {
        const seen = await directory.look(id);
        if (seen === null || seen.doc.trashed !== null)
          throw new FlockError('volume-not-found', `there is no volume ${quote(name)}`);
        if (leftMs < obtainMarginMs) {
          // `assure` says what is missing.
          if (isReady) return;
          throw running(name, seen.doc.owner, null);
        }
        const record = state.byId(id);
        const isCopy = record === undefined || record.phase.kind === 'replica';
        if (seen.doc.owner === node || !isCopy) await duties.settle(id, signal);
        else await askOwner(seen.doc, session, leftMs, signal);
        if (state.byName(name)?.phase.kind === 'ready' && fence.isProven(id, mountMarginMs))
          return await fence.watch(id);
      }
      await clock.sleep(obtainPauseMs, signal);
      if (signal.aborted)
        throw new FlockError('caller-gone', `the caller does not wait for volume ${quote(name)} any more`);
    }
  }

  /** What is this node's own fails by itself where the pool is needed, or can still be read. */
  function refuseWithoutPool(name: VolumeName, local: VolumeRecord | undefined): void {
    const fault = retreat.fault();
    if (fault === null || (local?.phase.kind === 'ready' && retreat.stateOf(local.id) === null)) return;
    throw new FlockError(
      'pool-unusable',
      `volume ${quote(name)} can't be used on this node: ${fault}. Nodes with a copy go on with it ("flockctl failover ${name}" shows which)`,
    );
  }

  function notInStore(name: VolumeName): FlockError {
    return new FlockError(
      'store-unavailable',
      `volume ${quote(name)} can't be used now: this node has no session in the store, so it can't prove what is its own. Look at Consul ("consul members", "flockctl status")`,
    );
  }

  async function askOwner(doc: VolumeDoc, session: SessionId, leftMs: number, signal: AbortSignal): Promise<void> {
    const owner = directory.node(doc.owner);
    if (owner !== null && owner.alive === null) {
      const way =
        policyOf(doc.options) === 'auto' && doc.replicas.length > 0
          ? 'A node with a copy takes it over by itself within seconds: try again in a moment. If it does not, this shows why and does it:'
          : 'Bring that node back, or take the volume over with what was replicated:';
      throw new FlockError(
        'owner-dead',
        `volume ${quote(doc.name)} belongs to node ${doc.owner}, which does not answer. ${way} "flockctl failover ${doc.name}"`,
        { owner: doc.owner, replicas: doc.replicas },
      );
    }
    const over = new AbortController();
    void watchArrival(doc, over);
    try {
      const answer = await peers.call(
        doc.owner,
        'handoff',
        { id: doc.id, session, deadlineMs: leftMs - obtainMarginMs },
        { timeoutMs: leftMs, signal: AbortSignal.any([signal, over.signal]) },
      );
      if (answer.kind === 'running') throw running(doc.name, doc.owner, answer);
    } catch (error) {
      if (hasArrived(doc)) return;
      if (hasCode(error, 'volume-in-use'))
        throw new FlockError('volume-in-use', `node ${doc.owner}: ${error.message}`, {
          ...error.facts,
          owner: doc.owner,
        });
      // It may have been handed to us, or to somebody else, meanwhile.
      if (!hasCode(error, 'not-owner', 'volume-not-found')) throw error;
    } finally {
      over.abort();
    }
  }

  function hasArrived({ id, epoch }: VolumeDoc): boolean {
    const doc = directory.volume(id)?.doc;
    return doc !== undefined && doc.owner === node && doc.epoch > epoch;
  }

  /** The answer may be lost, or the volume come another way; whoever waits for it holds the lock that the volume needs to become ours. */
  async function watchArrival(doc: VolumeDoc, over: AbortController): Promise<void> {
    while (!over.signal.aborted) {
      await clock.sleep(obtainPauseMs, over.signal);
      if (hasArrived(doc)) over.abort();
    }
  }

  return { obtain, assure };
}

/** Below Docker's deadline (30 s) and ours (25 s), so that the reason reaches the user. */
const obtainMs = 18_000;
const obtainMarginMs = 2_000;
const obtainPauseMs = 100;
/** Without a session for so long there is no hope within the rest. */
const sessionMarginMs = 8_000;

function running(
  name: VolumeName,
  owner: NodeName,
  progress: { readonly sentBytes: number; readonly totalBytes: number | null } | null,
): FlockError {
  const mebibytes = (bytes: number) => `${(bytes / 1024 ** 2).toFixed(0)} MiB`;
  const far =
    progress === null || progress.sentBytes === 0
      ? ''
      : ` (${mebibytes(progress.sentBytes)}${progress.totalBytes === null ? '' : ` of ${mebibytes(progress.totalBytes)}`} sent)`;
  return new FlockError(
    'handoff-running',
    `volume ${quote(name)} is on its way from node ${owner}${far}; start the container again in a moment`,
    { ...progress },
  );
}
