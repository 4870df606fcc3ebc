import { z } from 'zod';
import { keys } from '../model/cluster.ts';
import type { DatasetId } from '../model/names.ts';
import type { Operation, Store } from '../store/store.ts';
import { listBelow } from './entries.ts';

/**
 * Volumes that were removed on purpose. That the store knows nothing of a volume says little, for it may have been lost, or brought back
 * as it was long ago; only what is named here was given up by somebody, and nodes destroy their copies of it.
 *
 *     removed/ID     { removedAtMs }, wall clock
 */
const schema = z.object({ removedAtMs: z.int().nonnegative() });

/** A node that was away for longer finds none, and keeps its copy for a while (see orphanDutyOf). */
const keptMs = 30 * 86_400_000;
/** Of a transaction of the store. */
const prunedMax = 30;

/** Part of the transaction that removes the document. */
export function tombstone(id: DatasetId, nowMs: number): Operation {
  return { kind: 'set', key: keys.removed(id), value: JSON.stringify({ removedAtMs: Math.round(nowMs) }) };
}

export async function isRemoved(store: Store, id: DatasetId): Promise<boolean> {
  return (await store.get(keys.removed(id), { fresh: true })) !== null;
}

/** Takes the oldest away. Throws `store-unavailable`. */
export async function pruneTombstones(store: Store, nowMs: number): Promise<void> {
  const old = (await listBelow(store, keys.allRemoved)).filter(({ value }) => {
    const found = schema.safeParse(JSON.parse(value));
    return !found.success || found.data.removedAtMs < nowMs - keptMs;
  });
  if (old.length === 0) return;
  await store.transact(old.slice(0, prunedMax).map(({ key }) => ({ kind: 'delete', key })));
}
