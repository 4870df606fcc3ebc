import { messageOf } from '../../controller/model/errors.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Context } from './context.ts';

/**
 * From here there is no way back: the record says so first, then the data goes, then the record. Answers why the data could not go
 * now, or null; the sweep tries again.
 */
export async function startDestroying(context: Context, record: VolumeRecord): Promise<string | null> {
  const doomed: VolumeRecord = { ...record, phase: { kind: 'destroying' } };
  context.state.commit({ put: [doomed] });
  try {
    await finishDestroying(context, doomed);
    return null;
  } catch (error) {
    context.log.warn(
      { event: 'volume.destroy-postponed', volume: record.name, dataset: record.id, reason: messageOf(error) },
      'destroying will be tried again',
    );
    return messageOf(error);
  }
}

export async function finishDestroying(context: Context, record: VolumeRecord): Promise<void> {
  await context.ownership.withdraw(record);
  await context.storage.unmount(record.id);
  await context.storage.destroy(record.id);
  context.state.commit({ delete: [record.id] });
  context.log.info({ event: 'volume.destroyed', volume: record.name, dataset: record.id }, 'volume destroyed');
}
