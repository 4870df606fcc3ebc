import { hasCode, messageOf } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Context } from './context.ts';

/** What a full volume may hold above its limit, and needs to be emptied. */
const slackBytes = 1024 ** 2;

/** Whether its dataset may not have the limit of its size yet. Pure. */
export function isLimitDue({ phase }: VolumeRecord): boolean {
  return phase.kind === 'ready' && phase.unlimited === true;
}

/**
 * Gives a volume the limit of its size where that is due: copies have none, and what becomes the volume must not wait for it. One that holds
 * more than its size, as a full volume does by a little, is limited to what it holds. To be called with the lock of its name; rejects if
 * the pool can't.
 */
export async function limitVolume(
  { storage, state, log }: Pick<Context, 'storage' | 'state' | 'log'>,
  id: DatasetId,
): Promise<void> {
  const record = state.byId(id);
  if (record === undefined || !isLimitDue(record)) return;
  const { name, options } = record;
  try {
    await storage.resize(id, options.sizeBytes);
  } catch (error) {
    const used = hasCode(error, 'quota-below-usage') ? error.facts['usedBytes'] : null;
    if (typeof used !== 'number') throw error;
    await storage.resize(id, used + slackBytes);
    log.warn(
      { event: 'volume.larger', volume: name, dataset: id, reason: messageOf(error) },
      'limited to what it holds',
    );
  }
  const latest = state.byId(id);
  // Later if it has been given up meanwhile, or has another size.
  if (latest === undefined || !isLimitDue(latest) || latest.options.sizeBytes !== options.sizeBytes) return;
  state.commit({ put: [{ ...latest, phase: { kind: 'ready' } }] });
}

/** The same, where it is done later if it can't be now. */
export async function limitSoon(context: Pick<Context, 'storage' | 'state' | 'log'>, id: DatasetId): Promise<void> {
  await limitVolume(context, id).catch((error: unknown) => {
    context.log.warn({ event: 'volume.unlimited', dataset: id, reason: messageOf(error) }, 'will be tried again');
  });
}
