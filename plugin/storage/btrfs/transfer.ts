import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId, SnapshotName } from '../../../controller/model/names.ts';
import { isDatasetId } from '../../../controller/model/names.ts';
import type { ReceiveRequest, ReplicaOptions, SendRequest } from '../storage.ts';
import { readCompressionArguments, receiveArguments, sendArguments, snapshotArguments } from './arguments.ts';
import { refuseSnapshotsOf } from './datasets.ts';
import { translate } from './errors.ts';
import { checkStamp, type Host, makeFolder } from './host.ts';
import { findMount, refuseIfMounted } from './mounts.ts';
import { identityOf, parseCompression } from './parse.ts';
import { isAsMade, isUnchangedSince, notePristine, readNote } from './pristine.ts';
import { placeSnapshot, requireSnapshot, type Saved, savedOf } from './snapshots.ts';

export type Transfer = { readonly descriptor: number; readonly signal: AbortSignal };

export async function sendSnapshot(host: Host, request: SendRequest, to: Transfer, compressed: boolean): Promise<void> {
  const { id, from } = request;
  await host.requireLive(id);
  await requireSnapshot(host, id, request.to);
  if (from !== null) await requireSnapshot(host, id, from);
  const snapshot = host.layout.snapshot(id, request.to);
  const parent = from === null ? null : host.layout.snapshot(id, from);
  const args = sendArguments({ snapshot, parent, compressed });
  await host.commands.stream(host.config.tools.btrfs, args, { stdout: to.descriptor }, to.signal);
}

/** What a complete stream has to carry; of an increment btrfs knows nothing before it has made it. */
export async function estimateSend(host: Host, { id, to, from }: SendRequest): Promise<number | null> {
  await host.requireLive(id);
  await requireSnapshot(host, id, to);
  if (from === null) return (await host.show(host.layout.snapshot(id, to))).referenced;
  await requireSnapshot(host, id, from);
  return null;
}

/**
 * The stream goes into a folder of its own and is looked at before anything that was there is touched. `btrfs receive` leaves a
 * writable subvolume without `received_uuid` when it fails; so its exit status, the read-only flag and that UUID all have to agree.
 */
export async function receiveSnapshot(
  host: Host,
  request: ReceiveRequest,
  options: ReplicaOptions | null,
  source: Transfer,
): Promise<void> {
  const { id, to, from, stamp } = request;
  checkStamp(stamp);
  await restoreReplaced(host, id);
  const base = await baseFor(host, id, from);
  if (base === null) await clearUnfinished(host, id, to);
  const work = host.layout.work(id, 'receive');
  await host.discard(work);
  await makeFolder(work);
  try {
    const args = receiveArguments(work);
    await host.commands.stream(host.config.tools.btrfs, args, { stdin: source.descriptor }, source.signal);
    await verify(host, work, request, base);
  } catch (error) {
    await host.discard(work);
    throw translate(error, 'stream-invalid');
  }
  await receiveSteps.makeLive(host, request, base !== null, options);
  await host.writeStamp(id, stamp);
  if (base === null) {
    await receiveSteps.addSnapshot(host, request);
    await receiveSteps.showLive(host, request);
  } else {
    // The snapshot comes last, because a repetition is refused once it is there.
    await receiveSteps.setOldAside(host, request);
    await receiveSteps.showLive(host, request);
    await receiveSteps.addSnapshot(host, request);
  }
  await discardOld(host, id);
  await host.sync();
}

export const receiveSteps = {
  /** Copies nothing, and flushes what was received. */
  async makeLive(
    host: Host,
    { id, to }: ReceiveRequest,
    hasOld: boolean,
    options: ReplicaOptions | null = null,
  ): Promise<void> {
    const { layout } = host;
    const live = layout.work(id, 'live');
    await host.discard(live);
    await host.btrfs(snapshotArguments(join(layout.work(id, 'receive'), to), live));
    const isAltered = hasOld ? await inheritOptions(host, id, live) : await setOptions(host, live, options);
    if (isAltered) await notePristine(host, id, live);
    await host.sync();
  },
  /** Between this and `showLive` the dataset is missing; `restoreReplaced` mends that after a crash. */
  setOldAside: ({ layout }: Host, { id }: ReceiveRequest) => rename(layout.live(id), layout.work(id, 'old')),
  showLive: ({ layout }: Host, { id }: ReceiveRequest) => rename(layout.work(id, 'live'), layout.live(id)),
  addSnapshot: (host: Host, { id, to }: ReceiveRequest) => placeSnapshot(host, host.layout.work(id, 'receive'), id, to),
};

/** Both answer whether the live subvolume differs from its snapshot then. */
async function inheritOptions(host: Host, id: DatasetId, live: string): Promise<boolean> {
  const old = host.layout.live(id);
  await host.limit((await host.show(old)).maxReferenced, live);
  // A compression that the owner's dataset was made with comes with the stream.
  if ((await readNote(host, id)) === null) return false;
  return await host.compress(live, parseCompression(await host.btrfs(readCompressionArguments(old))) ?? '');
}

