import type { Logger } from 'pino';
import { messageOf } from '../../controller/model/errors.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import type { Clock, Tell, Users } from './ports.ts';
import type { Proofs } from './proofs.ts';

/**
 * Stops the writers of volumes that this node can't prove to own any more, and lets them go on when it can again. It never asks what
 * is wrong: a deadline passed is enough. The watchdog process does the same by the deadlines that are published here, should this
 * process stand still.
 */
export type Fence = {
  /** Whether the volume may be written for at least `marginMs` from now. */
  isProven(id: DatasetId, marginMs: number): boolean;
  isFrozen(id: DatasetId): boolean;
  /** Before a volume is given to somebody: resolves when the watchdog knows of it, too, for this process may stand still right after. */
  watch(id: DatasetId): Promise<void>;
  run(signal: AbortSignal): Promise<void>;
};

export type FenceParts = {
  readonly clock: Clock;
  readonly users: Users;
  readonly proofs: Proofs;
  /** From the last proof to the first process stopped. */
  readonly fenceAfterMs: number;
  /** Datasets that this node owns by its own records. */
  readonly owned: () => readonly DatasetId[];
  /** What this node has given up though its session lives. */
  readonly isWithdrawn: (id: DatasetId) => boolean;
  /** For the watchdog: until when each may be written. */
  readonly publish: (deadlines: ReadonlyMap<DatasetId, number>) => Promise<void>;
  /** Told when users were stopped, or may have been by the watchdog while this process stood still, and when they go on. */
  readonly onChange: (what: 'fenced' | 'thawed', ids: readonly DatasetId[], by: 'fence' | 'watchdog') => void;
  readonly log: Logger;
};

const tickMs = 100;
/** Processes that appear in a frozen container (docker exec) are frozen, too. */
const againMs = 1_000;
/** From then on the volume has a user, or the mount did not come about. */
const expectedMs = 30_000;

