import type { z } from 'zod';
import { parseProblemOf } from '../../controller/model/shape.ts';
import type { Entry } from '../../controller/store/store.ts';
import type { Problem } from '../model/collect.ts';

/** The documents below one key, read from the store's entries. What did not change is not read again. */
export type Collection<T> = {
  /** All documents that can be read, in the order of their keys, and why the others can't be. */
  take(entries: readonly Entry[]): { readonly documents: readonly T[]; readonly problems: readonly Problem[] };
};

/** Takes what the store has below a key; answers what is wrong with it. */
export type Part = { readonly below: string; take(entries: readonly Entry[]): readonly Problem[] };

type Known<T> = { readonly index: string; readonly read: { readonly document: T } | { readonly problem: Problem } };

/** `keyOf`: where a document belongs. One that is elsewhere is not believed. */
export function createCollection<T>(schema: z.ZodType<T>, keyOf: (document: T) => string): Collection<T> {
  let known: ReadonlyMap<string, Known<T>> = new Map();

  function read({ key, value }: Entry): Known<T>['read'] {
    try {
      const document = schema.parse(JSON.parse(value));
      const home = keyOf(document);
      if (home === key) return { document };
      return { problem: { where: `store ${key}`, text: `what it holds belongs to ${home}: it is left out` } };
    } catch (error) {
      const text = `it can't be read and is left out: ${parseProblemOf(error)}`;
      return { problem: { where: `store ${key}`, text } };
    }
  }

  return {
    take(entries) {
      const next = new Map<string, Known<T>>();
      for (const entry of entries) {
        const before = known.get(entry.key);
        next.set(entry.key, before?.index === entry.index ? before : { index: entry.index, read: read(entry) });
      }
      known = next;
      const all = [...next.values()].map((one) => one.read);
      return {
        documents: all.flatMap((one) => ('document' in one ? [one.document] : [])),
        problems: all.flatMap((one) => ('problem' in one ? [one.problem] : [])),
      };
    },
  };
}
