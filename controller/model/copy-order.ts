import { type Identified, parseReplicationSnapshot } from './replication.ts';

/**
 * Which of a volume's copies are the newest, for the choice of the one that becomes the volume. All that look at the same copies come to the
 * same choice, in whatever order they look.
 *
 * A copy that has another one's newest snapshot has all of that one. That proves it, and comes first: snapshots that people made say neither
 * epoch nor time (where they were received, the storage may say when that was), so a copy that catches up through them is newer than its
 * last replication snapshot says. Where it proves nothing, epoch and time of replication snapshots decide, and a copy counts with the best of
 * all that it has all of. Only so is the order one without circles: A may have all of B, B be later than C, and C be later than A's own last one.
 */
export type Copy = {
  /** Oldest first; null: there is nothing of the volume. */
  readonly snapshots: readonly Identified[] | null;
  /** Boot time up to when it certainly has everything; null: not known. */
  readonly asOfMs: number | null;
};

export type Position = { readonly epoch: number; readonly timeMs: number };

export type Newest<One extends Copy> = {
  /** That no other one is newer than, as they come: one, or several that are equally good. */
  readonly copies: readonly One[];
  /** How far they certainly got, all of them; null: they have no more than what people made, which may be of any age. */
  readonly reached: Position | null;
};

export function newestOf<One extends Copy>(copies: readonly One[]): Newest<One> {
  const own = new Map(copies.map((copy) => [copy, positionOf(copy.snapshots ?? [])]));
  const placed = copies.map((copy) => {
    const within = withinOf(copy, copies);
    return { copy, within, position: bestOf([...within].map((one) => own.get(one) ?? null)) };
  });
  const isNewer = (one: (typeof placed)[number], than: (typeof placed)[number]) => {
    const order = comparePositions(one.position, than.position);
    return order > 0 || (order === 0 && one.within.has(than.copy) && !than.within.has(one.copy));
  };
  return {
    copies: placed.filter((one) => !placed.some((other) => isNewer(other, one))).map(({ copy }) => copy),
    reached: bestOf([...own.values()]),
  };
}

/** Up to when the copy certainly has everything, by all that is known of these: what one has, whoever has all of that one has, too. */
export function completeUntilMs(copy: Copy, copies: readonly Copy[]): number | null {
  const known = [...withinOf(copy, copies)].flatMap(({ asOfMs }) => asOfMs ?? []);
  return known.length === 0 ? null : Math.max(...known);
}

/** How good snapshots are: first by epoch, then by the place in it. Never by the time on a clock of another epoch. */
export function positionOf(snapshots: readonly Pick<Identified, 'name'>[]): Position | null {
  return bestOf(snapshots.flatMap(({ name }) => parseReplicationSnapshot(name) ?? []));
}

function bestOf(positions: readonly (Position | null)[]): Position | null {
  return positions.reduce((best, one) => (comparePositions(one, best) > 0 ? one : best), null);
}

/** Above 0: the first is the better one. Nothing at all is worse than anything. */
export function comparePositions(one: Position | null, other: Position | null): number {
  if (one === null || other === null) return (one === null ? 0 : 1) - (other === null ? 0 : 1);
  return one.epoch === other.epoch ? one.timeMs - other.timeMs : one.epoch - other.epoch;
}

/** Those of which the copy has all, itself among them: their newest snapshot is there, or in one of which it has all. */
function withinOf<One extends Copy>(copy: One, copies: readonly One[]): ReadonlySet<One> {
  const within = new Set([copy]);
  // What is added on the way is gone through as well.
  for (const one of within) {
    const present = new Set(one.snapshots?.map(({ identity }) => identity));
    for (const other of copies) {
      const newest = other.snapshots?.at(-1);
      if (newest === undefined || present.has(newest.identity)) within.add(other);
    }
  }
  return within;
}
