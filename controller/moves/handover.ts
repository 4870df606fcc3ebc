import { FlockError, hasCode } from '../model/errors.ts';
import { advance, type MoveDoc } from '../model/move.ts';
import { placedOn, type WorkloadDoc } from '../model/workload.ts';
import type { Stored } from '../program/view.ts';
import type { Operation } from '../store/store.ts';
import type { MoveTools } from './ports.ts';
import { isAt, putMove, putWorkload, readMove, readWorkload } from './records.ts';

/**
 * The one transaction after which the other node has everything: the volumes, the workloads' documents, and the record of the move, which
 * is at the next step by that. Where there are volumes it is the plugin's own; each document in it is compared, so whatever comes late fits
 * nowhere once the record has been changed.
 */
export type Handover = {
  readonly side: 'from' | 'to';
  /** When no more attempt is made (boot clock). */
  readonly untilBootMs: number;
  readonly note: string;
};

const againMs = 200;
/** Less is not worth a try: the plugin still has to send the last difference. */
const deadlineMsMin = 1_000;
const deadlineMsMax = 100_000;

/** Resolves when it is done, or when somebody else has changed the move's step. Throws when the step has failed. */
export async function handOver(
  tools: MoveTools,
  begun: MoveDoc,
  { side, untilBootMs, note }: Handover,
  signal: AbortSignal,
): Promise<void> {
  const { store, plugin, clock } = tools;
  const to = side === 'to' ? begun.to : begun.from;
  for (;;) {
    signal.throwIfAborted();
    const leftMs = untilBootMs - clock.bootMs();
    const found = await documentsOf(tools, begun).catch((error: unknown) => {
      // Who turns back has to write that down, and would wait for the store as well.
      if (leftMs >= deadlineMsMin && hasCode(error, 'store-unavailable')) return null;
      throw error;
    });
    if (found === null) {
      await clock.sleep(againMs, signal);
      continue;
    }
    const [current, workloads] = found;
    if (current === null || !isAt(current.doc, begun)) return;
    if (side === 'to' && current.doc.abort !== null)
      throw new FlockError('move-refused', `turned back: ${current.doc.abort}`);
    if (leftMs < deadlineMsMin) throw new FlockError('deadline-exceeded', 'it is too late to hand over the volumes');
    const moved = advance(current.doc, { kind: 'done', note }, clock.nowMs());
    const operations = [putMove(moved, current.index), ...placements(begun, workloads, side)];
    try {
      if (begun.volumes.length === 0) {
        const outcome = await store.transact(operations);
        if (outcome.kind === 'done') return;
      } else {
        const deadlineMs = Math.min(deadlineMsMax, Math.floor(leftMs));
        const volumes = begun.volumes.map(({ name }) => name);
        const bodies = operations.map(({ key, value, index }) => ({ key, value, index }));
        await plugin.handOver({ to, volumes, operations: bodies, deadlineMs }, signal);
        return;
      }
    } catch (error) {
      signal.throwIfAborted();
      // A second attempt is refused where the first one, whose answer was lost, has done it.
      if (!mayBeTriedAgain(error) && (await isStillAt(tools, begun))) throw error;
    }
    await clock.sleep(againMs, signal);
  }
}

/** The record and the workloads' documents as they are now. */
function documentsOf({ store }: MoveTools, { id, members }: MoveDoc) {
  return Promise.all([readMove(store, id), Promise.all(members.map(({ workload }) => readWorkload(store, workload)))]);
}

/** The workloads' documents with the other node in them. */
function placements(
  { id, members, from, to }: MoveDoc,
  workloads: readonly (Stored<WorkloadDoc> | null)[],
  side: Handover['side'],
): readonly (Operation & { readonly kind: 'compare-and-set' })[] {
  const [old, next] = side === 'to' ? [from, to] : [to, from];
  return members.map(({ name, sourceId, targetId }, index) => {
    const stored = workloads[index];
    if (stored?.doc.move !== id || stored.doc.node !== old)
      throw new FlockError('move-refused', `container ${name} is not part of this move on ${old} any more`);
    return putWorkload(placedOn(stored.doc, next, side === 'to' ? targetId : sourceId, 'moved'), stored.index);
  });
}

/** What may have been done, or could not be done just now. */
function mayBeTriedAgain(error: unknown): boolean {
  return hasCode(
    error,
    'document-changed',
    'store-unavailable',
    'node-unreachable',
    'deadline-exceeded',
    'not-ready',
    'volume-busy',
    'handoff-running',
    'too-many-requests',
  );
}

async function isStillAt({ store }: MoveTools, begun: MoveDoc): Promise<boolean> {
  const current = await readMove(store, begun.id).catch(() => null);
  return current === null || isAt(current.doc, begun);
}
