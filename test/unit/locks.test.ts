import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { createLocks } from '../../plugin/locks.ts';
import { rejects } from '../support/refuses.ts';

const never = new AbortController().signal;

describe('locks', () => {
  it('runs one piece of work at a time per key, in order of arrival', async () => {
    const locks = createLocks();
    const seen: string[] = [];
    const work = (name: string) => async () => {
      seen.push(`${name} begins`);
      await turn();
      seen.push(`${name} ends`);
    };
    await Promise.all([
      locks.with('db', 'a', never, work('a')),
      locks.with('db', 'b', never, work('b')),
      locks.with('db', 'c', never, work('c')),
    ]);
    assert.deepEqual(seen, ['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
  });

  it('lets different keys run side by side', async () => {
    const locks = createLocks();
    let release = () => {};
    const held = locks.with('a', 'x', never, () => new Promise<void>((resolve) => (release = resolve)));
    await locks.with('b', 'y', never, () => Promise.resolve());
    release();
    await held;
  });

  it('goes on after work that failed', async () => {
    const locks = createLocks();
    await assert.rejects(
      locks.with('a', 'x', never, () => Promise.reject(new Error('no'))),
      /no/,
    );
    assert.equal(await locks.with('a', 'y', never, () => Promise.resolve(1)), 1);
  });

  it('says what a waiter was waiting for when its time is up, and forgets the waiter', async () => {
    const locks = createLocks();
    const gone = new AbortController();
    let release = () => {};
    const held = locks.with('db', 'snapshot', never, () => new Promise<void>((resolve) => (release = resolve)));
    const waiting = locks.with('db', 'mount', gone.signal, () => assert.fail('must not run'));
    gone.abort();
    assert.match((await rejects(waiting, 'volume-busy')).message, /db is busy with snapshot/);
    release();
    await held;
    assert.equal(await locks.with('db', 'again', never, () => Promise.resolve('free')), 'free');
  });

  it('has a limit for waiters', async () => {
    const locks = createLocks();
    let release = () => {};
    const all = [locks.with('db', 'first', never, () => new Promise<void>((resolve) => (release = resolve)))];
    for (let index = 0; index < 256; index += 1) all.push(locks.with('db', 'wait', never, () => Promise.resolve()));
    await rejects(
      locks.with('db', 'one more', never, () => Promise.resolve()),
      'too-many-requests',
    );
    release();
    await Promise.all(all);
  });
});
