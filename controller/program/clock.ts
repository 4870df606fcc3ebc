import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { hostClock as bootClock } from '../store/embedded.ts';
import type { Clock } from './home.ts';

const boot = bootClock();

export const hostClock: Clock = {
  bootMs: () => boot.nowMs(),
  nowMs: () => Date.now(),
  randomHex: (bytes) => randomBytes(bytes).toString('hex'),
  sleep: (ms, signal) => sleep(ms, undefined, { signal }).catch(() => undefined),
};
