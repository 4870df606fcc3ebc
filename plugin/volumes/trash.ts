import { FlockError, hasCode, messageOf } from '../../controller/model/errors.ts';
import { isDatasetId, parseVolumeName, quote, type VolumeName } from '../../controller/model/names.ts';
import { encodeStamp, readyAnew, type VolumeRecord } from '../../controller/model/volume.ts';
import { stampBytesMax } from '../storage/storage.ts';
import { type Context, existingVolume, refuseInUse, refuseUnreadable } from './context.ts';
import { finishDestroying, startDestroying } from './destroy.ts';

export type TrashedVolume = VolumeRecord & { readonly phase: Extract<VolumeRecord['phase'], { kind: 'trashed' }> };

/** Frees the name at once. The data stays in the trash for the time of the settings, or goes at once where that is 0. */
export async function removeVolume(
  context: Context,
  rawName: string,
  caller: 'docker' | 'operator',
  signal: AbortSignal,
): Promise<void> {
  const name = parseVolumeName(rawName);
  await context.locks.with(name, 'remove', signal, async () => {
    const record = existingVolume(context, name);
    if (record.options.protect) {
      throw new FlockError(
        'volume-protected',
        `volume ${quote(name)} is protected: "flockctl volume set ${name} protect=false" lifts that`,
      );
    }
    if (record.phase.kind === 'rolling-back')
      throw new FlockError('volume-busy', `volume ${quote(name)} is being rolled back; try again`);
    await refuseInUse(context, record, caller);
    await context.storage.unmount(record.id);
    context.state.setUses(record.id, []);
    const { trashMs } = context.settings();
    // A half-made volume has nothing to bring back.
    if (trashMs === 0 || record.phase.kind === 'creating') {
      await startDestroying(context, record);
      return;
    }
    const removedAtMs = context.clock.nowMs();
    context.state.commit({
      put: [
        { ...record, phase: { kind: 'trashed', removedAtMs, expiresAtMs: removedAtMs + trashMs, reason: 'removed' } },
      ],
    });
    await tellCluster(context, record.id);
    context.log.info({ event: 'volume.trashed', volume: name, dataset: record.id }, 'volume moved to the trash');
  });
}

/** The record is what counts; what the cluster could not be told now it is told later (`dutyOf`). */
async function tellCluster(context: Context, id: VolumeRecord['id']): Promise<void> {
  const record = context.state.byId(id);
  if (record === undefined) return;
  try {
    await context.ownership.publish(record);
  } catch (error) {
    if (!hasCode(error, 'store-unavailable')) throw error;
    context.log.warn(
      { event: 'volume.publish-postponed', volume: record.name, reason: messageOf(error) },
      'the cluster will be told later',
    );
  }
}

/** Newest first. */
export function trashedVolumes(context: Context): readonly TrashedVolume[] {
  return context.state
    .all()
    .filter(isTrashed)
    .sort((a, b) => b.phase.removedAtMs - a.phase.removedAtMs);
}

/** Brings a removed volume back, under its old name or another. `reference`: its id, or its name if only one such is in the trash. */
export async function restoreVolume(
  context: Context,
  reference: string,
  rawNewName: string | null,
  signal: AbortSignal,
): Promise<VolumeRecord> {
  const found = findTrashed(context, reference);
  const name: VolumeName = rawNewName === null ? found.name : parseVolumeName(rawNewName);
  return await context.locks.with(name, 'restore', signal, () =>
    context.locks.with(`trash:${found.id}`, 'restore', signal, async () => {
      const record = stillTrashed(context, found);
      refuseUnreadable(context, name);
      if (context.state.byName(name) !== undefined || context.ownership.elsewhere(name) !== null) {
        throw new FlockError(
          'volume-exists',
          `there is a volume ${quote(name)} already: restore under another name, "flockctl trash restore ${record.id} NEW_NAME"`,
        );
      }
      const restored = await context.ownership.restore({ ...record, name, phase: readyAnew(record.options) });
      if (name !== record.name) await context.storage.stamp(record.id, encodeStamp(restored, stampBytesMax));
      context.state.commit({ put: [restored] });
      context.log.info(
        { event: 'volume.restored', volume: name, dataset: record.id },
        'volume brought back from the trash',
      );
      return restored;
    }),
  );
}

/** Destroys one removed volume for good. Refused while anybody has it mounted. */
export async function purgeVolume(context: Context, reference: string, signal: AbortSignal): Promise<void> {
  const found = findTrashed(context, reference);
  await context.locks.with(`trash:${found.id}`, 'purge', signal, async () => {
    const record = stillTrashed(context, found);
    await refuseInUse(context, record, 'operator');
    const postponed = await startDestroying(context, record);
    if (postponed === null) return;
    throw new FlockError(
      'storage-failed',
      `${found.id} could not be destroyed yet, flock tries again every minute: ${postponed}`,
    );
  });
}

/** Destroys what has been in the trash long enough, and what could not be destroyed before. */
export async function sweepTrash(context: Context, signal: AbortSignal): Promise<void> {
  const nowMs = context.clock.nowMs();
  for (const record of context.state.all()) {
    const { phase } = record;
    const expired = (phase.kind === 'trashed' || phase.kind === 'stashed') && phase.expiresAtMs <= nowMs;
    if (!expired && record.phase.kind !== 'destroying') continue;
    await context.locks.with(`trash:${record.id}`, 'sweep', signal, async () => {
      const current = context.state.byId(record.id);
      if (current === undefined || current.phase.kind === 'ready') return;
      try {
        if (isTrashed(current) || current.phase.kind === 'stashed') {
          await refuseInUse(context, current, 'docker');
          await startDestroying(context, current);
        } else if (current.phase.kind === 'destroying') await finishDestroying(context, current);
      } catch (error) {
        context.log.warn(
          { event: 'volume.destroy-postponed', dataset: record.id, reason: messageOf(error) },
          'destroying will be tried again',
        );
      }
    });
  }
}

function findTrashed(context: Context, reference: string): TrashedVolume {
  const trash = trashedVolumes(context);
  const byId = trash.filter((record) => record.id === reference);
  // A volume's name may look like an id.
  const matching = byId.length > 0 ? byId : trash.filter((record) => record.name === parseReference(reference));
  const [first, ...others] = matching;
  if (first === undefined)
    throw new FlockError(
      'volume-not-found',
      `the trash holds no volume ${quote(reference)}: "flockctl trash ls" lists what it holds`,
    );
  if (others.length > 0) {
    throw new FlockError(
      'invalid-request',
      `the trash holds ${matching.length} volumes named ${quote(reference)}: say which by its id, ${matching.map((record) => record.id).join(' or ')}`,
    );
  }
  return first;
}

function parseReference(reference: string): string {
  return isDatasetId(reference) ? reference : parseVolumeName(reference);
}

function stillTrashed(context: Context, found: TrashedVolume): TrashedVolume {
  const record = context.state.byId(found.id);
  if (record !== undefined && isTrashed(record)) return record;
  throw new FlockError('volume-not-found', `volume ${quote(found.id)} is no longer in the trash`);
}

function isTrashed(record: VolumeRecord): record is TrashedVolume {
  return record.phase.kind === 'trashed';
}
