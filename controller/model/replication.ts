import type { Base, Reached } from './cluster.ts';
import { isInternalSnapshot, parseSnapshotName, type SnapshotName } from './names.ts';

/** What tells a snapshot everywhere: the identity is the same on every node that holds it, and no other snapshot has it. */
export type Identified = { readonly name: SnapshotName; readonly identity: string };

export type TransferInput = {
  /** Oldest first. */
  readonly owner: readonly Identified[];
  /** Oldest first; null: the node has no such dataset. */
  readonly replica: readonly Identified[] | null;
  readonly ownerEpoch: number;
  /** The newest epoch that the replica has seen for the volume. */
  readonly replicaEpoch: number;
  /** As the volume's document has them. */
  readonly bases?: readonly Base[] | undefined;
};

export type Transfer =
  | { readonly kind: 'in-sync' }
  | { readonly kind: 'full'; readonly to: Identified }
  | { readonly kind: 'incremental'; readonly from: Identified; readonly to: Identified }
  /**
   * The replica has what the owner has not, and it must be set aside before anything is sent. `common` is the newest snapshot that
   * both have, by the replica's name for it; null: none. `replicaOnly`: names of the replica's snapshots after it, oldest first.
   * `isCovered`: what they hold is in the owner's, too.
   */
  | {
      readonly kind: 'diverged';
      readonly common: SnapshotName | null;
      readonly replicaOnly: readonly SnapshotName[];
      readonly isCovered: boolean;
    }
  | { readonly kind: 'refused'; readonly reason: string };

/**
 * What to send to bring a replica to the owner's newest snapshot. Identities decide, never names: people may give one name to two
 * snapshots on two nodes, and a failing receive shows divergence too late or not at all (an extra snapshot without a change does
 * not make it fail). Snapshots between the newest common one and the newest are left out, so a replica that was away is one step
 * behind, not thousands. Snapshots before the common one may differ: each node thins its own.
 *
 * A dataset without any snapshot holds data that nobody can identify, so it counts as diverged, not as empty.
 */
export function planTransfer({ owner, replica, ownerEpoch, replicaEpoch, bases = [] }: TransferInput): Transfer {
  if (replicaEpoch > ownerEpoch)
    return {
      kind: 'refused',
      reason: `the replica has seen epoch ${replicaEpoch}, newer than epoch ${ownerEpoch} of the sender: the sender is no longer the owner`,
    };
  const to = owner.at(-1);
  if (to === undefined) return { kind: 'refused', reason: 'the owner has no snapshot to send yet' };
  if (replica === null) return { kind: 'full', to };
  const owned = new Map(owner.map((snapshot) => [snapshot.identity, snapshot]));
  const index = replica.findLastIndex(({ identity }) => owned.has(identity));
  const common = replica[index];
  const from = common === undefined ? undefined : owned.get(common.identity);
  const replicaOnly = replica.slice(index + 1).map(({ name }) => name);
  if (common === undefined || from === undefined || replicaOnly.length > 0)
    return {
      kind: 'diverged',
      common: common?.name ?? null,
      replicaOnly,
      isCovered: isCovered(replicaOnly, owner, historyFrom(ownerEpoch, bases)),
    };
  if (from.identity === to.identity) return { kind: 'in-sync' };
  return { kind: 'incremental', from, to };
}

/**
 * Whether all that these snapshots hold is in snapshots of the owner: in one that was made later with the same epoch, for an epoch has one
 * writer, whose names grow with time. So it is with a third copy after a handover: the new owner may have got a later snapshot instead of
 * the one that was sent there. An owner that was made by a complete stream has none of the epochs before; its `history` (historyFrom) counts
 * as well. Snapshots that people made are never covered, and neither is a dataset without snapshots.
 */
export function isCovered(
  names: readonly SnapshotName[],
  owner: readonly Pick<Identified, 'name'>[],
  history: readonly Reached[],
): boolean {
  /** By epoch; what is older is covered. */
  const coveredMs = new Map<number, number>();
  const cover = (epoch: number, timeMs: number) =>
    void coveredMs.set(epoch, Math.max(timeMs, coveredMs.get(epoch) ?? 0));
  for (const { name } of owner) {
    const made = parseReplicationSnapshot(name);
    if (made !== null) cover(made.epoch, made.timeMs);
  }
  // With the one that it is called by, unless the owner has another one of that name.
  const present = new Set(owner.map(({ name }) => name));
  for (const { epoch, timeMs } of history) cover(epoch, present.has(snapshotName(epoch, timeMs)) ? timeMs : timeMs + 1);
  return (
    names.length > 0 &&
    names.every((name) => {
      const made = parseReplicationSnapshot(name);
      return made !== null && made.timeMs < (coveredMs.get(made.epoch) ?? 0);
    })
  );
}

