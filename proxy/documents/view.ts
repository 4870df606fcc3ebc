import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { z } from 'zod';
import { keys } from '../../controller/model/cluster.ts';
import { messageOf } from '../../controller/model/errors.ts';
import type { Entry, Store } from '../../controller/store/store.ts';
import { type Documents, noDocuments, type Problem } from '../model/collect.ts';
import { containerSchema } from '../model/containers.ts';
import {
  proxyKeys,
  proxyNodeSchema,
  serviceSettingsSchema,
  storedCertificateSchema,
  storedLinkSchema,
} from '../model/keys.ts';
import type { ServiceName } from '../model/names.ts';
import { routeSchema } from '../model/records.ts';
import { createCollection, type Part } from './collection.ts';
import { createMembers } from './members.ts';
import { createReach, type ReachParts } from './reach.ts';

/**
 * What a store has for the proxies, as last seen. What can't be read is left out and reported.
 *
 * Watches of different documents are not in step with each other. Who releases a service has seen where its containers are now, so
 * before a release is shown they are looked up anew: nobody may be led to where they were before. So is the release itself: a watch may
 * go back to what was before the pause.
 */
export type StoreView = {
  /** Null until everything has been seen once. */
  documents(): Documents | null;
  /** What the proxies of all nodes have written, readable or not. */
  written(): readonly Entry[];
  problems(): readonly Problem[];
  /** Why the store does not answer; null: it does. */
  fault(): string | null;
  /** Watches until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type StoreViewParts = {
  readonly store: Store;
  /** Of a cluster, whose nodes are in it, too. */
  readonly isCluster: boolean;
  readonly onChange: () => void;
  readonly log: Logger;
  readonly probeMs?: number;
  readonly reach?: Omit<ReachParts, 'onChange'>;
  readonly nowMs?: () => number;
};

/** A watch may be late by that much with what a release relies on. */
const releaseMs = 5_000;
/** A look near a release that takes longer is not waited for: what the watch has said is shown. */
const lookMsMax = 1_000;
/** From a look for a release that was not answered to the next. */
const againMs = 200;

/** A watch is silent while nothing changes, so whether a store that has failed is back is asked. */
const probeMsDefault = 2_000;

type Found = { -readonly [Name in keyof Documents]: Documents[Name] };

