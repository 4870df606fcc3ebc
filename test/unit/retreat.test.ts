import assert from 'node:assert/strict';
import { faultMsMax, judgePool, type PoolHealth, poolLostAfterMs } from '../../plugin/cluster/retreat.ts';
import type { PoolStatus } from '../../plugin/storage/storage.ts';

const online: PoolStatus = { state: 'online', name: 'p', sizeBytes: 1, freeBytes: 1, warning: null };
const readOnly: PoolStatus = { ...online, state: 'read-only' };
const reason = 'why';
const [failed, missing, unusable] = (['failed', 'missing', 'unusable'] as const).map(
  (state): PoolStatus => ({ state, name: 'p', reason }),
) as [PoolStatus, PoolStatus, PoolStatus];

/** Looks, one after the other: what the pool said, and when. */
function thought(...looks: readonly (readonly [status: PoolStatus | null, nowMs: number])[]): PoolHealth {
  return looks.reduce<PoolHealth>((health, [status, nowMs]) => judgePool(health, status, nowMs), { kind: 'well' });
}

describe('what to think of a pool', () => {
  const lost: PoolHealth = { kind: 'lost' };
  const failing = (sinceMs: number, lastMs = sinceMs): PoolHealth => ({ kind: 'failing', sinceMs, lastMs });

  it('is that it is lost when it has said so for long enough, in whatever words', () => {
    for (const status of [readOnly, failed, missing]) {
      assert.deepEqual(thought([status, 100]), failing(100));
      const late = 100 + poolLostAfterMs;
      assert.deepEqual(thought([status, 100], [failed, late - 1]), failing(100, late - 1));
      assert.deepEqual(thought([status, 100], [missing, late]), lost);
    }
  });

  it('is not changed by looks that failed or had no answer', () => {
    assert.deepEqual(thought([unusable, 0], [null, 60_000], [unusable, 120_000]), { kind: 'well' });
    assert.deepEqual(thought([failed, 0], [null, 10_000]), failing(0));
    assert.deepEqual(thought([failed, 0], [failed, 10_000], [null, 20_000], [unusable, 30_000]), lost);
  });

  it('begins anew after a while in which nothing was known', () => {
    const late = faultMsMax + 1;
    assert.deepEqual(thought([failed, 0], [unusable, 10_000], [failed, late]), failing(late));
  });

  it('is that it is well as soon as it can be written to', () => {
    assert.deepEqual(thought([failed, 0], [online, 4_000], [failed, 6_000]), failing(6_000));
    assert.deepEqual(thought([failed, 0], [failed, 10_000], [online, 12_000]), { kind: 'well' });
  });
});