export function createFence(parts: FenceParts): Fence {
  const { clock, users, proofs, fenceAfterMs, owned, isWithdrawn, publish, onChange, log } = parts;
  /** With the time of the last freezing. What a predecessor of this process has frozen is thawed once it is proven. */
  const frozen = new Map<DatasetId, number>(owned().map((id) => [id, Number.NEGATIVE_INFINITY]));
  /** What the watchdog goes by. */
  let published: ReadonlyMap<DatasetId, number> = new Map();
  let publishedText = '';
  let telling: Promise<void> = Promise.resolve();
  /** Volumes that are about to be used, with the boot time until which. */
  const expected = new Map<DatasetId, number>();
  /** When to thaw once more: the watchdog may have been about to freeze when the proof came. */
  const thawAgainAtMs = new Map<DatasetId, number>();

  /** Whose users were said to stand. */
  const fenced = new Set<DatasetId>();

  function tellFenced(ids: readonly DatasetId[], by: 'fence' | 'watchdog'): void {
    for (const id of ids) fenced.add(id);
    onChange('fenced', ids, by);
  }

  function byWatchdog(id: DatasetId): void {
    frozen.set(id, Number.NEGATIVE_INFINITY);
    tellFenced([id], 'watchdog');
  }

  const deadlineMs = (id: DatasetId) => proofs.provenAtMs(id) + fenceAfterMs;

  /** What is used, and what is about to be. */
  function guarded(used: readonly DatasetId[]): ReadonlySet<DatasetId> {
    for (const id of used) expected.delete(id);
    for (const [id, untilMs] of expected) if (untilMs <= clock.bootMs()) expected.delete(id);
    return new Set([...used, ...expected.keys()]);
  }

  async function enforce(): Promise<void> {
    const now = clock.bootMs();
    const used = owned();
    const mine = guarded(used);
    for (const id of frozen.keys()) if (!mine.has(id)) frozen.delete(id);
    for (const id of fenced) if (!mine.has(id)) fenced.delete(id);
    // By the deadline that the watchdog knows it may have frozen them, even if there is a newer proof already.
    for (const id of mine)
      if ((published.get(id) ?? Number.POSITIVE_INFINITY) <= now && !frozen.has(id) && !isWithdrawn(id)) byWatchdog(id);
    const overdue = used.filter((id) => deadlineMs(id) <= now);
    const due = overdue.filter((id) => (frozen.get(id) ?? Number.NEGATIVE_INFINITY) + againMs <= now);
    if (due.length > 0) {
      const fresh = due.filter((id) => !frozen.has(id));
      for (const id of due) frozen.set(id, now);
      // One process that does not stand is no reason to keep the users of other volumes from going on.
      await users.freeze(due).catch((error: unknown) => tellFault(error));
      if (fresh.length > 0) {
        log.warn({ event: 'fence.frozen', datasets: fresh }, 'ownership can not be proven: users are frozen');
        tellFenced(fresh, 'fence');
      }
    }
    await thaw(mine);
  }

  function tellFault(error: unknown): void {
    log.error({ event: 'fence.failed', reason: messageOf(error) }, 'fencing will be tried again');
  }

  async function thaw(mine: ReadonlySet<DatasetId>): Promise<void> {
    const now = clock.bootMs();
    for (const id of thawAgainAtMs.keys()) if (!mine.has(id) || frozen.has(id)) thawAgainAtMs.delete(id);
    const again = [...thawAgainAtMs].flatMap(([id, atMs]) => (atMs <= now && deadlineMs(id) > now ? [id] : []));
    const back = [...frozen.keys()].filter((id) => deadlineMs(id) > now);
    if (back.length + again.length === 0) return;
    const mayWrite = (id: DatasetId) => deadlineMs(id) > clock.bootMs();
    await users.thaw([...back, ...again], [...mine], mayWrite);
    // What has run out meanwhile stands as before.
    for (const id of again.filter(mayWrite)) thawAgainAtMs.delete(id);
    const thawed = back.filter(mayWrite);
    for (const id of thawed) {
      frozen.delete(id);
      thawAgainAtMs.set(id, now + againMs);
    }
    if (thawed.length === 0) return;
    log.info({ event: 'fence.thawed', datasets: thawed }, 'ownership is proven: users go on');
    const told = thawed.filter((id) => fenced.delete(id));
    if (told.length > 0) onChange('thawed', told, 'fence');
  }

  /** One after the other, so that nothing older is published after something newer. */
  function tell(): Promise<void> {
    const told = telling.then(tellNow);
    telling = told.catch(() => undefined);
    return told;
  }

  async function tellNow(): Promise<void> {
    // No proof at all means to the watchdog that there is nothing to stop; a deadline that is over, that there is.
    const deadlines = new Map([...guarded(owned())].map((id) => [id, isWithdrawn(id) ? 0 : deadlineMs(id)] as const));
    const text = JSON.stringify([...deadlines]);
    if (text === publishedText) return;
    await publish(deadlines);
    // Until now the watchdog has gone by the old ones.
    const now = clock.bootMs();
    for (const [id, deadlineMs] of published)
      if (deadlineMs <= now && deadlines.has(id) && !frozen.has(id)) byWatchdog(id);
    published = deadlines;
    publishedText = text;
  }

  return {
    isProven: (id, marginMs) => clock.bootMs() + marginMs < deadlineMs(id),
    isFrozen: (id) => frozen.has(id),
    async watch(id) {
      expected.set(id, clock.bootMs() + expectedMs);
      await tell();
    },
    async run(signal) {
      while (!signal.aborted) {
        await enforce().catch(tellFault);
        await tell().catch(tellFault);
        await clock.sleep(tickMs, signal);
      }
    },
  };
}

/** More volumes than this are told of as one event. */
const eventsMax = 8;

/** For people: whose users stand, and whose go on. */
export function tellFence(
  what: 'fenced' | 'thawed',
  ids: readonly DatasetId[],
  by: 'fence' | 'watchdog',
  nameOf: (id: DatasetId) => string,
  tell: Tell,
): void {
  const reason =
    what === 'thawed'
      ? 'this node can prove again that the volume is its own: its users go on where they were'
      : by === 'fence'
        ? 'this node can not prove that the volume is its own: its users stand still'
        : 'this node’s plugin stood still, so the watchdog may have stopped the volume’s users';
  const names = ids.map(nameOf);
  if (names.length <= eventsMax) for (const name of names) tell(what, name, reason);
  else tell(what, `${names.length} volumes`, `${reason}: ${names.join(', ')}`);
}
