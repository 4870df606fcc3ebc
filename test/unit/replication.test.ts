import assert from 'node:assert/strict';
import { parseSnapshotName, type SnapshotName } from '../../controller/model/names.ts';
import {
  historyFrom,
  type Identified,
  isCovered,
  nextInterval,
  parseReplicationSnapshot,
  planTransfer,
  snapshotName,
  snapshotTimeMs,
  type Transfer,
} from '../../controller/model/replication.ts';

/** `s1` is the snapshot s1 with identity s1; `s1:x` has identity x. */
const list = (text: string): Identified[] =>
  text
    .split(' ')
    .filter((part) => part !== '')
    .map((part) => {
      const [name = '', identity = name] = part.split(':');
      return { name: parseSnapshotName(name), identity };
    });
const plan = (owner: string, replica: string | null, ownerEpoch = 1, replicaEpoch = 1) =>
  planTransfer({ owner: list(owner), replica: replica === null ? null : list(replica), ownerEpoch, replicaEpoch });
const say = (transfer: Transfer): string => {
  if (transfer.kind === 'incremental') return `${transfer.from.name} -> ${transfer.to.name}`;
  if (transfer.kind === 'full') return `full ${transfer.to.name}`;
  if (transfer.kind === 'diverged') return `diverged at ${transfer.common}, only ${transfer.replicaOnly.join(' ')}`;
  return transfer.kind;
};

describe('what to send', () => {
  for (const [owner, replica, wanted] of [
    ['a b c', null, 'full c'],
    ['a b c', 'a b c', 'in-sync'],
    ['a b c', 'c', 'in-sync'],
    ['a b c d', 'a b', 'b -> d'],
    ['b d', 'a b', 'b -> d'],
    ['a b c', 'a x b', 'b -> c'],
    ['a b c', 'a b x', 'diverged at b, only x'],
    ['a b', 'a b x y', 'diverged at b, only x y'],
    ['a b', 'x y', 'diverged at null, only x y'],
    ['a b', '', 'diverged at null, only '],
    ['a b:1', 'a b:2', 'diverged at a, only b'],
    ['a b:1 c', 'a other:1', 'b -> c'],
    ['a b:1 c', 'a other:1 x', 'diverged at other, only x'],
    ['', null, 'refused'],
    ['', 'a', 'refused'],
  ] as const) {
    it(`owner ${owner || 'none'}, replica ${replica ?? 'not there'}: ${wanted}`, () =>
      assert.equal(say(plan(owner, replica)), wanted));
  }

  it('refuses a sender of an older epoch, whatever it has', () => {
    for (const replica of [null, 'a', 'a b', 'x']) assert.equal(plan('a b', replica, 2, 3).kind, 'refused');
    assert.equal(plan('a b', 'a', 3, 2).kind, 'incremental');
  });
});

describe('snapshots of a copy that its owner has not got', () => {
  const at = (epoch: number, timeMs: number) => snapshotName(epoch, timeMs);
  const owner = [at(1, 1_000), at(1, 3_000), at(2, 9_000)].map((name) => ({ name }));
  const cases: readonly (readonly [string, readonly SnapshotName[], boolean])[] = [
    ['are covered by a later one of the same epoch', [at(1, 2_000)], true],
    ['are not when one is the last of its epoch', [at(1, 2_000), at(1, 3_001)], false],
    ['are not by one of the same time, which would be another one', [at(1, 3_000)], false],
    ['are not by a later epoch', [at(1, 8_000)], false],
    ['are not by an earlier one', [at(3, 1)], false],
    ['are not when people made one of them', [at(1, 2_000), parseSnapshotName('mine')], false],
    ['are not when there are none, for then nobody knows what the data is', [], false],
  ];
  for (const [what, names, expected] of cases)
    it(what, () => {
      assert.equal(isCovered(names, owner, []), expected);
      assert.equal(isCovered(names, [], []), false);
    });

  describe('but the history has that far', () => {
    const reached = [
      { epoch: 1, timeMs: 5_000 },
      { epoch: 3, timeMs: 20_000 },
    ];
    for (const [what, names, expected] of [
      ['are covered up to there', [at(1, 4_000), at(1, 5_000), at(3, 20_000)], true],
      ['are not after it', [at(1, 4_000), at(1, 5_001)], false],
      ['are not in an epoch of which it says nothing', [at(4, 1)], false],
      ['are covered by a later one of the owner as before', [at(2, 8_000)], true],
      ['are not when people made one of them', [at(1, 4_000), parseSnapshotName('mine')], false],
    ] as const)
      it(what, () => assert.equal(isCovered(names, owner, reached), expected));

    it('are not when the owner has another one of that name', () =>
      assert.equal(isCovered([at(1, 3_000)], owner, [{ epoch: 1, timeMs: 3_000 }]), false));
  });
});

