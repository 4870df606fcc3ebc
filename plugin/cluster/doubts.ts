import { policyOf } from '../../controller/model/failover.ts';
import type { DatasetId, NodeName } from '../../controller/model/names.ts';
import type { Candidates } from './candidates.ts';
import type { Directory, SeenVolume } from './directory.ts';
import type { Clock } from './ports.ts';
import type { Promises } from './promises.ts';

/**
 * An owner without a session goes on by promises of all listed nodes, so where one of them gives it none for a guard time, it stands
 * still, and what the others go on promising only keeps them from taking the volume. They stop it then.
 */
export type Doubts = {
  /** Of a volume that would be taken but for this node's promise. Never rejects. */
  look(seen: SeenVolume, signal: AbortSignal): Promise<void>;
};

export type DoubtParts = {
  readonly node: NodeName;
  readonly clock: Clock;
  readonly directory: Directory;
  readonly candidates: Candidates;
  readonly promises: Promises;
  readonly guardMs: number;
};

const periodMs = 1_500;

type Doubt = { readonly askedAtMs: number; readonly sinceMs: number | null };

export function createDoubts({ node, clock, directory, candidates, promises, guardMs }: DoubtParts): Doubts {
  const doubts = new Map<DatasetId, Doubt>();
  return {
    async look({ doc }, signal) {
      const now = clock.bootMs();
      const before = doubts.get(doc.id) ?? null;
      if (policyOf(doc.options) !== 'auto' || (before !== null && now - before.askedAtMs < periodMs)) return;
      // What was seen long ago was another time.
      const sinceMs = before !== null && now - before.askedAtMs < guardMs ? before.sinceMs : null;
      doubts.set(doc.id, { askedAtMs: now, sinceMs });
      const others = doc.replicas.filter((name) => name !== node && directory.node(name)?.alive != null);
      const answers = await candidates.ask(doc.id, others, signal);
      const isUseless = [...answers.values()].some((answer) => answer?.state.promisedMs === 0);
      doubts.set(doc.id, { askedAtMs: now, sinceMs: isUseless ? (sinceMs ?? now) : null });
      if (isUseless && sinceMs !== null && now - sinceMs >= guardMs) promises.refuse(doc.id, now + 2 * guardMs);
      for (const [id, { askedAtMs }] of doubts) if (now - askedAtMs > forgottenMs) doubts.delete(id);
    },
  };
}

const forgottenMs = 60_000;
