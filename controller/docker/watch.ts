import { setTimeout } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import type { z } from 'zod';
import { messageOf } from '../model/errors.ts';
import { parseProblemOf } from '../model/shape.ts';
import { createLatch } from '../store/latch.ts';
import { createQuestions } from './questions.ts';
import type { ContainerEvent, DockerSource, Listed } from './source.ts';

/**
 * The containers of this host that matter here, as Docker said last.
 *
 * INVARIANTS
 * - What is known comes from lists and inspections only; events say which containers to look at again.
 * - While Docker does not answer, what it said last stays.
 * - However many events come, there is one look at a time, `settleMs` apart, with few questions at once.
 * - A container that Docker does not describe keeps no other one from being seen: what was said of it last stays. Docker holds a container
 *   for as long as it starts it, the mounts of all its volumes included, and answers nothing about it meanwhile; one whose layer is broken
 *   it never describes.
 */
export type DockerWatch<Inspected> = {
  /** By id. Null until Docker has answered once. */
  containers(): readonly Inspected[] | null;
  /** Why Docker's answers can't be had now, or what is wrong with one; null: all is well. */
  problem(): string | null;
  /** Whether Docker answered the last question. */
  isUp(): boolean;
  /** Look again soon: what is wanted has changed. */
  wake(): void;
  /** Look again soon at this one: Docker tells nobody that it could not start it. */
  lookAt(container: string): void;
  /** Watches until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type DockerWatchParts<Inspected> = {
  readonly source: DockerSource;
  /** Of Docker's answer, what is used of it. */
  readonly schema: z.ZodType<Inspected>;
  /** Which containers matter. Asked with each list. */
  readonly isWanted: (container: Listed) => boolean;
  /** Something that `containers` or `problem` answers has changed. */
  readonly onChange: () => void;
  /** Each event as it comes, before the look that it leads to; null: the stream has just begun, what was before was not seen. */
  readonly onEvent?: (event: ContainerEvent | null) => void;
  readonly log: Logger;
  readonly times?: Partial<DockerTimes>;
  /** Resolves after the time or when the signal fires; for tests with a time of their own. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
};

export type DockerTimes = {
  /** From the first event to the look: those that come meanwhile are seen with it. */
  readonly settleMs: number;
  /** After a question without an answer. */
  readonly retryMs: number;
  /** Everything is looked at again, whether or not there were events. */
  readonly fullMs: number;
  /** A look waits no longer for what Docker says of one container; the answer leads to the next look. */
  readonly patienceMs: number;
  /** The same of the first look, before which nothing is known: what is not in it would be taken for gone. Shorter than the call itself. */
  readonly firstPatienceMs: number;
  /** After a container that Docker could not describe. */
  readonly brokenMs: number;
};

export const dockerTimes: DockerTimes = {
  settleMs: 50,
  retryMs: 1_000,
  fullMs: 60_000,
  patienceMs: 1_000,
  firstPatienceMs: 5_000,
  brokenMs: 10_000,
};
const inspectionsMax = 4;
/** Of the first look: those that Docker is just starting, many after a boot, must not wait for each other. */
const firstInspectionsMax = 64;
/** With more containers to look at, everything is. */
const dirtyMax = 1_000;