export function createStoreView(parts: StoreViewParts): StoreView {
  const { store, isCluster, onChange, log, probeMs, nowMs = () => performance.now() } = parts;
  const found: Found = { ...noDocuments };
  const written = new Map<string, readonly Entry[]>();
  const problems = new Map<string, readonly Problem[]>();
  const reach = createReach({ ...parts.reach, onChange: reached });
  const members = createMembers(reach);
  const wanted = isCluster
    ? [
        ...documentParts(found),
        ...members.parts((seen) => {
          found.members = seen;
        }),
      ]
    : documentParts(found);
  let documents: Documents | null = null;
  let fault: string | null = null;
  let releasedAtMs: number | null = null;
  let isReleasing = false;
  let looking: Promise<void> = Promise.resolve();
  let putContainers: (entries: readonly Entry[]) => void = () => {};

  async function follow({ below, take }: Part, signal: AbortSignal): Promise<void> {
    const put = (entries: readonly Entry[]) => {
      problems.set(below, take(entries));
      if (below === proxyKeys.containers || below === proxyKeys.nodes) written.set(below, entries);
    };
    if (below === proxyKeys.containers) putContainers = put;
    for await (const entries of store.watch(`${below}/`, signal, failed)) {
      const isNearRelease = isReleasing || (releasedAtMs !== null && nowMs() - releasedAtMs < releaseMs);
      if (below === proxyKeys.services) await putServices(() => put(entries), signal);
      else if (below === proxyKeys.containers && isNearRelease) await lookForContainers(lookMsMax, signal, entries);
      else put(entries);
      if (problems.size === wanted.length) documents = { ...found };
      answered();
    }
  }

  /** What is released, or is to end earlier, is shown after what was looked up for it. */
  async function putServices(put: () => void, signal: AbortSignal): Promise<void> {
    const before = found.services;
    put();
    const after = found.services;
    const isPaused = (name: ServiceName, id: string, untilMs: number) =>
      after.some(
        (one) => one.name === name && one.pause !== null && (one.pause.id === id || one.pause.untilMs >= untilMs),
      );
    const released = before.filter(({ name, pause }) => pause !== null && !isPaused(name, pause.id, pause.untilMs));
    if (released.length === 0) return;
    isReleasing = true;
    found.services = before;
    const names = new Set(released.map(({ name }) => name));
    const certain = await certainServices(released, signal).finally(() => {
      isReleasing = false;
      releasedAtMs = nowMs();
    });
    found.services =
      certain === null
        ? after
        : [...after.filter(({ name }) => !names.has(name)), ...certain.filter(({ name }) => names.has(name))];
  }

  /**
   * What the store says for certain, and where the containers are then: a leader that was just replaced answers a watch with what
   * was before a pause that is acknowledged by now, and nobody may pass then. That one does not answer such a question, so it is asked until
   * somebody does, for as long as the pauses last by themselves. Null: nobody has.
   */
  async function certainServices(
    released: Documents['services'],
    signal: AbortSignal,
  ): Promise<Documents['services'] | null> {
    const endMs = Math.max(...released.map(({ pause }) => pause?.untilMs ?? 0));
    for (let leftMs = endMs - Date.now(); leftMs > 0 && !signal.aborted; leftMs = endMs - Date.now()) {
      const entries = await lookUp(proxyKeys.services, leftMs, signal);
      // Asked after that, or a release between the two would be shown with where the containers were before it.
      if (entries !== null && (await lookForContainers(Math.max(1, endMs - Date.now()), signal, null)))
        return servicesOf(entries).documents;
      await sleep(againMs, null, { signal }).catch(() => null);
    }
    return null;
  }

  /** What the store has for certain; null: it does not answer in time. */
  async function lookUp(below: string, waitMs: number, signal: AbortSignal): Promise<readonly Entry[] | null> {
    const tooLate = sleep(waitMs, null, { signal, ref: false }).catch(() => null);
    const answer = store.list(`${below}/`, { fresh: true }).catch(() => null);
    return await Promise.race([answer, tooLate]);
  }

  /**
   * `otherwise`: what is taken if the store does not answer in time. Answers whether it has. One after the other: an older answer must not
   * come last.
   */
  function lookForContainers(
    waitMs: number,
    signal: AbortSignal,
    otherwise: readonly Entry[] | null,
  ): Promise<boolean> {
    const look = looking.then(async () => {
      const entries = await lookUp(proxyKeys.containers, waitMs, signal);
      if (entries !== null || otherwise !== null) putContainers(entries ?? otherwise ?? []);
      return entries !== null;
    });
    looking = look.then(() => {});
    return look;
  }

  function failed(error: unknown): void {
    const isNew = fault === null;
    fault = messageOf(error);
    if (!isNew) return;
    log.warn({ event: 'store.away', reason: fault }, 'the store does not answer: the last table stays');
    onChange();
  }

  function answered(): void {
    if (fault !== null) log.info({ event: 'store.answers' }, 'the store answers again');
    fault = null;
    onChange();
  }

  function reached(): void {
    found.members = members.seen();
    if (documents === null) return;
    documents = { ...documents, members: found.members };
    onChange();
  }

  async function probe(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(probeMs ?? probeMsDefault, undefined, { signal }).catch(() => {});
      if (!signal.aborted && fault !== null) await store.get(keys.cluster, { fresh: true }).then(answered, () => {});
    }
  }

  return {
    documents: () => documents,
    written: () => [...written.values()].flat(),
    problems: () => [...problems.values()].flat(),
    fault: () => fault,
    async run(signal) {
      await Promise.all([...wanted.map((part) => follow(part, signal)), probe(signal), reach.run(signal)]);
    },
  };
}

function servicesOf(entries: readonly Entry[]) {
  return createCollection(serviceSettingsSchema, ({ name }) => proxyKeys.service(name)).take(entries);
}

function documentParts(found: Found): readonly Part[] {
  const part = <T>(
    below: string,
    schema: z.ZodType<T>,
    keyOf: (document: T) => string,
    put: (documents: readonly T[]) => void,
  ): Part => {
    const collection = createCollection(schema, keyOf);
    return {
      below,
      take(entries) {
        const { documents, problems } = collection.take(entries);
        put(documents);
        return problems;
      },
    };
  };
  return [
    part(
      proxyKeys.containers,
      containerSchema,
      ({ node, id }) => proxyKeys.container(node, id),
      (documents) => {
        found.containers = documents;
      },
    ),
    part(
      proxyKeys.nodes,
      proxyNodeSchema,
      ({ name }) => proxyKeys.node(name),
      (documents) => {
        found.nodes = documents;
      },
    ),
    part(
      proxyKeys.routes,
      routeSchema,
      ({ id }) => proxyKeys.route(id),
      (documents) => {
        found.routes = documents;
      },
    ),
    part(
      proxyKeys.links,
      storedLinkSchema,
      ({ id }) => proxyKeys.link(id),
      (documents) => {
        found.links = documents;
      },
    ),
    part(
      proxyKeys.services,
      serviceSettingsSchema,
      ({ name }) => proxyKeys.service(name),
      (documents) => {
        found.services = documents;
      },
    ),
    part(
      proxyKeys.certificates,
      storedCertificateSchema,
      ({ name }) => proxyKeys.certificate(name),
      (documents) => {
        found.certificates = documents;
      },
    ),
  ];
}
