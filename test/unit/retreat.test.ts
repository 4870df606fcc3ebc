import assert from 'node:assert/strict';
import {
  faultMsMax,
  judgePool,
  type PoolHealth,
  poolBackAfterMs,
  poolLostAfterMs,
} from '../../plugin/cluster/retreat.ts';
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
  const lost = (goodSinceMs: number | null = null): PoolHealth => ({ kind: 'lost', goodSinceMs });
  const failing = (sinceMs: number, lastMs = sinceMs, goodSinceMs: number | null = null): PoolHealth => ({
    kind: 'failing',
    sinceMs,
    lastMs,
    goodSinceMs,
  });

  it('is that it is lost when it has said so for long enough, in whatever words', () => {
    for (const status of [readOnly, failed, missing]) {
      assert.deepEqual(thought([status, 100]), failing(100));
      const late = 100 + poolLostAfterMs;
      assert.deepEqual(thought([status, 100], [failed, late - 1]), failing(100, late - 1));
      assert.deepEqual(thought([status, 100], [missing, late]), lost());
    }
  });

  it('is not changed by looks that failed or had no answer', () => {
    assert.deepEqual(thought([unusable, 0], [null, 60_000], [unusable, 120_000]), { kind: 'well' });
    assert.deepEqual(thought([failed, 0], [null, 10_000]), failing(0));
    assert.deepEqual(thought([failed, 0], [failed, 10_000], [null, 20_000], [unusable, 30_000]), lost());
  });

  it('begins anew after a while in which nothing was known', () => {
    const late = faultMsMax + 1;
    assert.deepEqual(thought([failed, 0], [unusable, 10_000], [failed, late]), failing(late));
  });

  it('is that it is well when it could be written to for a while, longer where it was lost', () => {
    const { failing: soon, lost: later } = poolBackAfterMs;
    assert.deepEqual(thought([failed, 0], [online, 1_000], [online, 999 + soon]), failing(0, 0, 1_000));
    assert.deepEqual(thought([failed, 0], [online, 1_000], [online, 1_000 + soon]), { kind: 'well' });
    const gone = [
      [failed, 0],
      [failed, 10_000],
      [online, 12_000],
    ] as const;
    assert.deepEqual(thought(...gone, [online, 11_999 + later]), lost(12_000));
    assert.deepEqual(thought(...gone, [online, 12_000 + later]), { kind: 'well' });
    assert.deepEqual(thought(...gone, [failed, 14_000], [online, 16_000]), lost(16_000), 'it begins anew');
  });

  it('is that it is lost, too, where it works for a moment now and then', () => {
    assert.deepEqual(thought([failed, 0], [online, 2_000], [failed, 4_000], [online, 5_000], [failed, 7_000]), lost());
  });
});