export function createDockerWatch<Inspected>(parts: DockerWatchParts<Inspected>): DockerWatch<Inspected> {
  const { source, schema, isWanted, onChange, onEvent, log, sleep = pause } = parts;
  const times = { ...dockerTimes, ...parts.times };
  const latch = createLatch();
  let known: ReadonlyMap<string, Inspected> | null = null;
  let unreadable: ReadonlyMap<string, string> = new Map();
  let fault: string | null = null;
  let dirty: Set<string> | 'all' = 'all';
  const questions = createQuestions({ source, times, want, sleep });

  const problem = () => fault ?? unreadable.values().next().value ?? null;

  /** Something has happened to it (null: maybe to any), so that what was asked before may be answered as it was before. */
  function mark(container: string | null): void {
    questions.outdate(container);
    want(container);
  }

  function want(container: string | null): void {
    if (container === null || (dirty !== 'all' && dirty.size >= dirtyMax)) dirty = 'all';
    else if (dirty !== 'all') dirty.add(container);
    latch.open();
  }

  async function look(signal: AbortSignal): Promise<void> {
    const changed = dirty;
    dirty = new Set();
    try {
      const listed = (await source.list()).filter(isWanted);
      const before = known ?? new Map<string, Inspected>();
      const next = new Map<string, Inspected>();
      const bad = new Map<string, string>();
      await eachOf(listed, known === null ? firstInspectionsMax : inspectionsMax, async ({ id, name }) => {
        const old = before.get(id);
        if (old !== undefined && changed !== 'all' && !changed.has(id)) {
          next.set(id, old);
          return;
        }
        const said = await questions.ask(id, name, known === null, signal);
        if (said.kind !== 'answer') {
          if (old !== undefined) next.set(id, old);
          if (said.why !== null) bad.set(id, said.why);
          return;
        }
        const { answer } = said;
        if (answer === null) return;
        const parsed = schema.safeParse(answer);
        if (parsed.success) next.set(id, parsed.data);
        else bad.set(id, `Docker's description of container ${name} can't be read: ${parseProblemOf(parsed.error)}`);
      });
      questions.keep(new Set(listed.map(({ id }) => id)));
      take(new Map([...next].toSorted(([a], [b]) => (a < b ? -1 : 1))), bad);
    } catch (error) {
      for (const id of changed === 'all' ? [null] : changed) want(id);
      failed(error);
      throw error;
    }
  }

  function take(next: ReadonlyMap<string, Inspected>, bad: ReadonlyMap<string, string>): void {
    const hadProblem = problem();
    const isSame = known !== null && isDeepStrictEqual([...known], [...next]);
    if (fault !== null) log.info({ event: 'docker.answers' }, 'Docker answers again');
    fault = null;
    known = next;
    unreadable = bad;
    if (!isSame || hadProblem !== problem()) onChange();
  }

  function failed(error: unknown): void {
    if (fault === null)
      log.warn({ event: 'docker.away', reason: messageOf(error) }, 'Docker does not answer: its last words stay');
    const text = `Docker does not answer: ${messageOf(error)}`;
    const isNew = fault !== text;
    fault = text;
    if (isNew) onChange();
  }

  async function listen(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        for await (const event of source.events(signal)) {
          onEvent?.(event.kind === 'connected' ? null : event);
          mark(event.kind === 'connected' ? null : event.container);
        }
      } catch (error) {
        log.debug({ event: 'docker.events-ended', reason: messageOf(error) }, 'asked for again');
      }
      await sleep(times.retryMs, signal);
      // Whatever happened meanwhile was told to nobody.
      if (!signal.aborted) mark(null);
    }
  }

  async function lookFully(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(times.fullMs, signal);
      mark(null);
    }
  }

  async function work(signal: AbortSignal): Promise<void> {
    while (await latch.pass(signal)) {
      await sleep(times.settleMs, signal);
      if (signal.aborted) return;
      // `look` has told why.
      const isDone = await look(signal).then(
        () => true,
        () => false,
      );
      if (!isDone) await sleep(times.retryMs, signal);
    }
  }

  return {
    containers: () => (known === null ? null : [...known.values()]),
    problem,
    isUp: () => known !== null && fault === null,
    wake: () => latch.open(),
    lookAt: mark,
    async run(signal) {
      latch.open();
      await Promise.all([listen(signal), work(signal), lookFully(signal)]);
    },
  };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return setTimeout(ms, undefined, { signal }).catch(() => {});
}

async function eachOf<T extends object>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const rest = [...items];
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (let item = rest.shift(); item !== undefined; item = rest.shift()) {
        await work(item).catch((error: unknown) => {
          // The others need not go on either.
          rest.length = 0;
          throw error;
        });
      }
    }),
  );
}
