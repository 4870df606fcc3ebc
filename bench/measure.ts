/** Figures of one side of a comparison. Pure, but for `interleave`, which runs the sides. */

export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const index = Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1);
  const value = sorted[Math.max(0, index)];
  if (value === undefined) throw new Error('there is nothing to take a percentile of');
  return value;
}

/** The mean of the two in the middle where there are two: rounds are few. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  if (low === undefined || high === undefined) throw new Error('there is nothing to take a median of');
  return (low + high) / 2;
}

export type Rounds = {
  /** Not counted. */
  readonly warm: number;
  readonly counted: number;
  /** From here on no round is begun, if there were enough for a median. */
  readonly maxMs: number;
};

const countedMin = 5;

/**
 * Runs all sides in every round, each round beginning with another one, so that what else happens on the machine and what a side
 * leaves behind meets all of them alike. Answers the results of each side.
 */
export async function interleave<T>(
  rounds: Rounds,
  sides: readonly (() => Promise<T>)[],
): Promise<readonly (readonly T[])[]> {
  const results: T[][] = sides.map(() => []);
  const startMs = performance.now();
  for (let round = 0; round < rounds.warm + rounds.counted; round += 1) {
    if (round >= rounds.warm + countedMin && performance.now() - startMs > rounds.maxMs) break;
    for (let turn = 0; turn < sides.length; turn += 1) {
      const index = (round + turn) % sides.length;
      const result = await sides[index]?.();
      if (result !== undefined && round >= rounds.warm) results[index]?.push(result);
    }
  }
  return results;
}

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

/** Ratios of the rounds one by one: what slows the whole machine for a while slows both sides of a round. */
export function medianRatio(left: readonly number[], right: readonly number[]): number {
  return median(left.map((value, index) => value / (right[index] ?? Number.NaN)));
}
