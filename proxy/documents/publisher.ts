import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { keys } from '../../controller/model/cluster.ts';
import { messageOf } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import { createLatch } from '../../controller/store/latch.ts';
import type { Entry, Store } from '../../controller/store/store.ts';
import { proxyKeys } from '../model/keys.ts';
import { inTransactions, nodeOfKey, planWrites, strangers, tooLarge, type Wanted, type Written } from './writes.ts';

/**
 * Keeps in the store what this node's proxy says of itself, and removes what proxies of nodes that are gone have left.
 *
 * INVARIANTS
 * - A write is decided on a fresh look, or on what this publisher's own last write left: watches may be late.
 * - Nothing is written that is there already.
 * - Only documents below this node's keys are written; others are only deleted, and only if the cluster has no such node.
 */
export type Publisher = {
  /** What should be there, by key; null: nothing is to be written or deleted now. Replaces what was wanted before. */
  want(documents: Wanted | null): void;
  /** What a watch has shown of all nodes. `isHere`: which of them are nodes still; null: that can't be told yet. */
  seen(written: readonly Entry[], isHere: ((node: NodeName) => boolean) | null): void;
  /** Why the last attempt has failed; null: all is written. */
  problem(): string | null;
  /** Writes until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type PublisherParts = {
  readonly store: Store;
  readonly node: NodeName;
  /** Nodes are in the store, too, and one that is still there keeps its documents. */
  readonly isCluster: boolean;
  readonly log: Logger;
  readonly retryMs?: number;
};

const retryMsDefault = 1_000;
/** Each conflict means that somebody else has written here: a late write of this node's own, mostly. */
const attemptsMax = 5;
/** The rest comes next time. */
const strangersMax = 8;

export function createPublisher(parts: PublisherParts): Publisher {
  const { store, node, isCluster, log, retryMs = retryMsDefault } = parts;
  const latch = createLatch();
  let wanted: Wanted | null = null;
  let known: Map<string, Pick<Entry, 'value' | 'index'>> | null = null;
  let leavers: readonly NodeName[] = [];
  let problem: string | null = null;

  async function look(): Promise<Map<string, Pick<Entry, 'value' | 'index'>>> {
    return new Map((await entriesOf(node)).map(({ key, value, index }) => [key, { value, index }]));
  }

  async function entriesOf(name: NodeName): Promise<readonly Entry[]> {
    const [containers, own] = await Promise.all([
      store.list(`${proxyKeys.containers}/${name}/`, { fresh: true }),
      store.get(proxyKeys.node(name), { fresh: true }),
    ]);
    return own === null ? containers : [...containers, own];
  }

  /** Brings the store to what was wanted when it was called. Answers whether it is there. */
  async function write(documents: Wanted): Promise<boolean> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const current = known ?? (await look());
      known = null;
      if (await transactAll(current, documents)) {
        known = current;
        return true;
      }
    }
    return false;
  }

  async function transactAll(
    current: Map<string, Pick<Entry, 'value' | 'index'>>,
    documents: Wanted,
  ): Promise<boolean> {
    for (const operations of planWrites(current, documents)) {
      const outcome = await store.transact(operations);
      if (outcome.kind === 'conflict') return false;
      for (const { key } of operations) {
        const index = outcome.indexes.get(key);
        const value = documents.get(key);
        if (index === undefined || value === undefined) current.delete(key);
        else current.set(key, { value, index });
      }
    }
    return true;
  }

  /** What is seen of a cluster may be old: a node that has just come would lose what it says of itself. */
  async function clean(): Promise<void> {
    const names = leavers.slice(0, strangersMax);
    leavers = [];
    for (const name of names) {
      if (isCluster && (await store.get(keys.node(name), { fresh: true })) !== null) continue;
      const gone = (await entriesOf(name)).map(
        ({ key, index }) => ({ kind: 'compare-and-delete', key, index }) as const,
      );
      for (const operations of inTransactions(gone)) await store.transact(operations);
      if (gone.length > 0)
        log.info({ event: 'node.cleaned', node: name }, 'a node that is gone has no routes any more');
    }
  }

  async function pass(): Promise<void> {
    const documents = wanted;
    if (documents !== null) {
      for (const key of tooLarge(documents)) log.error({ event: 'publish.too-large', key }, 'other nodes are not told');
      if (!(await write(documents))) throw new Error(`${node}'s documents are changed by others all the time`);
    }
    await clean();
  }

  return {
    want(documents) {
      const isSame = documents !== null && wanted !== null && sameTexts(wanted, documents);
      wanted = documents;
      if (!isSame) latch.open();
    },
    seen(written, isHere) {
      const own = written.filter(({ key }) => isOwn(key, node));
      // Either a watch that is late, or somebody has changed what is not his: a look tells.
      if (known !== null && !sameEntries(known, own)) {
        known = null;
        latch.open();
      }
      if (isHere === null) return;
      leavers = strangers(written, (name) => name === node || isHere(name));
      if (leavers.length > 0) latch.open();
    },
    problem: () => problem,
    async run(signal) {
      while (await latch.pass(signal)) {
        try {
          await pass();
          problem = null;
        } catch (error) {
          if (signal.aborted) return;
          if (problem === null)
            log.warn({ event: 'publish.failed', reason: messageOf(error) }, 'other nodes are told later');
          problem = messageOf(error);
          latch.open();
          await sleep(retryMs, undefined, { signal }).catch(() => {});
        }
      }
    },
  };
}

function isOwn(key: string, node: NodeName): boolean {
  return nodeOfKey(key, proxyKeys.containers) === node || key === proxyKeys.node(node);
}

function sameEntries(known: Written, entries: readonly Entry[]): boolean {
  return known.size === entries.length && entries.every(({ key, index }) => known.get(key)?.index === index);
}

function sameTexts(one: Wanted, other: Wanted): boolean {
  return one.size === other.size && [...one].every(([key, value]) => other.get(key) === value);
}
