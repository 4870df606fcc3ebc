import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import { FlockError } from '../../controller/model/errors.ts';
import type { Store } from '../../controller/store/store.ts';
import { decode } from '../model/records.ts';

/** Each repetition means that somebody else has changed the same document meanwhile. */
const attemptsMax = 10;
const idBytes = 4;

/** Stores a document under an id that nobody has. */
export async function createDocument<T extends { readonly id: string }>(
  store: Store,
  keyOf: (id: string) => string,
  make: (id: string) => T,
): Promise<T> {
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const doc = make(randomBytes(idBytes).toString('hex'));
    const value = JSON.stringify(doc);
    const outcome = await store.transact([{ kind: 'compare-and-set', key: keyOf(doc.id), value, index: null }]);
    if (outcome.kind === 'done') return doc;
  }
  throw busy(keyOf('ID'));
}

/**
 * Writes what `change` makes of the document, null if there is none that can be read. It may be called repeatedly, and what it throws
 * ends the change. Answers what is stored now.
 */
export async function changeDocument<T>(
  store: Store,
  key: string,
  schema: z.ZodType<T>,
  change: (doc: T | null) => T | null,
): Promise<T | null> {
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const entry = await store.get(key, { fresh: true });
    const before = entry === null ? null : readable(schema, entry.value);
    const after = change(before);
    if (after === null || after === before) return after;
    const value = JSON.stringify(after);
    const outcome = await store.transact([{ kind: 'compare-and-set', key, value, index: entry?.index ?? null }]);
    if (outcome.kind === 'done') return after;
  }
  throw busy(key);
}

/** False: there is none. */
export async function removeDocument(store: Store, key: string): Promise<boolean> {
  if ((await store.get(key, { fresh: true })) === null) return false;
  await store.transact([{ kind: 'delete', key }]);
  return true;
}

/** Null for what can't be read: it is about to be replaced, and the proxies leave it out. */
export function readable<T>(schema: z.ZodType<T>, text: string): T | null {
  try {
    return decode(schema, text);
  } catch {
    return null;
  }
}

function busy(key: string): FlockError {
  return new FlockError('store-unavailable', `${key} is changed by others all the time: try again`);
}
