import { readlink, rename, rm, symlink } from 'node:fs/promises';
import type { DatasetId } from '../../../controller/model/names.ts';
import { nullIfMissing } from './errors.ts';
import type { Host } from './host.ts';
import type { Shown } from './parse.ts';
import { type Saved, savedOf } from './snapshots.ts';

/**
 * Whether live content is still that of the newest snapshot. A generation tells, but the owner, mode and compression that a subvolume
 * gets when it is made from a snapshot change its generation too: the one that it has then is noted in a link beside the stamp.
 */
export async function isUnchangedSince(host: Host, id: DatasetId, newest: Saved): Promise<boolean> {
  // Generations change with a commit.
  await host.sync();
  const live = await host.show(host.layout.live(id));
  if (newest.parentUuid === live.uuid && live.generation <= newest.createdGeneration) return true;
  return newest.uuid === live.parentUuid && (await isAsMade(host, id, live));
}

/** As `isUnchangedSince`, for a dataset that may have no snapshot. */
export async function isPristine(host: Host, id: DatasetId): Promise<boolean> {
  const newest = (await savedOf(host, id)).at(-1);
  return newest !== undefined && (await isUnchangedSince(host, id, newest));
}

/** Whether nobody has written to a live subvolume since it was made from a snapshot; as of the last commit. */
export async function isAsMade(host: Host, id: DatasetId, live: Shown): Promise<boolean> {
  return live.generation === live.createdGeneration || (await readNote(host, id)) === stateOf(live);
}

/** Says of the live subvolume, which may still be elsewhere, that it is as it was made. Durable with the next `sync`. */
export async function notePristine(
  host: Pick<Host, 'layout' | 'sync' | 'show'>,
  id: DatasetId,
  live: string,
): Promise<void> {
  await host.sync();
  await writeLink(stateOf(await host.show(live)), host.layout.work(id, 'made'), host.layout.made(id));
}

/** Null where the live subvolume was never given anything that its snapshot has not. */
export async function readNote({ layout }: Pick<Host, 'layout'>, id: DatasetId): Promise<string | null> {
  return await nullIfMissing(readlink(layout.made(id)));
}

const stateOf = ({ uuid, generation }: Shown) => `${uuid}:${generation}`;

/** Replaces a symbolic link whole. */
export async function writeLink(target: string, temporary: string, path: string): Promise<void> {
  await rm(temporary, { force: true });
  await symlink(target, temporary);
  await rename(temporary, path);
}
