import assert from 'node:assert/strict';
import { judgePool, type PoolHealth, poolLostAfterMs } from '../../plugin/cluster/retreat.ts';
import type { PoolStatus } from '../../plugin/storage/storage.ts';

const online: PoolStatus = { state: 'online', name: 'p', sizeBytes: 1, freeBytes: 1, warning: null };
const readOnly: PoolStatus = { ...online, state: 'read-only' };
const reason = 'why';
const [failed, missing, unusable] = (['failed', 'missing', 'unusable'] as const).map(
  (state): PoolStatus => ({ state, name: 'p', reason }),
) as [PoolStatus, PoolStatus, PoolStatus];

/** Looks, one after the other: what the pool said, and when. */
function thought(
  looks: readonly (readonly [status: PoolStatus | null, nowMs: number])[],
  wouldHelp = true,
): PoolHealth {
  return looks.reduce<PoolHealth>((health, [status, nowMs]) => judgePool(health, { status, nowMs, wouldHelp }), {
    kind: 'well',
  });
}

describe('what to think of a pool', () => {
  const lost: PoolHealth = { kind: 'lost', hasRetreated: true };

  it('is that it is lost when it has said so for long enough, in whatever words', () => {
    for (const status of [readOnly, failed, missing]) {
      assert.deepEqual(thought([[status, 100]]), { kind: 'failing', sinceMs: 100 });
      assert.deepEqual(
        thought([
          [status, 100],
          [failed, 99 + poolLostAfterMs],
        ]),
        { kind: 'failing', sinceMs: 100 },
      );
      assert.deepEqual(
        thought([
          [status, 100],
          [missing, 100 + poolLostAfterMs],
        ]),
        lost,
      );
    }
  });

  it('is not changed by looks that failed or had no answer', () => {
    assert.deepEqual(
      thought([
        [unusable, 0],
        [null, 60_000],
        [unusable, 120_000],
      ]),
      { kind: 'well' },
    );
    assert.deepEqual(
      thought([
        [failed, 0],
        [null, 60_000],
      ]),
      { kind: 'failing', sinceMs: 0 },
    );
    assert.deepEqual(
      thought([
        [failed, 0],
        [failed, 10_000],
        [null, 20_000],
        [unusable, 30_000],
      ]),
      lost,
    );
  });

  it('is that it is well as soon as it can be written to', () => {
    assert.deepEqual(
      thought([
        [failed, 0],
        [online, 4_000],
        [failed, 6_000],
      ]),
      { kind: 'failing', sinceMs: 6_000 },
    );
    assert.deepEqual(
      thought([
        [failed, 0],
        [failed, 10_000],
        [online, 12_000],
      ]),
      { kind: 'well' },
    );
  });

  it('is no reason to give anything up that nobody else could take, until somebody can', () => {
    const kept = thought(
      [
        [failed, 0],
        [failed, 10_000],
      ],
      false,
    );
    assert.deepEqual(kept, { kind: 'lost', hasRetreated: false });
    const given = judgePool(kept, { status: failed, nowMs: 12_000, wouldHelp: true });
    assert.deepEqual(given, lost);
    assert.deepEqual(judgePool(given, { status: failed, nowMs: 14_000, wouldHelp: false }), lost);
  });
});
