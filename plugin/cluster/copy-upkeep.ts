import type { Logger } from 'pino';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { hasCode, messageOf } from '../../controller/model/errors.ts';
import { type DatasetId, internalSnapshotPrefix, parseSnapshotName } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
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

/**
 * Gives a dataset that was a copy the size that its volume has by now, and answers the size in bytes that it has then (null: no limit). What
 * holds more than that, as a full volume does by a little, is limited to what it holds. What does not work is no reason to keep it from
 * following, or from being the volume.
 */
export async function adaptSize(
  { storage, log }: Pick<UpkeepParts, 'storage' | 'log'>,
  record: VolumeRecord,
  { sizeBytes }: VolumeRecord['options'],
): Promise<number | null> {
  if (sizeBytes === record.options.sizeBytes) return sizeBytes;
  const resize = async (bytes: number | null) => {
    await storage.resize(record.id, bytes);
    return bytes;
  };
  try {
    return await resize(sizeBytes).catch((error: unknown) => {
      const used = hasCode(error, 'quota-below-usage') ? error.facts['usedBytes'] : null;
      if (typeof used !== 'number') throw error;
      return resize(used);
    });
  } catch (error) {
    log.warn(
      { event: 'copy.not-resized', volume: record.name, dataset: record.id, reason: messageOf(error) },
      'a copy has not the size of its volume',
    );
    return record.options.sizeBytes;
  }
}

/**
 * The options that a copy of a volume has. It has no limit: streams bring what was before the volume was made smaller, too, and OpenZFS
 * refuses those that are larger than the limit. The volume's own is set when the copy becomes the volume. Pure.
 */
export function optionsOfCopy({ options }: Pick<VolumeDoc, 'options'>): VolumeRecord['options'] {
  return { ...options, sizeBytes: null };
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

  /** The options of a copy's record are those that its dataset has, so they change with it. */
  async function follow(record: Replica, doc: VolumeDoc): Promise<Replica> {
    const options = optionsOfCopy(doc);
    if (JSON.stringify(options) === JSON.stringify(record.options)) return record;
    // Of a copy that was the volume, or begins anew.
    const sizeBytes = (await storage.exists(record.id)) ? await adaptSize(parts, record, options) : null;
    const following: Replica = { ...record, options: { ...options, sizeBytes } };
    state.commit({ put: [following] });
    return following;
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
