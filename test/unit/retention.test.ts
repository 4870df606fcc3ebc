import assert from 'node:assert/strict';
import { parseSnapshotName, type SnapshotName } from '../../controller/model/names.ts';
import { parseReplicationSnapshot, snapshotName } from '../../controller/model/replication.ts';
import {
  defaultRetention,
  formatRetention,
  keptAtMost,
  keptMax,
  parseRetention,
  type RetentionGrid,
  selectExpired,
} from '../../controller/model/retention.ts';
import { refuses } from '../support/refuses.ts';

const secondMs = 1000;
const minuteMs = 60 * secondMs;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const startMs = Date.UTC(2026, 0, 1);

const at = (timeMs: number, epoch = 1) => ({ name: snapshotName(epoch, timeMs), held: false });
const timeOf = (name: SnapshotName) => parseReplicationSnapshot(name)?.timeMs ?? Number.NaN;

/** Snapshots that are left when one is made every `stepMs` and the grid is applied after each `applyEvery`th. */
function run(grid: RetentionGrid, stepMs: number, untilMs: number, applyEvery = 10) {
  let snapshots: { name: SnapshotName; held: boolean }[] = [];
  let most = 0;
  for (let count = 0; count * stepMs <= untilMs; count += 1) {
    const nowMs = startMs + count * stepMs;
    snapshots.push(at(nowMs));
    if (count % applyEvery !== 0) continue;
    const expired = new Set(selectExpired({ snapshots, grid, nowMs }));
    snapshots = snapshots.filter(({ name }) => !expired.has(name));
    most = Math.max(most, snapshots.length);
  }
  return { most, ages: snapshots.map(({ name }) => startMs + untilMs - timeOf(name)) };
}

describe('retention', () => {
  it('reads and writes its text', () => {
    assert.deepEqual(parseRetention('1h=all,24h=1h,7d=1d,30d=7d'), defaultRetention);
    assert.deepEqual(parseRetention(' 1h=ALL, 1d=1h'), defaultRetention.slice(0, 2));
    for (const text of ['1h=all', '10m=all,2h=10m', '30s=5s', '1h=all,1d=1h,1w=1d,30d=1w'])
      assert.equal(formatRetention(parseRetention(text)), text);
  });

  for (const text of [
    '',
    'all',
    '1h',
    '1h=',
    '1h=all=1',
    '1h=0',
    '1h=100ms',
    '1h=2h',
    '1h=1h',
    '0=all',
    '24h=1h,1h=all',
    '1h=all,1h=1h',
    '1h=10m,1d=1m',
    '30d=1m',
    '1x=all',
    '1h=some',
    Array.from({ length: 9 }, (_, index) => `${index + 1}d=1h`).join(),
  ]) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      refuses(() => parseRetention(text), 'invalid-option');
    });
  }

  it('keeps a snapshot a second within bounds, fine for the last minutes and coarse for the last month', () => {
    const { most, ages } = run(defaultRetention, secondMs, 2 * hourMs);
    assert.ok(most <= keptAtMost(defaultRetention) + 2 + 10, `${most}`);
    const within = (fromMs: number, toMs: number) => ages.filter((age) => age > fromMs && age <= toMs).length;
    assert.ok(within(-1, 5 * minuteMs) >= 30);
    assert.ok(within(5 * minuteMs, hourMs) >= 54 && within(5 * minuteMs, hourMs) <= 56);
    assert.ok(within(hourMs, 2 * hourMs) >= 1 && within(hourMs, 2 * hourMs) <= 2);
  });

  it('has an hourly, daily and weekly history after two months', () => {
    const { ages, most } = run(defaultRetention, 10 * minuteMs, 60 * dayMs, 6);
    assert.ok(most <= keptMax);
    const within = (from: number, to: number) => ages.filter((age) => age > from * dayMs && age <= to * dayMs).length;
    assert.ok(within(1 / 24, 1) >= 23 && within(1 / 24, 1) <= 24);
    assert.ok(within(1, 7) >= 6 && within(1, 7) <= 7);
    assert.ok(within(7, 30) >= 3 && within(7, 30) <= 5);
    assert.equal(within(30, 60), 0);
  });

  it('leaves nothing to do when it is applied twice, and chooses alike however often it is applied', () => {
    const often = run(defaultRetention, minuteMs, 3 * dayMs, 1).ages;
    const seldom = run(defaultRetention, minuteMs, 3 * dayMs, 1440).ages;
    assert.deepEqual(often, seldom);
    const snapshots = often.map((age) => at(startMs + 3 * dayMs - age));
    assert.deepEqual(selectExpired({ snapshots, grid: defaultRetention, nowMs: startMs + 3 * dayMs }), []);
  });

  const tight = parseRetention('10s=1s');
  const select = (snapshots: { name: SnapshotName; held: boolean }[], nowMs: number) =>
    selectExpired({ snapshots, grid: tight, nowMs });

  it('spares held ones, the newest two and what replication did not make', () => {
    const old = [0, 1, 2, 3].map((index) => at(startMs + index));
    const user = { name: parseSnapshotName('before-upgrade'), held: false };
    const other = { name: parseSnapshotName('flock.clone.1'), held: false };
    const last = at(startMs + dayMs);
    const [first, second, third, fourth] = old as [(typeof old)[0], (typeof old)[0], (typeof old)[0], (typeof old)[0]];
    assert.deepEqual(select([user, first, { ...second, held: true }, third, other, fourth, last], startMs + dayMs), [
      first.name,
      third.name,
    ]);
    assert.deepEqual(select([user, other], startMs + 1000 * dayMs), []);
  });

  it('takes the newest, and the last of an epoch, by epoch, not by the clock of their maker', () => {
    const behind = [at(startMs + 1, 2), at(startMs + 2, 2)];
    const ahead = [at(startMs + hourMs), at(startMs + hourMs + 1), at(startMs + hourMs + 2)];
    assert.deepEqual(select([...behind, ...ahead], startMs + 2 * hourMs), [ahead[1]?.name]);
  });

  it('destroys no history when the volume rests, nor for a clock that jumps', () => {
    const snapshots = [at(startMs), at(startMs + 1500), at(startMs + 3000), at(startMs + 4500)];
    assert.deepEqual(select(snapshots, startMs + 4500), []);
    assert.deepEqual(select(snapshots, startMs + 4500 + 365 * dayMs), []);
    const future = at(startMs + 365 * dayMs);
    assert.deepEqual(select([...snapshots, future], startMs + 5000), []);
  });
});
