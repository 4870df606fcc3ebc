import type { Entry, Operation, Store } from '../../controller/store/store.ts';
import type { Documents } from '../model/collect.ts';
import { madeByPeople, proxyKeys } from '../model/keys.ts';
import { inTransactions } from './writes.ts';

/** What people have made goes along when a host becomes a member of a cluster, or is one no more. */

export type Carried = Pick<Entry, 'key' | 'value'>;

/** What people have made, of documents that were read before. Pure. */
export function madeOf({ routes, links, services, certificates }: Documents): readonly Carried[] {
  return [
    ...routes.map((one) => ({ key: proxyKeys.route(one.id), value: JSON.stringify(one) })),
    ...links.map((one) => ({ key: proxyKeys.link(one.id), value: JSON.stringify(one) })),
    ...services.map((one) => ({ key: proxyKeys.service(one.name), value: JSON.stringify(one) })),
    ...certificates.map((one) => ({ key: proxyKeys.certificate(one.name), value: JSON.stringify(one) })),
  ];
}

/**
 * Puts into a store what it does not have yet; what is there under the same name stays as it is. Answers the keys that are there with
 * something else. May be repeated.
 */
export async function carry(made: readonly Carried[], to: Store): Promise<ReadonlySet<string>> {
  const others = new Set<string>();
  const values = new Map(made.map(({ key, value }) => [key, value]));
  const operations = made.map(({ key, value }) => ({ kind: 'compare-and-set', key, value, index: null }) as const);
  for (const transaction of inTransactions(operations)) {
    if ((await to.transact(transaction)).kind === 'done') continue;
    // One of them is there already.
    for (const operation of transaction) {
      if ((await to.transact([operation])).kind === 'done') continue;
      const there = await to.get(operation.key, { fresh: true });
      if (there?.value !== values.get(operation.key)) others.add(operation.key);
    }
  }
  return others;
}

/**
 * Moves what people have made from one store to another. What was moved is gone from the first, so that it can't come back from there;
 * what the other has something else for stays: it may be all there is of a certificate's key.
 */
export async function moveMade(
  from: Store,
  to: Store,
): Promise<{ readonly moved: number; readonly kept: readonly string[] }> {
  const entries: readonly Entry[] = (
    await Promise.all(madeByPeople.map((key) => from.list(`${key}/`, { fresh: true })))
  ).flat();
  const others = await carry(entries, to);
  const moved = entries.filter(({ key }) => !others.has(key));
  const gone = moved.map(({ key, index }): Operation => ({ kind: 'compare-and-delete', key, index }));
  // Whoever has changed one meanwhile keeps it, and all of its transaction, for the next time.
  for (const transaction of inTransactions(gone)) await from.transact(transaction);
  return { moved: moved.length, kept: [...others].toSorted() };
}