describe('what an epoch’s history has of those before it', () => {
  const history = (epoch: number, ...bases: readonly (readonly [began: number, epoch: number, timeMs: number])[]) =>
    historyFrom(
      epoch,
      bases.map(([began, of, timeMs]) => ({ began, epoch: of, timeMs })),
    ).map(({ epoch: of, timeMs }) => [of, timeMs]);

  it('is what each one began with, back to the first', () =>
    assert.deepEqual(history(3, [2, 1, 100], [3, 2, 200]), [
      [2, 200],
      [1, 100],
    ]));

  it('is nothing of an epoch that was passed over, nor what that one had', () => {
    // Epoch 2 had 1 up to 100; epoch 3 was taken by force with 1 up to 50.
    assert.deepEqual(history(3, [2, 1, 100], [3, 1, 50]), [[1, 50]]);
    // Epoch 4 goes back to 2, which had 1 up to 50; 3 had more of 1.
    assert.deepEqual(history(4, [2, 1, 50], [3, 1, 100], [4, 2, 200]), [
      [2, 200],
      [1, 50],
    ]);
  });

  it('ends where it is not known, and at what can’t be', () => {
    assert.deepEqual(history(3, [2, 1, 100]), []);
    assert.deepEqual(history(4, [2, 1, 100], [4, 3, 300]), [[3, 300]]);
    assert.deepEqual(history(2, [2, 2, 100]), []);
  });
});

describe('the interval of replication', () => {
  const next = (intervalMs: number, lastCycleMs: number, unchangedChecks = 0) =>
    nextInterval({ intervalMs, lastCycleMs, unchangedChecks });

  it('keeps to a part of what may be lost, where that is limited', () => {
    const limited = { intervalMs: 1000, maxLossMs: 12_000 };
    assert.equal(nextInterval({ ...limited, lastCycleMs: 0, unchangedChecks: 100 }), 1000);
    assert.equal(nextInterval({ ...limited, lastCycleMs: 1_000, unchangedChecks: 0 }), 2000);
    assert.equal(nextInterval({ ...limited, lastCycleMs: 8_000, unchangedChecks: 0 }), 3000);
    assert.equal(nextInterval({ ...limited, maxLossMs: 0, lastCycleMs: 8_000, unchangedChecks: 0 }), 1000);
  });

  it('is what was asked for, or twice the last cycle', () => {
    assert.equal(next(1000, 70), 1000);
    assert.equal(next(100, 70), 140);
    assert.equal(next(1000, 3000), 6000);
    assert.equal(next(1000, 3_600_000), 60_000);
    assert.equal(next(600_000, 3_600_000), 600_000);
  });

  it('grows for a volume that rests, within a limit', () => {
    assert.equal(next(1000, 0, 29), 1000);
    assert.equal(next(1000, 0, 30), 2000);
    assert.equal(next(1000, 0, 31), 4000);
    for (const checks of [33, 1e3, 1e9]) assert.equal(next(1000, 0, checks), 5000);
    assert.equal(next(60_000, 0, 1e9), 60_000);
  });
});

describe('names of replication snapshots', () => {
  it('come back as they were made, and sort by time', () => {
    const timeMs = Date.UTC(2026, 10, 23, 3, 28, 48, 123);
    assert.equal(snapshotName(3, timeMs), 'flock.r.3.20261123T032848123Z');
    for (const epoch of [1, 7, 999_999_999_999])
      assert.deepEqual(parseReplicationSnapshot(snapshotName(epoch, timeMs)), { epoch, timeMs });
    assert.ok(snapshotName(3, timeMs) < snapshotName(3, timeMs + 1));
    for (const [epoch, time] of [
      [0, 0],
      [1.5, 0],
      [-1, 0],
      [1, -1e12 * 100],
      [1, Number.NaN],
    ] as const)
      assert.throws(() => snapshotName(epoch, time));
  });

  it('are told from all others', () => {
    for (const text of [
      'before-upgrade',
      'flock.clone.1',
      'flock.r.3',
      'flock.r.0.20261123T032848123Z',
      'flock.r.03.20261123T032848123Z',
      'flock.r.3.20260230T032848123Z',
      'flock.r.3.20261123T032848123',
      'flock.r.3.20261123T032848123Zx',
    ])
      assert.equal(parseReplicationSnapshot(parseSnapshotName(text)), null, text);
  });

  it('never come twice where the clock steps back', () => {
    const made = (timeMs: number) => [{ name: snapshotName(2, timeMs) }];
    assert.equal(snapshotTimeMs(1000, [], undefined), 1000);
    assert.equal(snapshotTimeMs(1000, made(900), undefined), 1000);
    assert.equal(snapshotTimeMs(1000, made(1000), undefined), 1001);
    assert.equal(snapshotTimeMs(1000, made(5000), undefined), 5001);
  });

  it('are later than those that a rollback took away', () => {
    assert.equal(snapshotTimeMs(1000, [], 5000), 5001);
    assert.equal(snapshotTimeMs(1000, [{ name: snapshotName(2, 900) }], 5000), 5001);
    assert.equal(snapshotTimeMs(1000, [{ name: snapshotName(2, 6000) }], 5000), 6001);
    assert.equal(snapshotTimeMs(1000, [{ name: snapshotName(2, 900) }], 999), 1000);
  });
});