export const intervalMsDefault = 1000;
export const intervalMsMin = 100;
export const intervalMsMax = 3_600_000;

/** However long a cycle took, the next one begins within this or the volume's own interval. */
const busyMsMax = 60_000;
/** An idle volume is looked at at least this often, or at its own interval: so late may the first write after a rest be noticed. */
const idleMsMax = 5000;
/** So many checks in a row without a change, and the volume counts as idle. */
const idleAfterChecks = 30;

/** What may be lost comes together from this wait, the sending, and the time until somebody notices. */
const limitedShare = 4;

export type IntervalInput = {
  /** What the volume asks for. */
  readonly intervalMs: number;
  /** How long the last snapshot, send and receive took; 0: there was none. */
  readonly lastCycleMs: number;
  /** Checks in a row that found nothing new to send. */
  readonly unchangedChecks: number;
  /** The most that a takeover may lose, of volumes that limit it; such a one is looked at no less often for being idle, or busy. */
  readonly maxLossMs?: number | null;
};

/**
 * How long to wait until the next check of a volume for a replica. A busy one rests as long as its last cycle took, so that
 * replication takes half of the time at most; an idle one is checked less and less often.
 */
export function nextInterval({ intervalMs, lastCycleMs, unchangedChecks, maxLossMs = null }: IntervalInput): number {
  const doublings = Math.min(16, Math.max(0, unchangedChecks - idleAfterChecks + 1));
  const idleMs = Math.min(intervalMs * 2 ** doublings, Math.max(intervalMs, idleMsMax));
  const busyMs = Math.min(2 * lastCycleMs, Math.max(intervalMs, busyMsMax));
  if (maxLossMs !== null) return Math.max(intervalMs, Math.min(busyMs, maxLossMs / limitedShare));
  return Math.max(intervalMs, idleMs, busyMs);
}

/** `flock.r.EPOCH.TIME`, the time in UTC to the millisecond: flock.r.3.20261123T032848123Z. Names of one epoch sort by time. */
const namePattern = /^flock\.r\.([1-9]\d{0,14})\.(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z$/;

/** The name of a snapshot made for replication. Years 1970 to 9999. */
export function snapshotName(epoch: number, timeMs: number): SnapshotName {
  const name = `flock.r.${epoch}.${new Date(timeMs).toISOString().replaceAll(/[-:.]/g, '')}`;
  if (!namePattern.test(name)) throw new RangeError(`no snapshot can have epoch ${epoch} and time ${timeMs}`);
  return parseSnapshotName(name);
}

/**
 * The time for the next name: now, but after those of all that were ever made, which are these snapshots and what a rollback took away
 * (`afterMs`). So no name comes twice where the wall clock steps back, and a later one always has more (isCovered).
 */
export function snapshotTimeMs(
  nowMs: number,
  snapshots: readonly Pick<Identified, 'name'>[],
  afterMs: number | undefined,
): number {
  const last = lastReached(snapshots);
  return Math.max(nowMs, ...[last?.timeMs, afterMs].flatMap((ms) => (ms === undefined ? [] : [ms + 1])));
}

/** What snapshotName wrote, or null for every other name. */
export function parseReplicationSnapshot(name: SnapshotName): Reached | null {
  if (!isInternalSnapshot(name)) return null;
  const match = namePattern.exec(name);
  if (match === null) return null;
  const [epoch = 0, year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, milli = 0] = match
    .slice(1)
    .map(Number);
  const timeMs = Date.UTC(year, month - 1, day, hour, minute, second, milli);
  // 30 February would become 1 March.
  return timeMs >= 0 && name === snapshotName(epoch, timeMs) ? { epoch, timeMs } : null;
}

/** By the newest of these snapshots that replication has made; oldest first. null: there is none. */
export function lastReached(snapshots: readonly Pick<Identified, 'name'>[]): Reached | null {
  for (let index = snapshots.length - 1; index >= 0; index -= 1) {
    const found = parseReplicationSnapshot((snapshots[index] as Pick<Identified, 'name'>).name);
    if (found !== null) return found;
  }
  return null;
}

/**
 * What the history of an epoch has of those before it: what it began with, what that one's epoch began with, and so on, as far as that is
 * known. An epoch that was passed over (its owner died with all that it wrote, and somebody took an older copy) is not in it.
 */
export function historyFrom(epoch: number, bases: readonly Base[]): readonly Reached[] {
  const byEpoch = new Map(bases.map((base) => [base.began, base]));
  const history: Reached[] = [];
  let base = byEpoch.get(epoch);
  while (base !== undefined && base.epoch < base.began) {
    history.push({ epoch: base.epoch, timeMs: base.timeMs });
    base = byEpoch.get(base.epoch);
  }
  return history;
}
