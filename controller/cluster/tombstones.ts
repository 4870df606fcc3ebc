import { z } from 'zod';
import { keys, type VolumeDoc } from '../model/cluster.ts';
import type { DatasetId } from '../model/names.ts';
import type { Operation, Store } from '../store/store.ts';
import { listBelow } from './entries.ts';

/**
 * Volumes that were removed on purpose. That the store knows nothing of a volume says little, for it may have been lost, or brought back
 * as it was long ago; only what is named here was given up by somebody, and nodes destroy their copies of it.
 *
 *     removed/ID     { removedAtMs, epoch }: wall clock; the last one of the volume, for it may be published again (see createdDoc)
 */
const schema = z.object({ removedAtMs: z.int().nonnegative(), epoch: z.int().nonnegative() });

/** A node that was away for longer finds none, and keeps its copy for a while (see orphanDutyOf). */
const keptMs = 30 * 86_400_000;
/** Of a transaction of the store. */
const prunedMax = 30;

/** Part of the transaction that removes the document. */
export function tombstone({ id, epoch }: Pick<VolumeDoc, 'id' | 'epoch'>, nowMs: number): Operation {
  return { kind: 'set', key: keys.removed(id), value: JSON.stringify({ removedAtMs: Math.round(nowMs), epoch }) };
}

/** The last epoch of the volume that was removed; null: nobody has removed it, as far as is known. */
export async function removedEpoch(store: Store, id: DatasetId): Promise<number | null> {
  const entry = await store.get(keys.removed(id), { fresh: true });
  return entry === null ? null : (read(entry.value)?.epoch ?? null);
}

function read(value: string): z.infer<typeof schema> | null {
  try {
    return schema.parse(JSON.parse(value));
  } catch {
    return null;
  }
}

/** Takes old ones away. Throws `store-unavailable`. */
export async function pruneTombstones(store: Store, nowMs: number): Promise<void> {
  const old = (await listBelow(store, keys.allRemoved)).filter(
    ({ value }) => (read(value)?.removedAtMs ?? 0) < nowMs - keptMs,
  );
  for (let from = 0; from < old.length; from += prunedMax)
    await store.transact(old.slice(from, from + prunedMax).map(({ key }) => ({ kind: 'delete', key })));
}
