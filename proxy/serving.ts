import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type DockerWatch, dockerTimes } from '../controller/docker/watch.ts';
import { FlockError, messageOf } from '../controller/model/errors.ts';
import type { NodeName } from '../controller/model/names.ts';
import { createLatch } from '../controller/store/latch.ts';
import type { Store } from '../controller/store/store.ts';
import { type Certificates, certificatesOf } from './certificates.ts';
import { type Base, type Composed, compose, problemsOf, wantedOf } from './composing.ts';
import type { Home } from './documents/home.ts';
import type { Listening } from './documents/listening.ts';
import type { Drains } from './drains.ts';
import { type Collected, collect, nextPauseEndMs } from './model/collect.ts';
import { type Inspected, type LocalContainer, readContainer } from './model/containers.ts';
import type { ProxyNodeDoc } from './model/keys.ts';
import { wantedPorts } from './model/own.ts';
import { noPorts, type PortState } from './model/ports.ts';
import type { Seen } from './model/status.ts';
import { buildTable, type Table } from './model/table.ts';
import { createReleases } from './releases.ts';
import type { Saved } from './saved.ts';
import type { Stack } from './stack/stack.ts';

/**
 * The loop of the proxy: what Docker and the store say -> documents -> table -> stack, and back into the store what this node has and
 * serves.
 *
 * INVARIANTS
 * - One pass at a time; whatever happens meanwhile makes one more pass.
 * - A pass waits for the stack only. The store, Docker and the disk are waited for elsewhere, and what they said last holds.
 * - Nothing is taken away because something is not known yet: there is no table before Docker and the store have answered, or their
 *   time for that is over and there is something from before.
 * - What other nodes are told of this one is what its stack was given before.
 */
export type Serving = {
  /** Null: nothing is served yet. */
  seen(): Seen | null;
  self(): NodeName | null;
  /** The one that is used now. Throws `not-ready` while there is none. */
  store(): Store;
  /** This node's containers with what only this node can use of them, by id. */
  local(): ReadonlyMap<string, LocalContainer>;
  /** What was seen last, for whoever takes it along. */
  last(): Base | null;
  /** Why nothing is served yet, or nothing new; null: all is well. */
  trouble(): string | null;
  /** Look again soon. */
  wake(): void;
  /** Serves until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type ServingParts = {
  readonly stack: Pick<Stack, 'apply' | 'problems' | 'pauses' | 'generation'>;
  readonly docker: Pick<DockerWatch<Inspected>, 'containers' | 'problem' | 'wake'>;
  readonly home: () => Home | null;
  readonly listening: Pick<Listening, 'judge'>;
  readonly certificates: Certificates;
  readonly drains: Drains;
  readonly saved: Saved | null;
  /** Of the host. */
  readonly bootId: string;
  /** Keeps what the table was made of. Returns at once. */
  readonly save: (saved: Saved) => void;
  /** There is a new table, which the stack has not been given yet. */
  readonly onTable: (seen: Seen) => void;
  readonly version: string;
  readonly nowMs: () => number;
  readonly log: Logger;
  readonly times?: Partial<ServingTimes>;
};

export type ServingTimes = {
  /** While there are problems. */
  readonly retryMs: number;
  /** Without any reason: what was changed behind the stack's back is put right. */
  readonly tickMs: number;
  /** How long a start waits for the store, if it has something from before. */
  readonly graceMs: number;
  /**
   * The same for Docker. Longer than its first look waits for a container that is just being started.
   */
  readonly dockerGraceMs: number;
  /** Between two passes: as long as the last one took, within these bounds, so that connections get their share of the processor. */
  readonly gapMsMin: number;
  readonly gapMsMax: number;
  /** A pass that takes longer counts as trouble. */
  readonly passMsMax: number;
};

export const servingTimes: ServingTimes = {
  retryMs: 2_000,
  tickMs: 10_000,
  graceMs: 3_000,
  dockerGraceMs: dockerTimes.firstPatienceMs + 3_000,
  gapMsMin: 5,
  gapMsMax: 500,
  passMsMax: 60_000,
};

