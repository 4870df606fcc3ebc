import { type ErrorCode, FlockError, messageOf } from '../../controller/model/errors.ts';
import {
  datasetIdFor,
  isInternalSnapshot,
  parseSnapshotName,
  parseUserSnapshotName,
  parseVolumeName,
  quote,
} from '../../controller/model/names.ts';
import { lastReached } from '../../controller/model/replication.ts';
import { trashMsDefault } from '../../controller/model/settings.ts';
import { readyAnew, type VolumeRecord } from '../../controller/model/volume.ts';
import { CommandError } from '../exec.ts';
import type { Snapshot } from '../storage/storage.ts';
import { type Context, datasetOptions, readyVolume, refuseInUse } from './context.ts';

/** Without a name the snapshot is named after the time, UTC. */
export async function createSnapshot(
  context: Context,
  rawVolume: string,
  rawName: string | null,
  signal: AbortSignal,
): Promise<Snapshot> {
  const volume = parseVolumeName(rawVolume);
  const name =
    rawName === null
      ? parseSnapshotName(new Date(context.clock.nowMs()).toISOString())
      : parseUserSnapshotName(rawName);
  return await context.locks.with(volume, 'snapshot', signal, async () => {
    const { id } = readyVolume(context, volume);
    const made = await context.storage.snapshot(id, name);
    context.ownership.touched(id);
    return made;
  });
}

/** Oldest first, without those that flock keeps for itself. */
export async function listSnapshots(context: Context, rawVolume: string): Promise<readonly Snapshot[]> {
  const record = readyVolume(context, parseVolumeName(rawVolume));
  const snapshots = await context.storage.snapshots(record.id);
  return snapshots.filter((snapshot) => !isInternalSnapshot(snapshot.name));
}

export async function removeSnapshot(
  context: Context,
  rawVolume: string,
  rawName: string,
  signal: AbortSignal,
): Promise<void> {
  const volume = parseVolumeName(rawVolume);
  const name = parseUserSnapshotName(rawName);
  await context.locks.with(volume, 'snapshot removal', signal, async () => {
    const { id } = readyVolume(context, volume);
    await requireSnapshot(context, id, name);
    await context.storage.destroySnapshot(id, name);
    context.ownership.touched(id);
  });
}

/**
 * Makes the content of a snapshot the volume's content. What the volume held until now, with all snapshots younger than that one,
 * goes to the trash as a volume of its own and can be brought back under another name. When it throws, either nothing has changed
 * and nothing will, or the text says that it goes on by itself.
 */
export async function rollbackVolume(
  context: Context,
  rawVolume: string,
  rawSnapshot: string,
  signal: AbortSignal,
): Promise<VolumeRecord> {
  const volume = parseVolumeName(rawVolume);
  const snapshot = parseSnapshotName(rawSnapshot);
  return await context.locks.with(volume, 'rollback', signal, async () => {
    const record = readyVolume(context, volume);
    const snapshots = await requireSnapshot(context, record.id, snapshot);
    await refuseInUse(context, record, 'operator');
    await context.storage.unmount(record.id);
    context.state.setUses(record.id, []);
    const namesAfterMs = Math.max(record.namesAfterMs ?? 0, lastReached(snapshots)?.timeMs ?? 0);
    const rolling: VolumeRecord = {
      ...record,
      namesAfterMs,
      phase: { kind: 'rolling-back', snapshot, aside: datasetIdFor(volume, context.clock.randomHex(4)) },
    };
    context.state.commit({ put: [rolling] });
    try {
      return await finishRollback(context, rolling);
    } catch (error) {
      if (context.state.byId(record.id)?.phase.kind === 'ready') throw error;
      throw new FlockError(
        error instanceof FlockError ? error.code : 'storage-failed',
        `the rollback of ${quote(volume)} to ${quote(snapshot)} was begun and could not be finished yet; flock goes on with it every minute, and until then the volume can't be mounted: ${messageOf(error)}`,
        {},
        { cause: error },
      );
    }
  });
}

/**
 * The second half of a rollback; repeated after a crash. Answers what was kept aside. Where the storage refuses and has provably
 * changed nothing the volume is ready again, as it was, and the refusal is thrown: a rollback that was reported as failed must
 * never happen later, when its reason has gone. After any other failure the phase stays, for the sweep.
 */
export async function finishRollback(context: Context, record: VolumeRecord): Promise<VolumeRecord> {
  if (record.phase.kind !== 'rolling-back') return record;
  const { snapshot, aside } = record.phase;
  // Owner and mode of the root directory come back with the rest.
  const options = { ...datasetOptions(record, context.storage.kind), mode: null, uid: null, gid: null };
  try {
    await context.storage.rollback(record.id, snapshot, aside, options);
  } catch (error) {
    if (isRefusal(error) && (await isUntouched(context, record.id, snapshot, aside))) {
      context.state.commit({ put: [{ ...record, phase: readyAnew(record.options) }] });
      context.log.warn(
        {
          event: 'volume.rollback-refused',
          volume: record.name,
          dataset: record.id,
          snapshot,
          reason: messageOf(error),
        },
        'rollback refused, the volume is as it was',
      );
    }
    throw error;
  }
  const nowMs = context.clock.nowMs();
  // Even with no trash at all, an operator who rolled back too far must have time to see it.
  const keptMs = Math.max(context.settings().trashMs, trashMsDefault);
  const ready: VolumeRecord = { ...record, phase: { kind: 'ready' } };
  const kept: VolumeRecord = {
    ...record,
    id: aside,
    phase: { kind: 'trashed', removedAtMs: nowMs, expiresAtMs: nowMs + keptMs, reason: 'rolled back' },
  };
  context.state.commit({ put: [ready, kept] });
  context.ownership.touched(record.id);
  context.log.info(
    { event: 'volume.rolled-back', volume: record.name, dataset: record.id, snapshot, aside },
    'volume rolled back',
  );
  return kept;
}

/** The storage's own "no". After anything else, such as a command that was cut off, the work may go on behind our back. */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof FlockError) || uncertain.has(error.code)) return false;
  return !(error.cause instanceof CommandError && (error.cause.timedOut || error.cause.exitCode === null));
}

const uncertain: ReadonlySet<ErrorCode> = new Set(['storage-daemon-down', 'pool-missing', 'pool-unusable']);

/**
 * Every backend's first change is to make the live content the dataset `aside`, and all that is younger goes with it: as long as there
 * is no such dataset, and the volume still has its snapshot, nothing has happened.
 */
async function isUntouched(
  context: Context,
  id: VolumeRecord['id'],
  snapshot: string,
  aside: VolumeRecord['id'],
): Promise<boolean> {
  const { storage } = context;
  try {
    if ((await storage.exists(aside)) || !(await storage.exists(id))) return false;
    return (await storage.snapshots(id)).some(({ name }) => name === snapshot);
  } catch {
    return false;
  }
}

/** All that the volume has. */
async function requireSnapshot(context: Context, id: VolumeRecord['id'], name: string): Promise<readonly Snapshot[]> {
  const snapshots = await context.storage.snapshots(id);
  if (snapshots.some((snapshot) => snapshot.name === name)) return snapshots;
  throw new FlockError(
    'snapshot-not-found',
    `there is no snapshot ${quote(name)} of this volume: "flockctl snapshot ls" lists them`,
  );
}
