import { FlockError } from '../../controller/model/errors.ts';
import type { DatasetId, NodeName, SnapshotName } from '../../controller/model/names.ts';
import type { Snapshot, Storage } from '../storage/storage.ts';
import { createHolds, type Holds } from './holds.ts';
import type { CopyState } from './ports.ts';

/** What a node remembers of the replication of one volume, and of each of its copies. All of it can be found out anew. */

export type Target = {
  readonly node: NodeName;
  /** It is not to have a copy any more, or the volume is not ours. */
  readonly stop: AbortController;
  copy: CopyState | null;
  sending: Promise<void> | null;
  /** It is being asked to destroy snapshots. */
  isThinned: boolean;
  sentBytes: number;
  totalBytes: number | null;
  everSentBytes: number;
  failures: number;
  retryAtMs: number;
  problem: string | null;
  /** Boot time when what the copy has was the newest there was. */
  currentAtMs: number | null;
  complete: Complete | null;
};

/** A snapshot of a copy, and up to when (boot time) it was everything that the volume had. */
export type Complete = { readonly identity: string; readonly atMs: number };

export type Work = {
  readonly id: DatasetId;
  readonly targets: Map<NodeName, Target>;
  readonly holds: Holds;
  readonly stop: AbortController;
  mark: string | null;
  touched: boolean;
  /** All snapshots, oldest first; null: to be listed anew. */
  history: readonly Snapshot[] | null;
  newest: { readonly identity: string; readonly name: SnapshotName; readonly atMs: number } | null;
  /** Of the last snapshots that were made here for replication: the boot time at which each was everything, by identity. */
  readonly takenAtMs: Map<string, number>;
  checkAtMs: number;
  /** It is being looked at now. */
  isAttended: boolean;
  /** When it is thinned, if each copy has what it is held by then; and when it is in any case. */
  pruneAtMs: number;
  pruneByMs: number;
  /** The copies that it is at rest with; null: it is not. */
  restsWith: readonly NodeName[] | null;
  unchanged: number;
  cycleMs: number;
  /** How many wait for a `sync`: it goes on although the volume is being handed over or has no copies. */
  syncs: number;
};

export type CopyStatus = {
  readonly node: NodeName;
  readonly state: 'in-sync' | 'behind' | 'sending' | 'waiting';
  /** Age of what the copy has, where the volume has something newer; 0: it has everything; null: nothing is known yet. */
  readonly lagMs: number | null;
  readonly snapshot: SnapshotName | null;
  /** Of what is being sent, or was sent last. */
  readonly sentBytes: number;
  readonly totalBytes: number | null;
  /** All that was sent there since this node has begun to; only grows. */
  readonly everSentBytes: number;
  readonly problem: string | null;
};

export function createWork(
  storage: Storage,
  id: DatasetId,
  { pruneAtMs, pruneByMs }: Pick<Work, 'pruneAtMs' | 'pruneByMs'>,
): Work {
  return {
    id,
    targets: new Map(),
    holds: createHolds(storage, id),
    stop: new AbortController(),
    mark: null,
    touched: true,
    history: null,
    newest: null,
    takenAtMs: new Map(),
    checkAtMs: 0,
    isAttended: false,
    pruneAtMs,
    pruneByMs,
    restsWith: null,
    unchanged: 0,
    cycleMs: 0,
    syncs: 0,
  };
}

export function targetOf(work: Work, node: NodeName): Target {
  const known = work.targets.get(node);
  if (known !== undefined) return known;
  const made: Target = {
    node,
    stop: new AbortController(),
    copy: null,
    sending: null,
    isThinned: false,
    sentBytes: 0,
    totalBytes: null,
    everSentBytes: 0,
    failures: 0,
    retryAtMs: 0,
    problem: null,
    currentAtMs: null,
    complete: null,
  };
  work.targets.set(node, made);
  return made;
}

/** All that is known of its content may be old: to be looked at then. */
export function touch(work: Work, atMs: number): void {
  work.touched = true;
  work.history = null;
  work.mark = null;
  work.unchanged = 0;
  work.checkAtMs = Math.min(work.checkAtMs, atMs);
}

/** When the next of them is due, at the latest then. */
export function nextCheckMs(works: Iterable<Work>, latestMs: number): number {
  let next = latestMs;
  for (const { checkAtMs, isAttended } of works) if (checkAtMs < next && !isAttended) next = checkAtMs;
  return next;
}

/** Forgets the others and ends what is being sent to them, unless somebody waits for it. */
export function dropTargets(work: Work, kept: readonly NodeName[]): void {
  if (work.syncs > 0) return;
  for (const [node, { stop }] of work.targets) {
    if (kept.includes(node)) continue;
    work.targets.delete(node);
    stop.abort(new FlockError('not-owner', `node ${node} is to have no copy of ${work.id} any more`));
  }
}

export function has(target: Target, identity: string | undefined): boolean {
  return identity !== undefined && target.copy?.snapshots?.at(-1)?.identity === identity;
}

/** A snapshot was made of all that the volume had at that time. */
export function noteTaken(work: Work, newest: NonNullable<Work['newest']>): void {
  work.newest = newest;
  work.takenAtMs.set(newest.identity, newest.atMs);
  const [oldest] = work.takenAtMs.keys();
  if (work.takenAtMs.size > takenMax && oldest !== undefined) work.takenAtMs.delete(oldest);
}

/** So many newer ones may there be when one has arrived at a slow copy. */
const takenMax = 256;

/** The copy has this snapshot, which was everything at that time. */
export function noteComplete(target: Target, { identity, atMs }: Complete): void {
  target.currentAtMs = atMs;
  target.complete = { identity, atMs };
}

/** See `Replicator.complete`. What is at rest was not changed since. */
export function completeOf(work: Work, target: Target, isMounted: boolean, now: number): Complete | null {
  const identity = work.newest?.identity;
  const isAtRest = !isMounted && !work.touched && !work.isAttended && work.restsWith !== null;
  if (identity !== undefined && isAtRest && has(target, identity)) return { identity, atMs: now };
  // Also while something newer is on its way, as it is most of the time of a volume that is written a lot.
  return target.complete;
}

export async function historyOf(storage: Storage, work: Work): Promise<readonly Snapshot[]> {
  work.history ??= await storage.snapshots(work.id);
  return work.history;
}

export function statusOf(work: Work, target: Target, now: number): CopyStatus {
  const synced = has(target, work.newest?.identity);
  const state = synced
    ? 'in-sync'
    : target.sending !== null
      ? 'sending'
      : target.problem !== null
        ? 'waiting'
        : 'behind';
  return {
    node: target.node,
    state,
    lagMs: target.currentAtMs === null ? null : synced ? 0 : now - target.currentAtMs,
    snapshot: target.copy?.snapshots?.at(-1)?.name ?? null,
    sentBytes: target.sentBytes,
    totalBytes: target.totalBytes,
    everSentBytes: target.everSentBytes,
    problem: target.problem,
  };
}
