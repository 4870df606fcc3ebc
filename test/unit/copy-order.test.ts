import assert from 'node:assert/strict';
import {
  type Copy,
  comparePositions,
  completeUntilMs,
  newestOf,
  positionOf,
} from '../../controller/model/copy-order.ts';
import { parseSnapshotName } from '../../controller/model/names.ts';
import { snapshotName } from '../../controller/model/replication.ts';
import { createRandom } from '../simulation/random.ts';

type Named = Copy & { readonly node: string };

/** `1.50`: made for replication in epoch 1; all else by people. Oldest first. */
const copy = (node: string, snapshots: string | null, asOfMs: number | null = null): Named => ({
  node,
  asOfMs,
  snapshots:
    snapshots?.split(' ').flatMap((text) => {
      if (text === '') return [];
      const [, epoch, timeMs] = /^(\d+)\.(\d+)$/.exec(text) ?? [];
      const name = epoch === undefined ? parseSnapshotName(text) : snapshotName(Number(epoch), Number(timeMs));
      return [{ name, identity: text }];
    }) ?? null,
});

const newest = (...copies: readonly Named[]) => newestOf(copies).copies.map(({ node }) => node);

describe('the newest of several copies', () => {
  it('is the one with the later replication snapshot: by epoch first, then by the place in it', () => {
    assert.deepEqual(newest(copy('a', '1.40'), copy('b', '1.50')), ['b']);
    assert.deepEqual(newest(copy('a', '1.40 2.10'), copy('b', '1.40 1.50')), ['a']);
    assert.deepEqual(newest(copy('a', '1.50'), copy('b', '1.40 1.50')), ['a', 'b']);
    assert.deepEqual(newest(copy('a', null), copy('b', 'h1'), copy('c', '')), ['b']);
    assert.deepEqual(newest(copy('a', null), copy('b', null)), ['a', 'b']);
  });

  it('is the one that has all of the other, whatever their replication snapshots say', () => {
    assert.deepEqual(newest(copy('a', '1.40 1.50 h1 h2'), copy('b', '1.40 h1 h2 h3')), ['b']);
    assert.deepEqual(newest(copy('a', '1.40 1.50 h1'), copy('b', '1.40 h1')), ['a', 'b']);
    assert.deepEqual(newest(copy('a', 'h1'), copy('b', 'h1 h2')), ['b']);
    // By way of a third one.
    assert.deepEqual(newest(copy('a', '1.40 1.50'), copy('b', '1.40 1.50 h1'), copy('c', '1.40 h1 h2')), ['c']);
  });

  it('is never a former owner’s with a tail of an earlier epoch', () => {
    const tail = copy('a', '1.40 1.50 h1 1.60 h2');
    assert.deepEqual(newest(tail, copy('b', '1.40 1.50 2.10')), ['b']);
    assert.deepEqual(newest(tail, copy('b', '1.40 1.50 2.10 h3'), copy('c', '1.50 h3')), ['b', 'c']);
    assert.deepEqual(newest(tail, copy('b', '1.40 1.50')), ['a'], 'unless the other has nothing that it has not');
  });

  it('is found without circles: a copy counts with what it has all of', () => {
    // b is later than a third one that is later than c, which has all of b.
    const [b, c, third] = [copy('b', '1.40 1.50 h1'), copy('c', '1.40 h1 h2'), copy('d', '1.45')];
    assert.deepEqual(newest(b, c, third), ['c']);
    assert.deepEqual(newest(c, third), ['d'], 'where nothing tells more');
  });

  it('is the same in whatever order they are looked at, and there always is one', () => {
    const random = createRandom(1);
    for (let round = 0; round < 200; round += 1) {
      const pool = Array.from({ length: 8 }, (_, at) =>
        random.chance(0.4) ? `h${at}` : `${random.whole(1, 3)}.${random.whole(1, 9)}`,
      );
      const copies = ['a', 'b', 'c', 'd'].map((node) => copy(node, pool.filter(() => random.chance(0.5)).join(' ')));
      const found = newestOf(copies);
      assert.ok(found.copies.length > 0);
      for (const order of ordersOf(copies)) {
        const again = newestOf(order);
        assert.deepEqual(again.reached, found.reached);
        assert.deepEqual(new Set(again.copies), new Set(found.copies), `round ${round}`);
      }
    }
  });

  it('tells how far it got, where that can be told', () => {
    assert.deepEqual(newestOf([copy('a', '1.50 h1'), copy('b', 'h1 h2')]).reached, { epoch: 1, timeMs: 50 });
    assert.equal(newestOf([copy('a', 'h1'), copy('b', 'h1 h2')]).reached, null);
    assert.equal(newestOf([copy('a', null)]).reached, null);
  });

  it('has everything up to when one has that it has all of', () => {
    const [a, b, c] = [copy('a', '1.50', 7), copy('b', '1.50 h1', 3), copy('c', '1.50 h2', 9)];
    assert.equal(completeUntilMs(b, [a, b, c]), 7);
    assert.equal(completeUntilMs(a, [a, b, c]), 7);
    assert.equal(completeUntilMs(copy('d', '1.50'), [b]), null);
  });
});

describe('positions of copies', () => {
  it('are those of the newest replication snapshot', () => {
    const of = (snapshots: string) => positionOf(copy('a', snapshots).snapshots ?? []);
    assert.equal(positionOf([]), null);
    assert.equal(of('h1'), null);
    assert.deepEqual(of('1.9000 2.5000 2.4000 h1'), { epoch: 2, timeMs: 5_000 });
    const [one, other] = [of('1.9000'), of('2.5000')];
    assert.ok(comparePositions(other, one) > 0 && comparePositions(one, other) < 0);
    assert.ok(comparePositions(one, null) > 0 && comparePositions(null, one) < 0);
    assert.equal(comparePositions(null, null), 0);
  });
});

function ordersOf<T>(all: readonly T[]): readonly (readonly T[])[] {
  if (all.length < 2) return [all];
  return all.flatMap((one) => ordersOf(all.filter((other) => other !== one)).map((rest) => [one, ...rest]));
}
