import { FlockError } from '../../controller/model/errors.ts';
import { parseDatasetId, parseVolumeName, quote } from '../../controller/model/names.ts';
import { encodeStamp, readyAnew, type VolumeRecord } from '../../controller/model/volume.ts';
import { stampBytesMax } from '../storage/storage.ts';
import { type Context, refuseInUse } from './context.ts';
import { startDestroying } from './destroy.ts';

export type StashedVolume = VolumeRecord & { readonly phase: Extract<VolumeRecord['phase'], { kind: 'stashed' }> };

/** What this node has written that did not survive a change of owner; newest first. */
export function stashedVolumes(context: Context): readonly StashedVolume[] {
  return context.state
    .all()
    .filter(isStashed)
    .sort((a, b) => b.phase.stashedAtMs - a.phase.stashedAtMs);
}

/** Makes a stash a volume of its own, on this node. */
export async function restoreStash(
  context: Context,
  reference: string,
  rawName: string,
  signal: AbortSignal,
): Promise<VolumeRecord> {
  const name = parseVolumeName(rawName);
  return await context.locks.with(name, 'restoring a stash', signal, () =>
    context.locks.with(`trash:${reference}`, 'restoring', signal, async () => {
      const stashed = findStash(context, reference);
      if (context.state.byName(name) !== undefined || context.ownership.elsewhere(name) !== null)
        throw new FlockError('volume-exists', `there is a volume ${quote(name)} already: give the stash another name`);
      // With the epoch that it had: a lower one would count as older than the snapshots that are in it, and none would ever be thinned.
      const claimed = await context.ownership.claim({ ...stashed, name, phase: readyAnew(stashed.options) });
      await context.storage.stamp(claimed.id, encodeStamp(claimed, stampBytesMax));
      context.state.commit({ put: [claimed] });
      context.ownership.touched(claimed.id);
      context.log.info({ event: 'stash.restored', volume: name, dataset: claimed.id }, 'a stash became a volume');
      return claimed;
    }),
  );
}

/** Destroys a stash for good. */
export async function removeStash(context: Context, reference: string, signal: AbortSignal): Promise<void> {
  await context.locks.with(`trash:${reference}`, 'removal', signal, async () => {
    const stashed = findStash(context, reference);
    await refuseInUse(context, stashed, 'operator');
    const postponed = await startDestroying(context, stashed);
    if (postponed === null) return;
    throw new FlockError(
      'storage-failed',
      `${reference} could not be destroyed yet, flock tries again every minute: ${postponed}`,
    );
  });
}

function findStash(context: Context, reference: string): StashedVolume {
  const record = context.state.byId(parseDatasetId(reference));
  if (record !== undefined && isStashed(record)) return record;
  throw new FlockError('volume-not-found', `there is no stash ${quote(reference)}: "flockctl stash ls" lists them`);
}

function isStashed(record: VolumeRecord): record is StashedVolume {
  return record.phase.kind === 'stashed';
}
