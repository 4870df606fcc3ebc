import assert from 'node:assert/strict';
import { checkTiming, timings } from '../../controller/model/timing.ts';

describe('timing', () => {
  it('has two profiles that are safe and live', () => {
    assert.deepEqual(checkTiming('default'), []);
    assert.deepEqual(checkTiming('fast'), []);
  });

  it('has the times that the inequality was worked out with', () => {
    const { renewMs, fenceAfterMs, fenceMs, lockDelayMs, guardMs } = timings.default;
    assert.deepEqual([renewMs, fenceAfterMs, fenceMs, lockDelayMs, guardMs], [1000, 5000, 1000, 7000, 7000]);
    const fast = timings.fast;
    assert.deepEqual(
      [fast.renewMs, fast.fenceAfterMs, fast.fenceMs, fast.lockDelayMs, fast.guardMs],
      [500, 2500, 500, 3500, 3500],
    );
  });

  for (const [what, change, wanted] of [
    ['a guard that is too short', { guardMs: 6000 }, /^safety: .*6560 ms/],
    ['a guard that leans on the lock delay', { guardMs: 0, lockDelayMs: 60_000 }, /^safety/],
    ['an owner that stops too late', { fenceAfterMs: 6000 }, /^safety/],
    ['clocks too far apart', { clockRateErrorMax: 0.1 }, /^safety/],
    ['an owner that gives up during an election', { fenceAfterMs: 4000 }, /^liveness/],
    ['renews too seldom', { renewMs: 2000 }, /^liveness/],
    ['a lock delay beyond Consul', { lockDelayMs: 61_000 }, /60000/],
    ['a session below Consul', { sessionTtlMs: 5000 }, /session_ttl_min/],
    ['fencing in no time', { fenceMs: 0 }, /fenceMs/],
    ['what is no number', { renewMs: Number.NaN }, /renewMs is NaN/],
    ['a negative time', { slackMs: -1 }, /slackMs is -1/],
  ] as const) {
    it(`finds ${what}`, () => assert.match(checkTiming({ ...timings.default, ...change }).join('\n'), wanted));
  }
});
