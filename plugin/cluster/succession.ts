import type { FailoverView } from '../../controller/model/api.ts';
import type { DatasetId, VolumeName } from '../../controller/model/names.ts';
import { type AsOf, createAsOf } from './as-of.ts';
import { type CandidateParts, createCandidates } from './candidates.ts';
import type { Copies } from './copies.ts';
import { createFailover, type Failover, type FailoverParts } from './failover.ts';
import type { CopyState } from './ports.ts';
import { previewFailover } from './preview.ts';
import type { Replicated, Replicator } from './replicator.ts';
import { createTakeover, type Takeover, type TakeoverParts } from './takeover.ts';

/** What becomes of the volumes of dead owners, put together. */
export type Succession = {
  readonly takeover: Takeover;
  readonly failover: Failover;
  readonly asOf: AsOf;
  /** What is here of a volume, and up to when that is everything. */
  list(id: DatasetId): Promise<CopyState>;
  preview(name: VolumeName, signal: AbortSignal): Promise<FailoverView>;
};

export type SuccessionParts = Omit<CandidateParts, 'own'> &
  Omit<TakeoverParts, 'candidates'> &
  Omit<FailoverParts, 'candidates' | 'takeover'> & {
    readonly copies: Pick<Copies, 'list' | 'settle' | 'finish'>;
    readonly replicator: Replicator;
    readonly volumes: () => readonly Replicated[];
  };

export function createSuccession(parts: SuccessionParts): Succession {
  const { clock, copies, promises } = parts;
  const asOf = createAsOf(parts);
  const list = async (id: DatasetId): Promise<CopyState> => {
    const found = await copies.list(id);
    const asOfMs = asOf.of(id, found.snapshots);
    const known = { ...found, promisedMs: promises.givenForMs(id) };
    return asOfMs === null ? known : { ...known, asOfAgeMs: clock.bootMs() - asOfMs };
  };
  const candidates = createCandidates({ ...parts, own: list });
  const takeover = createTakeover({ ...parts, candidates });
  return {
    asOf,
    list,
    takeover,
    failover: createFailover({ ...parts, candidates, takeover }),
    preview: (name, signal) => previewFailover({ ...parts, candidates }, name, signal),
  };
}
