import type { Logger } from 'pino';
import { hasCode, messageOf } from '../../controller/model/errors.ts';
import { type DatasetId, datasetIdFor, type SnapshotName } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { State } from '../state.ts';
import type { Storage } from '../storage/storage.ts';
import { datasetOptions } from '../volumes/context.ts';
import type { Clock, Tell } from './ports.ts';

export type Replica = VolumeRecord & { readonly phase: Extract<VolumeRecord['phase'], { kind: 'replica' }> };

/** Takes what a copy has beside the history of its owner out of the way, so that it can follow again. */
export type Stashing = {
  /**
   * Live content and all snapshots after `common` become a dataset of their own, with null the whole dataset with all its snapshots: a
   * stash, or, where it is covered by the owner's snapshots, nothing that is kept. Answers the record of the copy.
   */
  stash(record: Replica, common: SnapshotName | null, isCovered: boolean): Promise<Replica>;
  /** What a crash has cut off, with the same names. */
  finish(record: Replica): Promise<Replica>;
  /** Of a record that says `destroying`. What can't be destroyed now is left to the sweep. Never rejects. */
  destroyNow(doomed: VolumeRecord): Promise<void>;
};

export type StashingParts = {
  readonly storage: Storage;
  readonly state: State;
  readonly clock: Clock;
  /** How long a stash is kept. */
  readonly stashMs: () => number;
  /** Destroys the dataset of a record that says `destroying`, and the record. */
  readonly destroy: (record: VolumeRecord) => Promise<void>;
  readonly tell: Tell;
  readonly log: Logger;
};

export function isReplica(record: VolumeRecord): record is Replica {
  return record.phase.kind === 'replica';
}

/** What a copy has beside its owner's history was being set aside. */
export function isCutOff(record: VolumeRecord | null | undefined): boolean {
  return record?.phase.kind === 'replica' && record.phase.stashing !== null;
}

export function createStashing({ storage, state, clock, stashMs, destroy, tell, log }: StashingParts): Stashing {
  /** The dataset `aside` is there, and the copy is as it was at `common`, or free to come anew. */
  async function setAside(id: DatasetId, aside: VolumeRecord, common: SnapshotName | null): Promise<void> {
    await storage.unmount(id);
    await storage.abandonReceive(id);
    // A clone would have none of the snapshots, which may be the last ones of what people have kept.
    if (common === null) return await storage.rename(id, aside.id);
    const options = { ...datasetOptions(aside, storage.kind), mode: null, uid: null, gid: null };
    await storage.rollback(id, common, aside.id, options).catch(async (error: unknown) => {
      // The volume was made smaller since, or was full: it may hold a little more than its size. The copy would never follow again.
      if (!hasCode(error, 'quota-below-usage')) throw error;
      await storage.rollback(id, common, aside.id, { ...options, quotaBytes: null });
    });
  }

  async function finish(record: Replica): Promise<Replica> {
    const { stashing } = record.phase;
    if (stashing === null) return record;
    const { aside, common, isCovered } = stashing;
    const nowMs = clock.nowMs();
    const taken: VolumeRecord = {
      ...record,
      id: aside,
      phase: isCovered
        ? { kind: 'destroying' }
        : { kind: 'stashed', of: record.id, stashedAtMs: nowMs, expiresAtMs: nowMs + stashMs(), common },
    };
    await setAside(record.id, taken, common);
    // What was made anew for that may have the limit of the volume.
    const { unlimited: _unlimited, ...phase } = record.phase;
    const done: Replica = { ...record, phase: { ...phase, stashing: null } };
    state.commit({ put: [taken, done] });
    const facts = { volume: record.name, dataset: record.id, common };
    if (isCovered) {
      log.info({ event: 'copy.rewound', ...facts }, 'the copy had snapshots that its owner has newer ones of');
      await destroyNow(taken);
      return done;
    }
    log.warn({ event: 'copy.stashed', ...facts, stash: aside }, 'writes that did not survive are kept as a stash');
    tell(
      'stashed',
      record.name,
      `what only this node had written ${common === null ? '' : `after ${common} `}is kept as the stash ${aside}`,
    );
    return done;
  }

  async function destroyNow(doomed: VolumeRecord): Promise<void> {
    await destroy(doomed).catch((error: unknown) =>
      log.info(
        { event: 'copy.destroy-postponed', dataset: doomed.id, reason: messageOf(error) },
        'will be tried again',
      ),
    );
  }

  return {
    async stash(record, common, isCovered) {
      const stashing = { aside: datasetIdFor(record.name, clock.randomHex(4)), common, isCovered };
      const begun: Replica = { ...record, phase: { ...record.phase, stashing } };
      state.commit({ put: [begun] });
      return await finish(begun);
    },
    finish,
    destroyNow,
  };
}
