import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { quote } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { Directory } from './directory.ts';

/**
 * The document of a volume of this node, of the epoch that its record has. The directory's may still be the one before a takeover, and a
 * snapshot that is named by it would look older than it is. Throws `volume-not-found`, or `volume-busy` where the store has another epoch.
 */
export async function currentDoc(
  directory: Pick<Directory, 'volume' | 'look'>,
  { id, name, epoch }: VolumeRecord,
): Promise<VolumeDoc> {
  const known = directory.volume(id)?.doc;
  if (known?.epoch === epoch) return known;
  const seen = await directory.look(id);
  if (seen === null)
    throw new FlockError('volume-not-found', `the cluster does not know the volume ${quote(name)} yet; try again`);
  if (seen.doc.epoch === epoch) return seen.doc;
  throw new FlockError(
    'volume-busy',
    `volume ${quote(name)} has epoch ${seen.doc.epoch} in the store and ${epoch} on this node, which is about to learn of it; try again`,
  );
}