export function createServing(parts: ServingParts): Serving {
  const { stack, docker, home, listening, certificates, drains, saved, bootId, save, onTable, version, nowMs, log } =
    parts;
  const times = { ...servingTimes, ...parts.times };
  const latch = createLatch();
  const releases = createReleases();
  const startedAtMs = nowMs();
  const startMs = performance.now();
  let base: Base | null = saved;
  let generation = saved?.generation ?? 0;
  let ports: PortState = noPorts;
  let content: string | null = null;
  let seen: Seen | null = null;
  /** Of when Docker said last what there is. */
  let seenInBoot = saved?.bootId ?? null;
  let self: NodeName | null = null;
  let local: ReadonlyMap<string, LocalContainer> = new Map();
  let linked: ReadonlySet<string> = new Set();
  let waiting: string | null = 'the proxy has just started';
  let broken: string | null = null;
  let busySinceMs: number | null = null;
  let appliedAtMs = Number.NEGATIVE_INFINITY;

  function nodeDoc(here: Home, problems: ReadonlyMap<string, string>): ProxyNodeDoc {
    const { node: name, address } = here.own;
    const told = { pauses: stack.pauses().toSorted(), drains: drains.reports(), problems: problemsOf(problems) };
    return { name, address, version, startedAtMs, ...told };
  }

  /** What can be served now; null: `waiting` says for what it has to be waited. */
  function observe(here: Home): { readonly from: Base; readonly found: readonly LocalContainer[] | null } | null {
    const documents = here.open?.view.documents() ?? null;
    if (documents !== null) base = { documents, self: here.own.node, clusterId: here.clusterId };
    const inspected = docker.containers();
    const isPatient = (forMs: number) => seen === null && performance.now() - startMs < forMs;
    if (base === null || (isPatient(times.graceMs) && documents === null)) {
      waiting = `the store has not answered yet${here.problem === null ? '' : `: ${here.problem}`}`;
      return null;
    }
    if (inspected === null && (isPatient(times.dockerGraceMs) || saved === null)) {
      waiting = docker.problem() ?? 'Docker has not answered yet';
      return null;
    }
    return { from: base, found: inspected === null ? null : judged(inspected, base, here) };
  }

  function judged(inspected: readonly Inspected[], { documents, self: was }: Base, here: Home) {
    const found = inspected.map((one) => readContainer(one, here.own.address));
    const facts = found.map((one) => one.facts);
    const before = documents.containers.filter(({ node }) => node === was);
    return listening.judge(found, wantedPorts(facts, documents, here.own.node), before);
  }

  async function pass(): Promise<void> {
    const here = home();
    if (here === null) return;
    const observed = observe(here);
    if (observed === null) return;
    const { from, found } = observed;
    if (found !== null) seenInBoot = bootId;
    const node = nodeDoc(here, problems(here, []));
    const composed = compose({
      base: from,
      own: here.own,
      local: found?.map(({ facts }) => facts) ?? null,
      isSameBoot: seenInBoot === bootId,
      ports,
      node,
    });
    ports = composed.ports;
    self = here.own.node;
    local = new Map(found?.map((one) => [one.facts.id, one]) ?? []);
    wakeDockerForLinks(composed);
    const collected = collect(composed.documents, here.own.node, nowMs());
    const table = await serve(here, composed, collected);
    // Anew, for what it says of pauses and problems.
    const after = nodeDoc(here, problems(here, composed.missing));
    const nodes = composed.documents.nodes.map((one) => (one.name === after.name ? after : one));
    seen = {
      documents: { ...composed.documents, nodes },
      collected,
      table,
      problems: problems(here, composed.missing),
    };
    publish(here, composed, found === null ? null : after);
  }

  /** Answers the table that the stack was given, or had already. */
  async function serve(here: Home, composed: Composed, collected: Collected): Promise<Table> {
    const { documents } = composed;
    let table = releases.hold(buildTable({ ...collected.records, generation }, here.own.node), nowMs());
    await certificates.update(documents.certificates, certificatesOf(table.listeners.values()), nowMs());
    const next = JSON.stringify([collected.records, certificates.mark(), releases.held()]);
    const isNew = next !== content;
    if (isNew) {
      generation += 1;
      table = { ...table, generation };
      content = next;
      onTable({ documents, collected, table, problems: problems(here, composed.missing) });
    }
    const isBehind = stack.problems().size > 0 || stack.generation() !== generation;
    // Whatever wakes this loop, what failed is tried again at its own pace; timers may be early by a bit.
    const dueMs = isBehind ? times.retryMs * 0.9 : times.tickMs;
    if (isNew || performance.now() - appliedAtMs >= dueMs) {
      await stack.apply(table);
      appliedAtMs = performance.now();
    }
    waiting = null;
    drains.consider(collected.records.services, stack.pauses(), nowMs());
    if (isNew) save({ generation, self: here.own.node, clusterId: here.clusterId, bootId: seenInBoot, documents });
    return table;
  }

  /** Of everything on this node, for people. */
  function problems(here: Home, missing: readonly string[]): ReadonlyMap<string, string> {
    const all = new Map<string, string>([...certificates.problems(), ...drains.problems(), ...stack.problems()]);
    const ofDocker = docker.problem();
    if (ofDocker !== null) all.set('docker', ofDocker);
    if (broken !== null) all.set('table', broken);
    if (missing.length > 0) all.set('ports', `no free port was left for ${missing.length} of them: ${missing[0]} ...`);
    for (const { where, text } of here.open?.view.problems() ?? []) all.set(where, text);
    return all;
  }

  /** `node`: null while Docker has never answered. */
  function publish(here: Home, { own: containers }: Composed, node: ProxyNodeDoc | null): void {
    const { open, own } = here;
    const documents = open?.view.documents() ?? null;
    if (open === null || documents === null) return;
    const { members } = documents;
    // A node that was removed from its cluster says nothing more there, or the others would remove it again and again.
    const isPart = members === null || members.has(own.node);
    open.publisher.want(node !== null && isPart ? wantedOf(node, containers) : null);
    open.publisher.seen(open.view.written(), (name) => members?.has(name) === true);
  }

  /** Containers without labels matter if a link names them. */
  function wakeDockerForLinks({ documents }: Composed): void {
    const names = new Set(documents.links.map(({ container }) => container));
    if (names.size !== linked.size || [...names].some((name) => !linked.has(name))) docker.wake();
    linked = names;
  }

  /** Until when nothing has to be done unless something happens. */
  function idleMs(): number {
    const left = [times.graceMs, times.dockerGraceMs].map((ms) => ms - (performance.now() - startMs));
    if (waiting !== null) return Math.min(times.retryMs, ...left.filter((ms) => ms > 0));
    const isBehind = broken !== null || stack.generation() !== generation;
    const hasProblems = isBehind || stack.problems().size > 0 || drains.problems().size > 0;
    const ends = [seen === null ? null : nextPauseEndMs(seen.documents.services, nowMs()), releases.nextEndMs()];
    const toEndMs = Math.max(1, Math.min(...ends.map((end) => (end === null ? times.tickMs : end - nowMs()))));
    return Math.min(hasProblems ? times.retryMs : times.tickMs, toEndMs);
  }

  /** Documents are checked when they are read; if they break the program all the same, the last table is better than none. */
  async function attempt(): Promise<void> {
    busySinceMs = performance.now();
    try {
      await pass();
      broken = null;
    } catch (error) {
      const text = `the table could not be made: ${messageOf(error)}`;
      if (broken !== text) log.error({ event: 'serving.broken', err: error }, 'the last table stays');
      broken = text;
    } finally {
      busySinceMs = null;
    }
  }

  return {
    seen: () => seen,
    self: () => self,
    store() {
      const here = home();
      if (here?.open) return here.open.store;
      throw new FlockError(
        'not-ready',
        `the proxy has no store yet: ${here?.problem ?? 'it is not known yet whether this host is in a cluster'}`,
      );
    },
    local: () => local,
    last: () => base,
    trouble() {
      if (waiting !== null) return waiting;
      const busyMs = busySinceMs === null ? 0 : performance.now() - busySinceMs;
      if (busyMs > times.passMsMax) return `the layers have not taken the table for ${Math.round(busyMs / 1000)} s`;
      return broken;
    },
    wake: latch.open,
    async run(signal) {
      let timer: NodeJS.Timeout | undefined;
      latch.open();
      while (await latch.pass(signal)) {
        clearTimeout(timer);
        const beganMs = performance.now();
        await attempt();
        const tookMs = performance.now() - beganMs;
        const gapMs = Math.min(Math.max(tookMs, times.gapMsMin), times.gapMsMax);
        timer = setTimeout(latch.open, Math.max(gapMs, idleMs()));
        await sleep(gapMs, undefined, { signal }).catch(() => {});
      }
      clearTimeout(timer);
    },
  };
}
