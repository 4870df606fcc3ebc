/** All chance of a simulated run comes from one seed, so that a run can be repeated. */
export type Random = {
  /** From 0 to below 1. */
  next(): number;
  chance(share: number): boolean;
  /** A number from `min` to below `max`. */
  between(min: number, max: number): number;
  /** A whole number from `min` to `max`. */
  whole(min: number, max: number): number;
  pick<T>(from: readonly T[]): T;
  hex(digits: number): string;
};

/** splitmix32: short, fast, and good enough to choose faults with. */
export function createRandom(seed: number): Random {
  let state = (seed * 0x9e3779b9) | 0;
  function next(): number {
    state = (state + 0x9e3779b9) | 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    mixed ^= mixed >>> 15;
    return (mixed >>> 0) / 2 ** 32;
  }
  return {
    next,
    chance: (share) => next() < share,
    between: (min, max) => min + next() * (max - min),
    whole: (min, max) => min + Math.floor(next() * (max - min + 1)),
    pick(from) {
      const chosen = from[Math.floor(next() * from.length)];
      if (chosen === undefined) throw new RangeError('nothing to pick from');
      return chosen;
    },
    hex: (digits) => Array.from({ length: digits }, () => Math.floor(next() * 16).toString(16)).join(''),
  };
}
