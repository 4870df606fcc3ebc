import { FlockError, messageOf } from '../../controller/model/errors.ts';
import { parseVolumeName, quote } from '../../controller/model/names.ts';
import { checkVolumeSize, type VolumeOptions } from '../../controller/model/options.ts';
import { encodeStamp, type VolumeRecord } from '../../controller/model/volume.ts';
import { stampBytesMax } from '../storage/storage.ts';
import { type Context, readyVolume } from './context.ts';

/** Sets or lifts (null) the size of a volume. */
export async function resizeVolume(
  context: Context,
  rawVolume: string,
  sizeBytes: number | null,
  signal: AbortSignal,
): Promise<VolumeRecord> {
  if (sizeBytes !== null) checkVolumeSize(sizeBytes);
  return await changeOptions(context, rawVolume, 'resize', signal, { sizeBytes });
}

export async function protectVolume(
  context: Context,
  rawVolume: string,
  protect: boolean,
  signal: AbortSignal,
): Promise<VolumeRecord> {
  return await changeOptions(context, rawVolume, 'change', signal, { protect });
}

/** Changes what happens when the owner dies. Only what is given changes. */
export async function changeFailover(
  context: Context,
  rawVolume: string,
  change: Partial<Pick<VolumeOptions, 'failover' | 'maxLossMs'>>,
  signal: AbortSignal,
): Promise<VolumeRecord> {
  return await changeOptions(context, rawVolume, 'change', signal, change);
}

type Step = { readonly apply: () => Promise<void> | void; readonly undo: () => Promise<void> };

/**
 * All or nothing: what can be refused comes first, the record, which is what counts, last, and when a step fails those before it are
 * taken back.
 */
async function changeOptions(
  context: Context,
  rawVolume: string,
  what: string,
  signal: AbortSignal,
  change: Partial<VolumeRecord['options']>,
): Promise<VolumeRecord> {
  const volume = parseVolumeName(rawVolume);
  return await context.locks.with(volume, what, signal, async () => {
    const { state, storage, ownership } = context;
    const record = readyVolume(context, volume);
    const changed: VolumeRecord = { ...record, options: { ...record.options, ...change } };
    const stamps = [record, changed].map((each) => encodeStamp(each, stampBytesMax));
    const [oldStamp = '', newStamp = ''] = stamps;
    const { sizeBytes } = changed.options;
    const steps: readonly Step[] = [
      ...('sizeBytes' in change
        ? [
            {
              apply: () => storage.resize(record.id, sizeBytes),
              undo: () => storage.resize(record.id, record.options.sizeBytes),
            },
          ]
        : []),
      { apply: () => storage.stamp(record.id, newStamp), undo: () => storage.stamp(record.id, oldStamp) },
      { apply: () => ownership.publish(changed), undo: () => ownership.publish(record) },
      { apply: () => state.commit({ put: [changed] }), undo: () => Promise.resolve() },
    ];
    await applyAll(context, record, steps);
    return changed;
  });
}

async function applyAll(context: Context, record: VolumeRecord, steps: readonly Step[]): Promise<void> {
  const undone: Step[] = [];
  for (const step of steps) {
    try {
      await step.apply();
    } catch (error) {
      const failures: string[] = [];
      // The step that failed may have happened all the same, when only its answer was lost.
      for (const done of [...(isAmbiguous(error) ? [step] : []), ...undone])
        await done.undo().catch((failure: unknown) => failures.push(messageOf(failure)));
      if (failures.length === 0) throw error;
      context.log.warn({ event: 'volume.change-not-undone', volume: record.name, failures }, 'a change is half done');
      throw new FlockError(
        error instanceof FlockError ? error.code : 'storage-failed',
        `${messageOf(error)}; what had been changed of ${quote(record.name)} before could not be taken back (${failures.join('; ')}): repeat the command when this is mended`,
        {},
        { cause: error },
      );
    }
    undone.unshift(step);
  }
}

/** A refusal has a code of its own; a command that was cut off has not. */
function isAmbiguous(error: unknown): boolean {
  return !(error instanceof FlockError) || error.code === 'storage-failed';
}
