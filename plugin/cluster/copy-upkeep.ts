import type { Logger } from 'pino';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { messageOf } from '../../controller/model/errors.ts';
import { type DatasetId, internalSnapshotPrefix, parseSnapshotName } from '../../controller/model/names.ts';
import type { State } from '../state.ts';
import type { Storage } from '../storage/storage.ts';
import type { Clock } from './ports.ts';
import type { Replica } from './stashing.ts';

type UpkeepParts = {
  readonly storage: Storage;
  readonly state: State;
  readonly clock: Clock;
  readonly log: Logger;
};

/** Whether the dataset of a copy may have a limit, from when it was the volume. Pure. */
export function mayBeLimited({ phase, options }: Replica): boolean {
  return phase.unlimited !== true && options.sizeBytes !== null;
}

/** What a copy needs so that streams fit to it, and that it can be the volume. To be called while nothing else is done with it. */
export function createUpkeep(parts: UpkeepParts) {
  const { storage, state, clock, log } = parts;

  /**
   * An increment starts from the newest snapshot, so all other holds are left over: from receiving that was cut off, and from the time
   * when this node was the owner. They would keep the snapshots from being thinned for ever.
   */
  async function releaseOld(id: DatasetId): Promise<void> {
    if (!(await storage.exists(id))) return;
    for (const { name, holds } of (await storage.snapshots(id)).slice(0, -1))
      for (const tag of holds) if (tag.startsWith(internalSnapshotPrefix)) await storage.release(id, name, tag);
  }

  /**
   * The record has the options that its volume has by now. Its dataset has no limit: streams bring what was before the volume was made
   * smaller, too, and OpenZFS refuses those that are larger than the limit.
   */
  async function follow(record: Replica, { options }: VolumeDoc): Promise<Replica> {
    let following: Replica = { ...record, options };
    if (mayBeLimited(record) && (await storage.exists(record.id)))
      following = (await lift(record))
        ? { ...following, phase: { ...record.phase, unlimited: true } }
        : { ...following, options: { ...options, sizeBytes: record.options.sizeBytes } };
    if (JSON.stringify(following) === JSON.stringify(record)) return record;
    state.commit({ put: [following] });
    return following;
  }

  /** false: not now, which is no reason to keep the copy from following what fits. */
  async function lift({ id, name }: Replica): Promise<boolean> {
    try {
      await storage.resize(id, null);
      return true;
    } catch (error) {
      log.warn(
        { event: 'copy.not-resized', volume: name, dataset: id, reason: messageOf(error) },
        'a copy has a limit still, and refuses what is larger',
      );
      return false;
    }
  }

  /**
   * What was written here after the newest snapshot, as an owner whose records were lost, is seen by nobody: each stream would be refused for
   * ever. With a snapshot that no owner's can cover the copy has diverged, and is asked to set it aside.
   */
  async function showTail(id: DatasetId): Promise<void> {
    const name = parseSnapshotName(`${internalSnapshotPrefix}tail-${clock.randomHex(8)}`);
    await storage
      .snapshot(id, name)
      .catch((error: unknown) =>
        log.warn({ event: 'copy.tail-unsaved', dataset: id, reason: messageOf(error) }, 'will be tried again'),
      );
  }

  return { follow, showTail, releaseOld };
}