async function setOptions(host: Host, live: string, options: ReplicaOptions | null): Promise<boolean> {
  const { quotaBytes = null, compression = null } = options ?? {};
  // Usage counts when it is committed.
  if (quotaBytes !== null) await host.sync();
  const fits = quotaBytes !== null && (await host.show(live)).referenced <= quotaBytes;
  await host.limit(fits ? quotaBytes : null, live);
  return compression !== null && (await host.compress(live, compression));
}

/** The snapshot that an increment has to start from; null for a complete stream. */
async function baseFor(host: Host, id: DatasetId, from: SnapshotName | null): Promise<Saved | null> {
  if (from === null) {
    if (await host.isLive(id)) throw new FlockError('storage-failed', `the dataset ${id} is there already`, { id });
    return null;
  }
  await host.requireLive(id);
  const newest = (await savedOf(host, id)).at(-1);
  if (newest?.name !== from) throw noCommon(id, from, newest?.name ?? null);
  await refuseIfMounted(host, id);
  if (!(await isUnchangedSince(host, id, newest)))
    throw new FlockError(
      'no-common-snapshot',
      `${id} was written to after its newest snapshot ${from}; keep that with a rollback to ${from} first`,
      { id, from, reason: 'modified' },
    );
  // The received subvolume starts as a snapshot of the base and would inherit a limit that the sender no longer has.
  await host.limit(null, host.layout.snapshot(id, from));
  return newest;
}

/** What a complete stream left that was taken but not shown when the host went down. */
async function clearUnfinished(host: Host, id: DatasetId, to: SnapshotName): Promise<void> {
  await refuseSnapshotsOf(host, id, to);
  await host.discard(host.layout.snapshotFolder(id, to));
}

async function verify(host: Host, work: string, { id, to, from }: ReceiveRequest, base: Saved | null): Promise<void> {
  const names = await readdir(work);
  if (names.length !== 1 || names[0] !== to)
    throw invalid(`it holds ${names.map((name) => JSON.stringify(name)).join(', ') || 'nothing'} instead of ${to}`);
  const received = await host.show(join(work, to));
  if (!received.readOnly || received.receivedUuid === null) throw invalid('it was not received to its end');
  if (base === null && received.parentUuid !== null) throw invalid('it is an increment, not complete');
  if (base === null || from === null) return;
  if (received.parentUuid === null) throw invalid('it is complete, not an increment');
  // The same snapshot may be here more than once, and btrfs takes any of them.
  const parent = (await host.subvolumes()).find(({ uuid }) => uuid === received.parentUuid);
  if (parent === undefined || identityOf(parent) !== identityOf(base)) throw noCommon(id, from, base.name);
}

/**
 * Subvolumes that a container has made in its volume are in no snapshot and no stream. So what was replaced holds all that there is of
 * them, and can't be deleted as a whole either: it is kept where nothing looks at it, or neither this copy nor, as `incoming` is swept then,
 * the pool would be usable any more.
 */
async function discardOld(host: Host, id: DatasetId): Promise<void> {
  const old = host.layout.work(id, 'old');
  try {
    await host.discard(old);
  } catch (error) {
    const below = `incoming/${id}.old/`;
    if (!(await host.subvolumes()).some(({ path }) => path.startsWith(below))) throw error;
    await makeFolder(host.layout.kept);
    await rename(old, join(host.layout.kept, `${id}.${(await host.show(old)).id}`));
  }
}

/**
 * After a crash in the middle of an exchange of live subvolumes the old one comes back, also when the new one is shown already but its
 * snapshot is not: live content belongs to the newest snapshot. Not if somebody has written to the new one.
 */
async function restoreReplaced(host: Host, id: DatasetId): Promise<void> {
  const old = host.layout.work(id, 'old');
  const names = await readdir(host.layout.incoming);
  if (!names.includes(`${id}.old`)) return;
  const live = host.layout.live(id);
  if (await host.isLive(id)) {
    await host.sync();
    const isSpare = names.includes(`${id}.receive`) && (await isAsMade(host, id, await host.show(live)));
    if (!isSpare || (await findMount(host, id)) !== null) return await discardOld(host, id);
    await host.discard(host.layout.work(id, 'live'));
    await rename(live, host.layout.work(id, 'live'));
  }
  await rename(old, live);
}

/** When the pool is opened nothing is under way: what was is undone, for its caller will repeat it. */
export async function recoverIncoming(host: Host): Promise<void> {
  const names = await readdir(host.layout.incoming);
  for (const name of names) {
    const id = name.slice(0, -'.old'.length);
    if (name.endsWith('.old') && isDatasetId(id)) await restoreReplaced(host, id);
  }
  for (const name of await readdir(host.layout.incoming)) await host.discard(join(host.layout.incoming, name));
  if (names.length > 0) await host.sync();
}

function noCommon(id: DatasetId, from: SnapshotName, newest: SnapshotName | null): FlockError {
  return new FlockError(
    'no-common-snapshot',
    newest === from
      ? `${id} has another snapshot ${from} than the one the stream starts from`
      : `the stream starts from ${from}, but the newest snapshot of ${id} is ${newest ?? 'none'}`,
    { id, from, newest },
  );
}

function invalid(text: string): FlockError {
  return new FlockError('stream-invalid', `the stream can't be received: ${text}`);
}
