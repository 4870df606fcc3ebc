import type { DatasetId } from '../../controller/model/names.ts';
import { type AsOf, createAsOf } from './as-of.ts';
import { type CandidateParts, type Candidates, createCandidates } from './candidates.ts';
import type { Copies } from './copies.ts';
import { createFailover, type Failover, type FailoverParts } from './failover.ts';
import type { CopyState } from './ports.ts';
import type { Replicated, Replicator } from './replicator.ts';
import { createTakeover, type Takeover, type TakeoverParts } from './takeover.ts';

/** What becomes of the volumes of dead owners, put together. */
export type Succession = {
  readonly candidates: Candidates;
  readonly takeover: Takeover;
  readonly failover: Failover;
  readonly asOf: AsOf;
  /** What is here of a volume, and up to when that is everything. */
  list(id: DatasetId): Promise<CopyState>;
};

export type SuccessionParts = Omit<CandidateParts, 'own'> &
  Omit<TakeoverParts, 'candidates'> &
  Omit<FailoverParts, 'candidates' | 'takeover'> & {
    readonly copies: Pick<Copies, 'list'>;
    readonly replicator: Replicator;
    readonly volumes: () => readonly Replicated[];
  };

export function createSuccession(parts: SuccessionParts): Succession {
  const { clock, copies } = parts;
  const asOf = createAsOf(parts);
  const list = async (id: DatasetId): Promise<CopyState> => {
    const found = await copies.list(id);
    const asOfMs = asOf.of(id, found.snapshots?.at(-1)?.identity);
    return asOfMs === null ? found : { ...found, asOfAgeMs: clock.bootMs() - asOfMs };
  };
  const candidates = createCandidates({ ...parts, own: list });
  const takeover = createTakeover({ ...parts, candidates });
  return { asOf, list, candidates, takeover, failover: createFailover({ ...parts, candidates, takeover }) };
}
