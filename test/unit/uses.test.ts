import assert from 'node:assert/strict';
import { acquire, isKnown, release, type Use, useGraceMs, withoutLeaks } from '../../plugin/uses.ts';

const now = { held: true, ms: 1000 };
const unheld = { held: false, ms: 2000 };
const counts = (uses: readonly Use[]) => Object.fromEntries(uses.map((use) => [use.mountId, use.count]));

describe('uses of a volume', () => {
  it('counts each mount id on its own', () => {
    const uses = acquire(acquire(acquire([], 'a', now), 'b', now), 'a', now);
    assert.deepEqual(counts(uses), { a: 2, b: 1 });
  });

  it('survives docker cp on a running container, which mounts and unmounts the id that is mounted', () => {
    const running = acquire([], 'a', now);
    assert.deepEqual(counts(release(acquire(running, 'a', now), 'a')), { a: 1 });
  });

  it('ends when every id has been released as often as it was acquired', () => {
    const uses = acquire(acquire([], 'a', now), 'a', now);
    assert.deepEqual(counts(release(uses, 'a')), { a: 1 });
    assert.deepEqual(release(release(uses, 'a'), 'a'), []);
  });

  it('takes the release of an unknown id as done', () =>
    assert.deepEqual(counts(release(acquire([], 'a', now), 'b')), { a: 1 }));

  it('starts anew for an id that nobody holds: the daemon was killed and mounts again with the persisted id', () => {
    const before = acquire(acquire([], 'a', now), 'a', now);
    assert.equal(isKnown(before, 'a'), true);
    assert.deepEqual(acquire(before, 'a', unheld), [{ mountId: 'a', count: 1, sinceMs: 2000 }]);
  });

  it('gives young uses without a mount the benefit of the doubt', () => {
    const uses = acquire([], 'a', now);
    assert.deepEqual(withoutLeaks(uses, now.ms + useGraceMs - 1), uses);
    assert.deepEqual(withoutLeaks(uses, now.ms + useGraceMs), []);
  });
});
