import { lookup } from 'node:dns/promises';
import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { defaultAddress, defaultNodeName, readHostFacts } from '../../controller/cluster/host-defaults.ts';
import { type MembershipParts, type Place, watchPlace } from '../../controller/cluster/place.ts';
import { messageOf } from '../../controller/model/errors.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { openEmbeddedStore } from '../../controller/store/embedded.ts';
import { openStore } from '../../controller/store/opening.ts';
import type { Store } from '../../controller/store/store.ts';
import type { Documents } from '../model/collect.ts';
import { parseIp } from '../model/names.ts';
import type { OwnNode } from '../model/own.ts';
import { carry, madeOf, moveMade } from './carrying.ts';
import { createPublisher, type Publisher } from './publisher.ts';
import { createStoreView, type StoreView } from './view.ts';

/**
 * Where this host's documents are: in the cluster's store while it is a member, else in a file of its own. When that changes, what
 * people have made goes along, and only then is the new store looked at: until it has been seen whole, the old documents are the last
 * words.
 */
export type Home = {
  readonly own: OwnNode;
  /** Null: the host is in no cluster. */
  readonly clusterId: string | null;
  readonly open: { readonly store: Store; readonly view: StoreView; readonly publisher: Publisher } | null;
  /** Why it is not open. */
  readonly problem: string | null;
};

export type Homes = {
  /** Null until it is known once whether the host is a member. */
  current(): Home | null;
  /** Follows the membership until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type HomesParts = {
  readonly membership: MembershipParts;
  /** The file of a host that is in no cluster. */
  readonly file: string;
  /** What was seen last, here or in the store before. */
  readonly last: () => { readonly clusterId: string | null; readonly documents: Documents } | null;
  readonly onChange: () => void;
  readonly log: Logger;
  readonly openCluster?: (place: NonNullable<Place>) => Store;
  readonly ownAlone?: () => Promise<OwnNode>;
  readonly retryMs?: number;
};

const retryMsDefault = 2_000;
const lookupMsMax = 5_000;

export function createHomes(parts: HomesParts): Homes {
  const { file, last, onChange, log, retryMs = retryMsDefault } = parts;
  const openCluster = parts.openCluster ?? (({ storeAddress, storeToken }) => openStore(storeAddress, storeToken));
  let current: Home | null = null;

  function change(next: Home): void {
    current = next;
    onChange();
  }

  /** Again and again until it is done; null: the signal came first. */
  async function insist<T extends object>(
    what: string,
    signal: AbortSignal,
    work: () => Promise<T>,
  ): Promise<T | null> {
    let told: string | null = null;
    while (!signal.aborted) {
      try {
        return await work();
      } catch (error) {
        const problem = `${what}: ${messageOf(error)}`;
        if (problem !== told) log.warn({ event: 'home.waiting', reason: problem }, 'tried again');
        told = problem;
        if (current !== null && current.open === null && current.problem !== problem) change({ ...current, problem });
        await sleep(retryMs, undefined, { signal }).catch(() => {});
      }
    }
    return null;
  }

  async function live(place: Place, signal: AbortSignal): Promise<void> {
    const own = await insist('this node’s address', signal, () => ownOf(place, parts.ownAlone ?? ownAlone));
    if (own === null) return;
    const clusterId = place?.clusterId ?? null;
    change({ own, clusterId, open: null, problem: 'the store has not answered yet' });
    const store = await insist('the store', signal, async () =>
      place === null ? await openEmbeddedStore(file) : openCluster(place),
    );
    if (store === null) return;
    try {
      const carried = await insist('taking along what people have made', signal, async () => ({
        count: await takeAlong(place, store),
      }));
      if (carried === null) return;
      const isCluster = place !== null;
      const view = createStoreView({ store, isCluster, onChange, log });
      const publisher = createPublisher({ store, node: own.node, isCluster, log });
      log.info({ event: 'home.opened', node: own.node, cluster: clusterId, store: store.kind }, 'looking at the store');
      change({ own, clusterId, open: { store, view, publisher }, problem: null });
      await Promise.all([view.run(signal), publisher.run(signal)]);
    } finally {
      await store.close();
    }
  }

  async function takeAlong(place: Place, store: Store): Promise<void> {
    if (place !== null) {
      await moveFromFile(store);
      return;
    }
    const before = last();
    if (before !== null && before.clusterId !== null) await carry(madeOf(before.documents), store);
  }

  /** A file that can't be opened keeps nobody from the cluster: what is in it goes along at a later start. */
  async function moveFromFile(store: Store): Promise<void> {
    if (!(await isThere(file))) return;
    const from = await openEmbeddedStore(file).catch((error: unknown) => {
      log.error({ event: 'home.not-taken-along', reason: messageOf(error) }, 'the cluster does not get what is in it');
      return null;
    });
    if (from === null) return;
    try {
      const { moved, kept } = await moveMade(from, store);
      if (moved > 0)
        log.info({ event: 'home.taken-along', count: moved }, 'routes and links of this host are the cluster’s now');
      if (kept.length > 0)
        log.warn(
          { event: 'home.kept', keys: kept },
          'the cluster has others of these names: those of this host stay in its file',
        );
    } finally {
      await from.close();
    }
  }

  return {
    current: () => current,
    async run(signal) {
      let stop = new AbortController();
      let living: Promise<void> = Promise.resolve();
      for await (const place of watchPlace(parts.membership, signal)) {
        stop.abort();
        await living;
        stop = new AbortController();
        const ended = AbortSignal.any([signal, stop.signal]);
        living = live(place, ended).catch((error: unknown) => {
          if (!ended.aborted) throw error;
        });
      }
      await living;
    },
  };
}

async function ownOf(place: Place, alone: () => Promise<OwnNode>): Promise<OwnNode> {
  if (place === null) return await alone();
  const address = parseIp(place.address) ?? (await resolve(place.address));
  return { node: place.name, address, isMember: true };
}

async function resolve(host: string): Promise<string> {
  const late = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error(`no answer about ${host} within ${lookupMsMax / 1000} s`)), lookupMsMax).unref();
  });
  // Without an order of its own: what the host's own settings prefer is what its peers use, too.
  const found = await Promise.race([lookup(host, { all: true, order: 'verbatim' }), late]);
  // Debian's /etc/hosts leads a host's own name to 127.0.1.1, where no other node reaches it.
  const outer = found.find(({ address }) => !address.startsWith('127.') && address !== '::1');
  return outer?.address ?? defaultAddress(await readHostFacts());
}

/** A host that is in no cluster needs a name for its documents only, and an address for containers on its own network. */
export async function ownAlone(): Promise<OwnNode> {
  const facts = await readHostFacts();
  return {
    node: orElse(() => defaultNodeName(facts.hostName), parseNodeName('host')),
    address: orElse(() => defaultAddress(facts), '127.0.0.1'),
    isMember: false,
  };
}

function orElse<T>(work: () => T, otherwise: T): T {
  try {
    return work();
  } catch {
    return otherwise;
  }
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
