import { randomBytes } from 'node:crypto';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { parseDatasetId, parseSnapshotName, parseVolumeName } from '../../controller/model/names.ts';
import { noOptions } from '../../controller/model/options.ts';
import type { Transfer } from '../../plugin/cluster/ports.ts';
import { createMemory, type MemoryStorage } from '../../plugin/storage/memory.ts';
import { sender } from './peer-pair.ts';

/** The volume that streams between two nodes are tested with. */

export const id = parseDatasetId('db.00000001');
export const doc: VolumeDoc = {
  ...{ id, name: parseVolumeName('db'), createdAtMs: 1, options: noOptions, owner: sender },
  ...{ epoch: 1, replicas: [], revision: 1, trashed: null },
};
export const create = {
  ...{ quotaBytes: null, compression: null, recordSizeBytes: null, mode: null, uid: null, gid: null },
  ...{ properties: {}, stamp: '{}' },
};

/** Two storages with a pool each; the first has the volume. */
export async function makeStorages(): Promise<{ readonly here: MemoryStorage; readonly there: MemoryStorage }> {
  const parts = { nowMs: () => Date.now(), randomHex: (digits: number) => randomBytes(digits / 2).toString('hex') };
  const [here, there] = [createMemory(parts), createMemory(parts)];
  for (const storage of [here, there]) await storage.makePool(2 ** 31);
  await here.create(id, create);
  return { here, there };
}

/** A snapshot with so many new bytes, and the stream that brings it. */
export async function writeSnapshot(
  { content, snapshot }: MemoryStorage,
  name: string,
  bytes: number,
  from: string | null,
): Promise<Transfer> {
  await content.write(id, name, randomBytes(bytes));
  const to = parseSnapshotName(name);
  const { identity } = await snapshot(id, to);
  return { doc, to, toIdentity: identity, from: from === null ? null : parseSnapshotName(from) };
}
