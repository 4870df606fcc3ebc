import { FlockError } from './errors.ts';
import { quote } from './names.ts';

const kibi = 1024;
const sizeUnits: Readonly<Record<string, number>> = {
  b: 1,
  k: kibi,
  m: kibi ** 2,
  g: kibi ** 3,
  t: kibi ** 4,
  p: kibi ** 5,
};
const secondsPerUnit: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
const msPerUnit: Readonly<Record<string, number>> = {
  ms: 1,
  ...Object.fromEntries(Object.entries(secondsPerUnit).map(([unit, seconds]) => [unit, 1000 * seconds])),
};

/**
 * Bytes of `512M`, `2.5G`, `10GiB` or `1048576`. Every unit is a power of 1024, as in ZFS and in `docker run --memory`.
 * Throws `invalid-option` for anything else, for zero and for more than 2^53 - 1.
 */
export function parseSize(text: string): number {
  const match = /^(\d{1,16}(?:\.\d{1,9})?)\s?(?:([bkmgtp])|([kmgtp])i?b)?$/i.exec(text.trim());
  const unit = (match?.[2] ?? match?.[3] ?? 'b').toLowerCase();
  const bytes = match === null ? Number.NaN : Math.floor(Number(match[1]) * (sizeUnits[unit] ?? Number.NaN));
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new FlockError(
    'invalid-option',
    `invalid size ${quote(text)}: use a number above 0 with an optional unit, such as 512M, 2.5G, 10GiB or 1048576`,
  );
}

export function formatSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= kibi && unit < units.length - 1) {
    value /= kibi;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits).replace(/\.0$/, '')} ${units[unit]}`;
}

/** A hundred years of 365 days: now and as much again is far within what a Date can hold (8.64e15 ms). */
export const durationMsMax = 100 * 365 * 86_400_000;

/** Milliseconds of `0`, `100ms`, `90s`, `24h`, `7d`, `2w`; at most `durationMsMax`. Throws `invalid-option`. */
export function parseDuration(text: string): number {
  if (text.trim() === '0') return 0;
  const match = /^(\d{1,9})(ms|[smhdw])$/.exec(text.trim());
  const ms = match === null ? Number.NaN : Number(match[1]) * (msPerUnit[match[2] ?? ''] ?? Number.NaN);
  if (ms <= durationMsMax) return ms;
  if (ms > durationMsMax)
    throw new FlockError('invalid-option', `duration ${quote(text)} is too long: at most 100 years (36500d)`);
  throw new FlockError(
    'invalid-option',
    `invalid duration ${quote(text)}: use a whole number with a unit (ms, s, m, h, d, w), such as 24h or 7d, or 0`,
  );
}

export function formatDuration(ms: number): string {
  if (ms % 1000 !== 0) return `${Math.round(ms)}ms`;
  const seconds = Math.round(ms / 1000);
  for (const unit of ['w', 'd', 'h', 'm']) {
    const size = secondsPerUnit[unit] ?? 1;
    if (seconds >= size && seconds % size === 0) return `${seconds / size}${unit}`;
  }
  return seconds === 0 ? '0' : `${seconds}s`;
}

/** How long ago, in the largest unit that fits, for tables. */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
