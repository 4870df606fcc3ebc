import type { FailoverView } from '../../controller/model/api.ts';
import { completeUntilMs, newestOf } from '../../controller/model/copy-order.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { policyOf } from '../../controller/model/failover.ts';
import { type NodeName, quote, type VolumeName } from '../../controller/model/names.ts';
import { parseReplicationSnapshot } from '../../controller/model/replication.ts';
import type { Candidates } from './candidates.ts';
import type { Directory } from './directory.ts';
import type { Clock } from './ports.ts';

export type PreviewParts = {
  readonly node: NodeName;
  readonly clock: Clock;
  readonly directory: Directory;
  readonly candidates: Candidates;
  readonly guardMs: number;
};

/** What a takeover of the volume would find now, and what it would lose; every node can tell. Changes nothing. */
export async function previewFailover(
  { node, clock, directory, candidates, guardMs }: PreviewParts,
  name: VolumeName,
  signal: AbortSignal,
): Promise<FailoverView> {
  const seen = directory.byName(name);
  if (seen === null) throw new FlockError('volume-not-found', `there is no volume ${quote(name)}`);
  const { doc, freeSinceMs } = seen;
  const isDead = (one: NodeName) => directory.node(one)?.alive == null;
  const known = await candidates.ask(
    doc.id,
    doc.replicas.filter((one) => !isDead(one)),
    signal,
  );
  const now = clock.bootMs();
  const goneMs = Math.max(freeSinceMs ?? now, directory.node(doc.owner)?.deadSinceMs ?? 0);
  const answers = [...known].flatMap(([one, answer]) => (answer === null ? [] : [{ ...answer, node: one }]));
  const copies = doc.replicas.map((one): FailoverView['copies'][number] => {
    const answer = answers.find((answered) => answered.node === one) ?? null;
    const snapshot = answer?.state.snapshots?.at(-1)?.name ?? null;
    const state = isDead(one) ? 'dead' : answer === null ? 'silent' : snapshot === null ? 'none' : 'answers';
    const taken = snapshot === null ? null : parseReplicationSnapshot(snapshot);
    const asOfMs = answer === null ? null : completeUntilMs(answer, answers);
    return {
      node: one,
      state,
      snapshot,
      takenAtMs: taken?.timeMs ?? null,
      lossMs: asOfMs === null ? null : Math.max(0, goneMs - asOfMs),
    };
  });
  const found = newestOf(answers.filter(({ state }) => (state.snapshots ?? []).length > 0));
  const newest = found.copies.map((one) => one.node);
  // This node where another one is not better: nothing has to be asked of that one then.
  const best = newest.includes(node) ? node : (newest[0] ?? null);
  const decision = best === null ? null : candidates.decide(seen, { cause: 'automatic', force: false }, known, best);
  const reason =
    decision === null ? 'no copy answers' : 'reason' in decision ? decision.reason : 'it is about to be taken over';
  return {
    volume: doc.name,
    owner: doc.owner,
    isOwnerAlive: !isDead(doc.owner),
    isHeld: freeSinceMs === null,
    waitMs: freeSinceMs === null ? null : Math.max(0, freeSinceMs + guardMs - now),
    policy: policyOf(doc.options),
    maxLossMs: doc.options.maxLossMs,
    copies,
    best,
    reason,
  };
}
