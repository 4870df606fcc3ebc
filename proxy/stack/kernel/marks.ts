/**
 * Every connection that the kernel carries for us has a number in its mark, by which it is counted, accepted and ended. A service
 * keeps its number, so that connections of before a restart are known. Pure.
 */

/**
 * Our bits of a connection's mark; the others are left alone. Not the ones between: some VPNs copy those to the packet's mark, where
 * they mean something to routing.
 */
export const markMask = 0xff00_ff00;

/** Not of a service: what comes from other nodes through inner ports, and what is being ended. */
export const reservedNumbers = { inner: 1, ending: 2 } as const;

const numbers = { first: 3, last: 0xffff } as const;
/** Numbers of services that are gone, which may still have connections. */
const goneMax = 1_000;

export function markOf(number: number): number {
  return (((number & 0xff00) << 16) | ((number & 0xff) << 8)) >>> 0;
}

export function numberOf(mark: number): number {
  return ((mark >>> 16) & 0xff00) | ((mark >>> 8) & 0xff);
}

export function hex(mark: number): string {
  return `0x${mark.toString(16).padStart(8, '0')}`;
}

/** Sets our bits of the mark, as a statement of nft. */
export function setMark(number: number): string {
  return `ct mark set ct mark and ${hex(~markMask >>> 0)} or ${hex(markOf(number))}`;
}

export type Numbers = ReadonlyMap<string, number>;

/**
 * Each service has the number that it had, new ones get one that was not used lately. `ending`: numbers that nobody may have. Services
 * for which there is none are left out.
 */
export function giveNumbers(services: Iterable<string>, had: Numbers, ending: ReadonlySet<number>): Numbers {
  const wanted = new Set(services);
  const given = new Map<string, number>();
  const gone: [string, number][] = [];
  for (const [service, number] of had) {
    if (ending.has(number)) continue;
    if (wanted.has(service)) given.set(service, number);
    else gone.push([service, number]);
  }
  // The youngest ones stay.
  for (const [service, number] of gone.toSorted(([, a], [, b]) => a - b).slice(-goneMax)) given.set(service, number);
  const used = new Set([...given.values(), ...ending]);
  let next = Math.max(numbers.first - 1, ...had.values()) + 1;
  for (const service of wanted) {
    if (given.has(service)) continue;
    const number = freeFrom(next, used);
    if (number === null) break;
    given.set(service, number);
    used.add(number);
    next = number + 1;
  }
  return given;
}

function freeFrom(start: number, used: ReadonlySet<number>): number | null {
  const size = numbers.last - numbers.first + 1;
  for (let step = 0; step < size; step += 1) {
    const number = numbers.first + ((start - numbers.first + step) % size);
    if (!used.has(number)) return number;
  }
  return null;
}
