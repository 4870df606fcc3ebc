import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from './cluster/ports.ts';

/** Of the clock that goes on while the machine is suspended: the first number of /proc/uptime, in steps of 10 ms. */
export function bootMs(): number {
  const text = readFileSync('/proc/uptime', 'utf8');
  return Math.round(Number(text.split(' ')[0]) * 1000);
}

export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

export const hostClock: Clock = {
  bootMs,
  nowMs: () => Date.now(),
  sleep: (ms, signal) => sleep(ms, undefined, { signal }).catch(() => undefined),
  randomHex: (bytes) => randomBytes(bytes).toString('hex'),
};
