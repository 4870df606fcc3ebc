import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatasetId } from '../../../controller/model/names.ts';
import { nullIfMissing } from './errors.ts';
import { type Host, subvolumeInode } from './host.ts';

/** A container can make subvolumes in its volume; a subvolume with others in it can't be deleted. */
export async function deleteNested(host: Host, id: DatasetId): Promise<void> {
  const listed = await nestedIn(host, id);
  if (listed.length === 0) return;
  for (const path of listed)
    if ((await nullIfMissing(lstat(path)))?.ino === subvolumeInode) await host.deleteSubvolumes([path]);
  // Names with line ends in them can't be read from the list: look at every directory.
  if ((await nestedIn(host, id)).length > 0) await deleteInside(host, host.layout.live(id));
}

/** Innermost first. */
async function nestedIn(host: Host, id: DatasetId): Promise<readonly string[]> {
  const prefix = `volumes/${id}/`;
  return (await host.subvolumes())
    .map(({ path }) => path)
    .filter((path) => path.startsWith(prefix) && !path.split('/').includes('..'))
    .sort((a, b) => b.split('/').length - a.split('/').length)
    .map((path) => join(host.layout.top, path));
}

async function deleteInside(host: Host, folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const path = join(folder, entry.name);
    await deleteInside(host, path);
    if ((await lstat(path)).ino === subvolumeInode) await host.deleteSubvolumes([path]);
  }
}
