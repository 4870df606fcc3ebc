import { hasCode, messageOf } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Context } from './context.ts';

type Parts = Pick<Context, 'storage' | 'state' | 'locks' | 'log'>;

/** What a full volume may hold above its limit, and needs to be emptied. */
const slackBytes = 1024 ** 2;

/**
 * Gives volumes the limits of their sizes where that is due: copies have none, and what becomes a volume anew must not wait for it. One that
 * holds more than its size, as a full volume does by a little, is limited to what it holds until its size is enough. Under a lock that
 * nobody needs who wants to use the volume. What a pool can't do now is left to the next call.
 */
export async function limitVolumes(parts: Parts, signal: AbortSignal): Promise<void> {
  for (const { id, name, phase } of parts.state.all()) {
    if (phase.kind !== 'ready' || phase.unlimited === undefined) continue;
    try {
      await parts.locks.with(`copy:${id}`, 'limiting', signal, () => limit(parts, id));
    } catch (error) {
      const reason = messageOf(error);
      parts.log.warn({ event: 'volume.unlimited', volume: name, dataset: id, reason }, 'will be tried again');
    }
  }
}

async function limit({ storage, state, log }: Parts, id: DatasetId): Promise<void> {
  const record = state.byId(id);
  if (record?.phase.kind !== 'ready' || record.phase.unlimited === undefined) return;
  const { name, options, phase } = record;
  let isLarger = false;
  try {
    await storage.resize(id, options.sizeBytes);
  } catch (error) {
    const used = hasCode(error, 'quota-below-usage') ? error.facts['usedBytes'] : null;
    if (typeof used !== 'number') throw error;
    if (phase.unlimited === 'larger') return;
    await storage.resize(id, used + slackBytes);
    log.warn(
      { event: 'volume.larger', volume: name, dataset: id, reason: messageOf(error) },
      'limited to what it holds',
    );
    isLarger = true;
  }
  const latest = state.byId(id);
  // Again, if it has been given up meanwhile, or has another size.
  if (latest?.phase.kind !== 'ready' || latest.options.sizeBytes !== options.sizeBytes) return;
  state.commit({ put: [{ ...latest, phase: isLarger ? { kind: 'ready', unlimited: 'larger' } : { kind: 'ready' } }] });
}
