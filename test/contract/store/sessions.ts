import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SessionId } from '../../../controller/store/store.ts';
import { until } from '../../support/until.ts';
import { conflicts, done, entryOf, lock, type StoreContext } from './context.ts';

export function sessionContract({ bench, here, there, prefix, session, watched }: StoreContext): void {
  it('gives every session a name of its own', async () => {
    const sessions = await Promise.all(Array.from({ length: 5 }, () => session()));
    assert.equal(new Set(sessions).size, 5);
  });

  it('renews a session from any client', async () => {
    const mine = await session();
    assert.equal(await here().renewSession(mine), true);
    assert.equal(await there().renewSession(mine), true);
  });

  it('says that a session is gone when it is renewed', async () => {
    const mine = await session();
    await there().destroySession(mine);
    assert.equal(await here().renewSession(mine), false);
    assert.equal(await here().renewSession('11111111-2222-3333-4444-555555555555' as SessionId), false);
    assert.equal(await here().renewSession('not one' as SessionId), false);
  });

  it('destroys a session that is gone without a word', async () => {
    const mine = await session();
    await here().destroySession(mine);
    await here().destroySession(mine);
    await here().destroySession('not one' as SessionId);
  });

  it('keeps a session that is renewed, and ends it with its locks when it is not', async () => {
    const { ttlMs } = bench();
    const key = `${prefix()}a`;
    const [mine, other] = [await session({ ttlMs }), await session()];
    await done(here().transact([lock(key, mine, 'mine')]));
    for (const end = performance.now() + 2.5 * ttlMs; performance.now() < end; await sleep(ttlMs / 4)) {
      assert.equal(await here().renewSession(mine), true);
    }
    await conflicts(there().transact([lock(key, other)]));
    await until('the session has ended', 30_000, async () =>
      (await entryOf(there(), key)).session === null ? true : undefined,
    );
    assert.equal(await here().renewSession(mine), false);
    assert.equal((await entryOf(there(), key)).value, 'mine');
    await done(there().transact([lock(key, other)]));
  });

  it('lets watches see the end of a session by its time, without anybody writing', async () => {
    const { ttlMs } = bench();
    const at = prefix();
    const mine = await session({ ttlMs });
    await done(here().transact([lock(`${at}a`, mine)]));
    const seen = watched(there(), at);
    await seen.until('the lock is seen', ([entry]) => entry?.session === mine);
    await seen.until('the lock is free', ([entry]) => entry?.session === null);
  });

  it('delays locks of a session whose time was over', async () => {
    const { ttlMs } = bench();
    const key = `${prefix()}a`;
    const mine = await session({ ttlMs, lockDelayMs: 2_000 });
    const other = await session();
    await done(here().transact([lock(key, mine)]));
    await until('the session has ended', 30_000, async () =>
      (await entryOf(there(), key)).session === null ? true : undefined,
    );
    await conflicts(there().transact([lock(key, other)]));
  });
}
