import { type Reach, reach as reachDefault } from '../../controller/docker/reach.ts';
import { createLatch } from '../../controller/store/latch.ts';
import type { ContainerDoc, LocalContainer } from '../model/containers.ts';
import type { ServiceName } from '../model/names.ts';

/**
 * Which of this node's containers take connections. A container runs before its program listens; what the kernel leads to it meanwhile
 * is refused, though another container may serve. So one without a health check counts as starting until it has taken a connection at
 * each of its ports, once since its start. From then on, who connects finds out.
 */
export type Listening = {
  /**
   * The containers as they are to be told of, in place of all before. `wanted`: the ports that anything leads to, by service. `before`:
   * what was told last; who was healthy since the same start is not asked again.
   */
  judge(
    found: readonly LocalContainer[],
    wanted: ReadonlyMap<ServiceName, ReadonlySet<number>>,
    before: readonly ContainerDoc[],
  ): readonly LocalContainer[];
  /** Asks until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type ListeningParts = {
  /** One more port of a container is open, or one more container counts as listening. */
  readonly onChange: () => void;
  /** Never goes back. */
  readonly nowMs?: () => number;
  readonly reach?: Reach;
};

/** Most programs listen within seconds; who waits for one waits no longer than this for it to be noticed. */
const soonMs = 100;
const laterMs = 1_000;
const soonForMs = 10_000;
/** A container that takes connections at some of its ports only may never do so at the others. */
const allForMs = 10_000;
/** Containers that are asked at a time. */
const asksMax = 64;

type Start = {
  readonly startedAtMs: number;
  address: string;
  ports: ReadonlySet<number>;
  readonly open: Set<number>;
  /** Since it was first seen: clocks may jump, and it may have run for long. */
  readonly seenAtMs: number;
  nextAtMs: number;
  isAsked: boolean;
  isListening: boolean;
};

export function createListening(parts: ListeningParts): Listening {
  const { onChange, nowMs = () => performance.now(), reach = reachDefault } = parts;
  const latch = createLatch();
  let starts: ReadonlyMap<string, Start> = new Map();

  const waiting = () => [...starts.values()].filter(({ isListening }) => !isListening);

  function startOf(
    { facts, hasCheck }: LocalContainer,
    wanted: ReadonlyMap<ServiceName, ReadonlySet<number>>,
    before: ReadonlyMap<string, ContainerDoc>,
  ): Start | null {
    const { id, startedAtMs, healthy, address, declared } = facts;
    const known = starts.get(id);
    const isKnown = known?.startedAtMs === startedAtMs;
    const ports = declared.service === null ? undefined : wanted.get(declared.service);
    // One that is paused listens on when it goes on.
    if (hasCheck || !healthy || address === null || ports === undefined || ports.size === 0)
      return isKnown && known.isListening ? known : null;
    if (isKnown) return Object.assign(known, { address, ports });
    const told = before.get(id);
    const isListening = told?.startedAtMs === startedAtMs && told.healthy;
    const atMs = nowMs();
    return {
      ...{ startedAtMs, address, ports, open: new Set(), seenAtMs: atMs, nextAtMs: atMs },
      ...{ isAsked: false, isListening },
    };
  }

  /** Never rejects. */
  async function ask(start: Start, signal: AbortSignal): Promise<void> {
    start.isAsked = true;
    const closed = [...start.ports].filter((port) => !start.open.has(port));
    const taken = await Promise.all(closed.map((port) => reach(start.address, port, signal)));
    const opened = closed.filter((_, index) => taken[index] === true);
    for (const port of opened) start.open.add(port);
    const forMs = nowMs() - start.seenAtMs;
    start.isListening = start.ports.isSubsetOf(start.open) || (start.open.size > 0 && forMs >= allForMs);
    start.nextAtMs = nowMs() + (forMs < soonForMs ? soonMs : laterMs);
    start.isAsked = false;
    if (opened.length + Number(start.isListening) > 0 && !signal.aborted) onChange();
    latch.open();
  }

  return {
    judge(found, wanted, before) {
      const told = new Map(before.map((one) => [one.id, one]));
      const next = found.flatMap((one) => {
        const start = startOf(one, wanted, told);
        return start === null ? [] : [[one.facts.id, start] as const];
      });
      starts = new Map(next);
      if (waiting().length > 0) latch.open();
      return found.map((one) => {
        const start = starts.get(one.facts.id);
        if (start === undefined || start.isListening) return one;
        const closedPorts = [...start.ports.difference(start.open)].toSorted((a, b) => a - b);
        return { ...one, facts: { ...one.facts, healthy: false, starting: true, closedPorts } };
      });
    },
    async run(signal) {
      let timer: NodeJS.Timeout | undefined;
      while (await latch.pass(signal)) {
        clearTimeout(timer);
        const all = waiting();
        const free = asksMax - all.filter(({ isAsked }) => isAsked).length;
        const idle = all.filter(({ isAsked }) => !isAsked).toSorted((a, b) => a.nextAtMs - b.nextAtMs);
        const due = idle.filter(({ nextAtMs }) => nextAtMs <= nowMs()).slice(0, free);
        // One that drops what comes is waited for by nobody else.
        for (const start of due) void ask(start, signal);
        const next = free > due.length ? idle[due.length] : undefined;
        if (next !== undefined) timer = setTimeout(latch.open, Math.max(1, next.nextAtMs - nowMs()));
      }
      clearTimeout(timer);
    },
  };
}
