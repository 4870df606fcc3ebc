import type { Logger } from 'pino';
import type { Reached, VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { type DatasetId, type NodeName, parseHoldTag, quote, type SnapshotName } from '../../controller/model/names.ts';
import { type Identified, isCovered, snapshotName, snapshotTimeMs } from '../../controller/model/replication.ts';
import { encodeStamp, type VolumeRecord } from '../../controller/model/volume.ts';
import type { Locks } from '../locks.ts';
import type { State } from '../state.ts';
import { type Snapshot, type Storage, stampBytesMax } from '../storage/storage.ts';
import { datasetOptions } from '../volumes/context.ts';
import { createUpkeep } from './copy-upkeep.ts';
import type { Directory } from './directory.ts';
import type { Clock, CopyRequest, CopyState, PeerCalls, Tell, Transfer } from './ports.ts';
import { createStashing, isCutOff, isReplica, type Replica } from './stashing.ts';
import { createWithheld } from './withheld.ts';

/**
 * The copies that this node holds of other nodes' volumes. They change only by what their owner sends, and nothing that only this
 * node has is ever destroyed: what does not belong to the surviving history becomes a stash, a dataset of its own.
 *
 * INVARIANTS
 * - The epoch of a record only grows, and is on disk before anything of that epoch is received; whoever sends with a lower one is refused.
 * - A new epoch is believed only after the store has confirmed who its owner is.
 */
export type Copies = {
  state(peer: NodeName, ask: CopyRequest, signal: AbortSignal): Promise<CopyState>;
  rewind(peer: NodeName, ask: PeerCalls['rewind-copy']['ask'], signal: AbortSignal): Promise<CopyState>;
  prune(
    peer: NodeName,
    ask: CopyRequest & { readonly snapshots: readonly SnapshotName[] },
    signal: AbortSignal,
  ): Promise<void>;
  /** Receives a stream through `read`, which gives the storage a descriptor. Resolves when the snapshot is there with the right identity. */
  receive(
    peer: NodeName,
    transfer: Transfer,
    read: (receive: (source: number, signal: AbortSignal) => Promise<Snapshot>) => Promise<Snapshot>,
    signal: AbortSignal,
  ): Promise<void>;
  /**
   * What this node wrote as an owner that was superseded is made a snapshot, so that it is seen and stashed when the new owner
   * looks; then the record says that the dataset is a copy. `owner` and `epoch`: of the successor. The volume is not mounted any more.
   */
  demote(
    record: VolumeRecord,
    owner: NodeName,
    options: { readonly hasUnsent: boolean },
    signal: AbortSignal,
  ): Promise<void>;
  /** What was to be set aside and was cut off, which the copy may be missing for until then: its owner may never ask for it again. */
  finish(id: DatasetId, signal: AbortSignal): Promise<void>;
  /** What is here of a volume, as a copy or as its owner's. */
  list(id: DatasetId): Promise<CopyState>;
  /**
   * Stops what is being received, so that nothing moves the content any more, then does the work before anything else can come. After a
   * failure that leaves open what the store has done, its owner up to now can't change the copy as long as that may still come about.
   */
  settle<T>(id: DatasetId, work: () => Promise<T> | T): Promise<T>;
  /** Gives up a copy that is not wanted any more; what the owner's history (null: there is no owner) does not have is stashed first. */
  discard(
    record: VolumeRecord,
    owner: { readonly snapshots: readonly Identified[]; readonly history: readonly Reached[] } | null,
    signal: AbortSignal,
  ): Promise<void>;
};

export type CopiesParts = {
  readonly storage: Storage;
  readonly state: State;
  readonly locks: Locks;
  readonly clock: Clock;
  readonly directory: Directory;
  readonly stashMs: () => number;
  /** Destroys the dataset of a record that says `destroying`, and the record. */
  readonly destroy: (record: VolumeRecord) => Promise<void>;
  /** A stream of a newer epoch has come for a volume that this node still takes for its own. */
  readonly onStale: (id: DatasetId) => void;
  readonly tell: Tell;
  readonly log: Logger;
};

const ownerTag = parseHoldTag('flock.owner');
/** What its owner has looked at or sent so shortly ago is wanted, whatever the document says: the last step of a handoff takes far less. */
const wantedMs = 30_000;

export function createCopies(parts: CopiesParts): Copies {
  const { storage, state, locks, clock, directory, onStale, log } = parts;
  const stashing = createStashing(parts);
  const { follow, showTail, releaseOld } = createUpkeep(parts);
  const receiving = new Map<DatasetId, AbortController>();
  const askedAtMs = new Map<DatasetId, number>();
  const taking = createWithheld(clock);
  /** What a predecessor of this process was asked is not known: its owner may be about to hand it over. */
  const startedMs = clock.bootMs();
  const alone = <T>(id: DatasetId, what: string, signal: AbortSignal, work: () => Promise<T>) =>
    locks.with(`copy:${id}`, what, signal, work);

  /** The record of the copy, after it has been made sure that the peer may say anything about it. null: there is no copy here. */
  async function admit(peer: NodeName, { id, epoch }: CopyRequest): Promise<Replica | null> {
    const record = state.byId(id) ?? null;
    if (record !== null && record.epoch > epoch) throw stale(record, epoch);
    if (record !== null && taking.has(id))
      throw new FlockError('volume-busy', `this node may be taking volume ${quote(record.name)}`);
    if (record !== null && isReplica(record) && record.epoch === epoch && record.phase.owner === peer) return record;
    const volume = await directory.look(id);
    if (volume === null || volume.doc.owner !== peer || volume.doc.epoch !== epoch) {
      throw new FlockError('epoch-stale', `the store does not show ${peer} as the owner of ${id} with epoch ${epoch}`, {
        owner: volume?.doc.owner,
        epoch: volume?.doc.epoch,
      });
    }
    if (record === null) return null;
    if (!isReplica(record)) {
      onStale(id);
      throw new FlockError(
        'volume-busy',
        `this node has not yet given up volume ${quote(record.name)} (${record.phase.kind}); try again`,
      );
    }
    const admitted: Replica = {
      ...record,
      name: volume.doc.name,
      epoch,
      phase: { ...record.phase, owner: peer },
    };
    state.commit({ put: [admitted] });
    return admitted;
  }

  function stale(record: VolumeRecord, epoch: number): FlockError {
    return new FlockError(
      'epoch-stale',
      `this node has seen epoch ${record.epoch} of ${record.id}, newer than ${epoch}`,
      { epoch: record.epoch },
    );
  }

  async function stateOf(id: DatasetId, epoch: number): Promise<CopyState> {
    const there = state.byId(id) !== undefined && (await storage.exists(id));
    if (!there) return { epoch, snapshots: null };
    const snapshots = (await storage.snapshots(id)).map(({ name, identity }) => ({ name, identity }));
    // The beginning of a complete stream is no dataset yet that could be compared with anything.
    const isPartial = snapshots.length === 0 && (await storage.resumeToken(id)) !== null;
    return { epoch, snapshots: isPartial ? null : snapshots };
  }

  function newRecord(peer: NodeName, doc: VolumeDoc): Replica {
    const record: Replica = {
      id: doc.id,
      name: doc.name,
      createdAtMs: doc.createdAtMs,
      options: doc.options,
      epoch: doc.epoch,
      phase: { kind: 'replica', owner: peer, stashing: null },
    };
    state.commit({ put: [record] });
    return record;
  }

  return {
    state: (peer, ask, signal) =>
      alone(ask.id, 'a look', signal, async () => {
        const record = await admit(peer, ask);
        if (record !== null) {
          askedAtMs.set(ask.id, clock.bootMs());
          await stashing.finish(record);
          await releaseOld(ask.id);
        }
        return await stateOf(ask.id, ask.epoch);
      }),

    rewind: (peer, ask, signal) =>
      alone(ask.id, 'rewinding', signal, async () => {
        const record = await admit(peer, ask);
        if (record?.phase.stashing != null) await stashing.finish(record);
        else if (record !== null && (await storage.exists(ask.id))) {
          const head = (await storage.snapshots(ask.id)).at(-1)?.identity ?? null;
          if (ask.head === undefined || ask.head === head) await stashing.stash(record, ask.common, ask.isCovered);
        }
        return await stateOf(ask.id, ask.epoch);
      }),

    prune: (peer, ask, signal) =>
      alone(ask.id, 'thinning of snapshots', signal, async () => {
        if ((await admit(peer, ask)) === null) return;
        const newest = (await storage.snapshots(ask.id)).at(-1)?.name;
        for (const name of ask.snapshots) if (name !== newest) await storage.destroySnapshot(ask.id, name);
      }),

    receive: (peer, transfer, read, signal) =>
      alone(transfer.doc.id, 'receiving', signal, async () => {
        const { doc, to, from, toIdentity } = transfer;
        const admitted = await admit(peer, { id: doc.id, epoch: doc.epoch });
        const record = await follow(admitted ?? newRecord(peer, doc), doc);
        const { mode: _mode, uid: _uid, gid: _gid, stamp: _stamp, ...options } = datasetOptions(record, storage.kind);
        const stamp = encodeStamp(record, stampBytesMax);
        const request = { id: doc.id, to, from, stamp, options: { ...options, quotaBytes: null }, resumable: true };
        const stop = new AbortController();
        askedAtMs.set(doc.id, clock.bootMs());
        receiving.set(doc.id, stop);
        let isModified = false;
        const received = await read((source, reading) =>
          storage.receive(request, source, AbortSignal.any([reading, stop.signal])).catch((error: unknown) => {
            isModified = error instanceof FlockError && error.facts['reason'] === 'modified';
            throw error;
          }),
        ).finally(async () => {
          receiving.delete(doc.id);
          askedAtMs.set(doc.id, clock.bootMs());
          if (isModified) await showTail(doc.id);
        });
        if (received.identity !== toIdentity)
          throw new FlockError('stream-invalid', `${doc.id}: received snapshot ${to} is not the one that was sent`);
        await storage.hold(doc.id, to, ownerTag);
        if (from !== null) await storage.release(doc.id, from, ownerTag);
      }),

    demote: (record, owner, { hasUnsent }, signal) =>
      alone(record.id, 'giving up', signal, async () => {
        await storage.unmount(record.id);
        if (hasUnsent) {
          // Later than all that was sent, also where the clock went back: else it would count as covered.
          const timeMs = snapshotTimeMs(clock.nowMs(), await storage.snapshots(record.id), record.namesAfterMs);
          await storage.snapshot(record.id, snapshotName(Math.max(1, record.epoch), timeMs));
        }
        state.setUses(record.id, []);
        state.commit({ put: [{ ...record, phase: { kind: 'replica', owner, stashing: null } }] });
      }),

    async finish(id, signal) {
      // Not behind what a dead owner has begun to send: only a takeover ends that.
      if (!isCutOff(state.byId(id))) return;
      await alone(id, 'setting aside', signal, async () => {
        const found = state.byId(id);
        if (found !== undefined && isReplica(found)) await stashing.finish(found);
      });
    },

    list: (id) => stateOf(id, state.byId(id)?.epoch ?? 0),

    async settle(id, work) {
      const limit = new AbortController();
      receiving.get(id)?.abort(new FlockError('epoch-stale', 'the copy has become the volume'));
      // What its owner up to now has asked for already and waits for its turn must neither keep this waiting nor come after it.
      return await taking.during(id, () => alone(id, 'becoming the volume', limit.signal, async () => work()));
    },

    discard: (record, owner, signal) =>
      alone(record.id, 'discarding', signal, async () => {
        const found = state.byId(record.id);
        if (found === undefined || !isReplica(found)) return;
        // A handoff sends to a node that the document names only when all is there.
        const sinceMs = clock.bootMs() - (askedAtMs.get(record.id) ?? startedMs);
        if (owner !== null && sinceMs < wantedMs) return;
        askedAtMs.delete(record.id);
        let current = await stashing.finish(found);
        if (owner !== null && (await storage.exists(record.id))) {
          const snapshots = await storage.snapshots(record.id);
          const identities = new Set(owner.snapshots.map(({ identity }) => identity));
          const index = snapshots.findLastIndex(({ identity }) => identities.has(identity));
          const own = snapshots.slice(index + 1).map(({ name }) => name);
          if (own.length > 0 && !isCovered(own, owner.snapshots, owner.history))
            current = await stashing.stash(current, snapshots[index]?.name ?? null, false);
        }
        const doomed: VolumeRecord = { ...current, phase: { kind: 'destroying' } };
        state.commit({ put: [doomed] });
        // Another copy can only be received when it is gone.
        await stashing.destroyNow(doomed);
        log.info(
          { event: 'copy.discarded', volume: current.name, dataset: current.id },
          'a copy that is no longer wanted goes',
        );
      }),
  };
}
