import { FlockError, messageOf } from '../../controller/model/errors.ts';
import { type DatasetId, parseVolumeName, quote } from '../../controller/model/names.ts';
import { acquire, isKnown, release, type Use, withoutLeaks } from '../uses.ts';
import { type Context, existingVolume, readyVolume } from './context.ts';

const mountIdBytesMax = 256;

/**
 * Mounts a volume for one of Docker's mount ids and answers the path. If the caller has gone meanwhile (signal), the mount is taken
 * back: Docker gives up after 30 s and never sends an unmount for a mount that it did not see succeed.
 */
export async function mountVolume(
  context: Context,
  rawName: string,
  mountId: string,
  signal: AbortSignal,
): Promise<string> {
  const name = parseVolumeName(rawName);
  if (mountId === '' || mountId.length > mountIdBytesMax)
    throw new FlockError('invalid-request', `mount of ${quote(name)}: the mount id is missing or too long`);
  return await context.locks.with(name, 'mount', signal, async () => {
    await context.ownership.obtain(name, signal);
    const record = readyVolume(context, name);
    context.ownership.assure(record);
    const path = await context.storage.mount(record.id);
    if (!(await context.dockerShows(record.id))) {
      await unmountIfUnused(context, record.id);
      const reason = `Docker's daemon does not see what flock mounts: it was restarted and has taken the plugin's folder away`;
      context.beginAnew(reason);
      throw new FlockError(
        'not-ready',
        `${reason}. Volume ${quote(name)} is not given to a container that would find a bare directory; the plugin starts anew by itself: start the container again in some seconds`,
      );
    }
    const uses = context.state.uses(record.id);
    const held = isKnown(uses, mountId) && (await context.findHolders([record.id])).has(record.id);
    try {
      if (signal.aborted)
        throw new FlockError(
          'caller-gone',
          `mount of ${quote(name)}: the caller went away before it was done, so it was taken back`,
        );
      // Once more, for this process may have stood still since.
      context.ownership.assure(record);
    } catch (error) {
      await unmountIfUnused(context, record.id);
      throw error;
    }
    context.state.setUses(record.id, acquire(uses, mountId, { held, ms: context.clock.bootMs() }));
    return path;
  });
}

/** Ends one use of a mount id. The data stays mounted while others use it. */
export async function unmountVolume(
  context: Context,
  rawName: string,
  mountId: string,
  signal: AbortSignal,
): Promise<void> {
  const name = parseVolumeName(rawName);
  await context.locks.with(name, 'unmount', signal, async () => {
    // Handed to another node since: nothing of it is mounted here.
    if (context.ownership.elsewhere(name) !== null) return;
    const record = existingVolume(context, name);
    const left = release(context.state.uses(record.id), mountId);
    // Before anything takes the volume for one at rest.
    context.ownership.touched(record.id);
    context.state.setUses(record.id, left);
    await unmountIfUnused(context, record.id);
  });
}

/**
 * A mount that can't be given back now (a shell of the operator stands in it) is no reason to fail: nobody uses it any more, and
 * the sweep tries again.
 */
async function unmountIfUnused(context: Context, id: DatasetId): Promise<void> {
  if (context.state.uses(id).length > 0) return;
  try {
    await context.storage.unmount(id);
  } catch (error) {
    context.log.warn(
      { event: 'volume.unmount-postponed', dataset: id, reason: messageOf(error) },
      'unmounting will be tried again',
    );
  } finally {
    // Also what stays mounted: whoever keeps it so may have written to it.
    context.ownership.touched(id);
  }
}

/**
 * Drops uses that nothing backs up any more, and unmounts what nobody uses. Mount and unmount messages get lost when Docker is
 * killed; the kernel's mount tables don't lie.
 */
export async function sweepMounts(
  context: Context,
  mounted: (id: DatasetId) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const atMs = context.clock.bootMs();
  const youngOf = (uses: readonly Use[]) => withoutLeaks(uses, atMs);
  const suspects = context.state.all().filter((record) => {
    const uses = context.state.uses(record.id);
    return uses.length === 0 ? mounted(record.id) : youngOf(uses).length < uses.length;
  });
  const holders = await context.findHolders(suspects.map((record) => record.id));
  for (const { id, name } of suspects) {
    if (holders.has(id)) continue;
    await context.locks.with(name, 'sweep', signal, async () => {
      // Looked at again under the lock: a mount may have come in between.
      const uses = context.state.uses(id);
      const kept = youngOf(uses);
      if (kept.length < uses.length) {
        context.log.info(
          { event: 'volume.use-dropped', volume: name, dataset: id, uses: uses.length - kept.length },
          'uses without a mount dropped',
        );
        context.state.setUses(id, kept);
      }
      await unmountIfUnused(context, id);
    });
  }
}
