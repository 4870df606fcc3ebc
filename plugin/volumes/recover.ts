import { messageOf } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import { noOptions } from '../../controller/model/options.ts';
import { ownsName, readyAnew, recordFromStamp, type VolumeRecord } from '../../controller/model/volume.ts';
import type { Context } from './context.ts';
import { finishCreating } from './create.ts';
import { finishRollback } from './snapshots.ts';

/**
 * Brings records and pool together: what a crash left half done is finished, and datasets that carry flock's stamp but have no
 * record (the pool came from another host, or the state file was lost) become volumes again. Run at start and by every sweep;
 * throws what the storage throws when the pool can't be listed.
 */
export async function recover(context: Context, signal: AbortSignal): Promise<void> {
  for (const record of context.state.all()) {
    if (record.phase.kind !== 'creating' && record.phase.kind !== 'rolling-back') continue;
    await context.locks.with(record.name, 'recovery', signal, async () => {
      const current = context.state.byId(record.id);
      if (current === undefined) return;
      try {
        await finishRollback(context, await finishCreating(context, current));
      } catch (error) {
        context.log.warn(
          {
            event: 'volume.recovery-postponed',
            volume: record.name,
            phase: record.phase.kind,
            reason: messageOf(error),
          },
          'recovery will be tried again',
        );
      }
    });
  }
  await adopt(context, signal);
}

async function adopt(context: Context, signal: AbortSignal): Promise<void> {
  // The phases above name datasets that the records don't show by their own id.
  const expected = new Set<string>(context.state.all().flatMap((record) => asidesOf(record)));
  const unreadable = context.state.unreadable();
  for (const { id } of unreadable) expected.add(id);
  for (const dataset of await context.storage.list()) {
    if (context.state.byId(dataset.id) !== undefined || expected.has(dataset.id) || dataset.stamp === null) continue;
    const found = recordFromStamp(dataset.id, dataset.stamp, noOptions);
    // What a record that can't be read keeps aside is called like its volume.
    if (found === null || unreadable.some(({ name }) => name === found.name)) continue;
    await context.locks.with(found.name, 'adoption', signal, async () => {
      // The listing may be older than a removal that has just ended.
      if (!(await context.storage.exists(dataset.id))) return;
      // A stash, which takes another lock, may have just been made of it.
      if (context.state.byId(dataset.id) !== undefined) return;
      if (context.state.all().some((record) => asidesOf(record).includes(dataset.id))) return;
      const adopted = context.ownership.adopt(found);
      if (adopted === null) return;
      const isFree = !ownsName(adopted) || context.state.byName(found.name) === undefined;
      const record = isFree ? limitedSoon(adopted, dataset.quotaBytes) : trashed(context, adopted);
      context.state.commit({ put: [record] });
      context.log.warn(
        { event: 'volume.adopted', volume: record.name, dataset: record.id, phase: record.phase.kind },
        'dataset without a record adopted',
      );
    });
  }
}

/** It may have been a copy. */
function limitedSoon(record: VolumeRecord, quotaBytes: number | null): VolumeRecord {
  const isDue = record.phase.kind === 'ready' && quotaBytes === null;
  return isDue ? { ...record, phase: readyAnew(record.options) } : record;
}

function asidesOf({ phase }: VolumeRecord): readonly DatasetId[] {
  if (phase.kind === 'rolling-back') return [phase.aside];
  return phase.kind === 'replica' && phase.stashing !== null ? [phase.stashing.aside] : [];
}

/** Two datasets of one name: the one that is known keeps it, the other is kept where it can be found and brought back. */
function trashed(context: Context, record: VolumeRecord): VolumeRecord {
  const nowMs = context.clock.nowMs();
  return {
    ...record,
    phase: { kind: 'trashed', removedAtMs: nowMs, expiresAtMs: nowMs + adoptedTrashMs, reason: 'removed' },
  };
}

const adoptedTrashMs = 30 * 24 * 3600 * 1000;
