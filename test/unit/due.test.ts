import assert from 'node:assert/strict';
import { createDue } from '../../controller/program/due.ts';

describe('what is done again later', () => {
  it('waits twice as long after each further failure, and begins anew once it was done', () => {
    let nowMs = 1_000;
    const due = createDue({ bootMs: () => nowMs });
    const fail = () => {
      due.failed('image a', 30, 100);
      const waitMs = due.waitMs('image a');
      nowMs += waitMs;
      assert.equal(due.waitMs('image a'), 0);
      return waitMs;
    };
    assert.deepEqual([fail(), fail(), fail(), fail()], [30, 60, 100, 100]);
    due.done('image a', 500);
    assert.equal(due.waitMs('image a'), 500);
    assert.equal(fail(), 30);
    assert.equal(due.waitMs('image b'), 0, 'each by itself');
  });

  it('waits as long each time where no more was said, and is forgotten when nobody tries it any more', () => {
    let nowMs = 1_000;
    const due = createDue({ bootMs: () => nowMs });
    due.failed('make a', 30);
    due.failed('make a', 30);
    assert.equal(due.waitMs('make a'), 30);
    due.failed('image a', 30, 100);
    nowMs += 1_000_000;
    due.failed('make b', 30);
    due.failed('image a', 30, 100);
    assert.equal(due.waitMs('image a'), 30);
  });
});
