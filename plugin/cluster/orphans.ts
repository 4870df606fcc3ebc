import type { Logger } from 'pino';
import { type DatasetId, type NodeName, quote } from '../../controller/model/names.ts';
import { orphanDutyOf } from '../../controller/model/ownership.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Copies } from './copies.ts';
import type { Directory } from './directory.ts';
import type { Clock, Tell } from './ports.ts';

/** Copies of volumes that the store does not know. */
export type Orphans = {
  /** Keeps it, or has it destroyed or made a stash: see `orphanDutyOf`. */
  discard(record: VolumeRecord, signal: AbortSignal): Promise<void>;
  /** The store knows it. */
  forget(id: DatasetId): void;
};

export type OrphanParts = {
  readonly node: NodeName;
  readonly clock: Clock;
  readonly directory: Directory;
  readonly copies: Pick<Copies, 'discard'>;
  readonly tell: Tell;
  readonly log: Logger;
};

export function createOrphans({ node, clock, directory, copies, tell, log }: OrphanParts): Orphans {
  /** With the boot time since when. */
  const orphans = new Map<DatasetId, number>();

  return {
    forget: (id) => void orphans.delete(id),
    async discard(record, signal) {
      const { id, name } = record;
      const removed = await directory.removedEpoch(id);
      const isRemoved = removed !== null && record.epoch <= removed;
      const now = clock.bootMs();
      const sinceMs = orphans.get(id) ?? now;
      const duty = orphanDutyOf({ isMember: directory.node(node) !== null, isRemoved, forMs: now - sinceMs });
      if (duty === 'keep') {
        if (orphans.has(id)) return;
        orphans.set(id, now);
        const reason = `the store knows no volume ${quote(name)}, and nobody has removed it: its copy here is kept, and becomes a stash after a day. Was the store lost, or brought back as it was before?`;
        log.warn({ event: 'copy.orphaned', volume: name, dataset: id }, reason);
        tell('orphaned', name, reason);
        return;
      }
      // It may have come back while this was asked.
      if ((await directory.look(id)) !== null) return;
      orphans.delete(id);
      await copies.discard(record, duty === 'destroy' ? null : { snapshots: [], history: [] }, signal);
    },
  };
}
