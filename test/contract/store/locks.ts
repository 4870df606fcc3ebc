import assert from 'node:assert/strict';
import type { SessionId } from '../../../controller/store/store.ts';
import { until } from '../../support/until.ts';
import { checkSession, conflicts, done, entryOf, lock, type StoreContext, set, unlock } from './context.ts';

const goneSession = '11111111-2222-3333-4444-555555555555' as SessionId;

export function lockContract({ here, there, prefix, session }: StoreContext): void {
  it('locks a key for one session, and sets its value', async () => {
    const key = `${prefix()}a`;
    const [mine, other] = [await session(), await session()];
    const indexes = await done(here().transact([lock(key, mine, 'locked')]));
    const entry = await entryOf(there(), key);
    assert.deepEqual(entry, { key, value: 'locked', index: indexes.get(key), session: mine });
    await conflicts(there().transact([lock(key, other, 'theirs')]));
    assert.deepEqual(await entryOf(here(), key), entry);
  });

  it('lets the session that has the lock lock again', async () => {
    const key = `${prefix()}a`;
    const mine = await session();
    await done(here().transact([lock(key, mine, '1')]));
    await done(here().transact([lock(key, mine, '1')]));
    await done(here().transact([lock(key, mine, '2')]));
    const { value, session: holder } = await entryOf(here(), key);
    assert.deepEqual({ value, holder }, { value: '2', holder: mine });
  });

  it('unlocks, sets the value, and gives a new index even if that is the same', async () => {
    const key = `${prefix()}a`;
    const [mine, other] = [await session(), await session()];
    const locked = await done(here().transact([lock(key, mine, 'same')]));
    await conflicts(here().transact([unlock(key, other, 'theirs')]));
    const unlocked = await done(here().transact([unlock(key, mine, 'same')]));
    assert.notEqual(unlocked.get(key), locked.get(key));
    assert.deepEqual(await entryOf(here(), key), { key, value: 'same', index: unlocked.get(key), session: null });
    await conflicts(here().transact([unlock(key, mine, 'again')]));
    await done(there().transact([lock(key, other, 'theirs')]));
    assert.notEqual((await entryOf(here(), key)).index, unlocked.get(key));
  });

  it('refuses to unlock what is not there', async () => {
    await conflicts(here().transact([unlock(`${prefix()}a`, await session())]));
  });

  it('checks that a session has the lock', async () => {
    const at = prefix();
    const key = `${at}a`;
    const [mine, other] = [await session(), await session()];
    await done(here().transact([set(key, '')]));
    await conflicts(here().transact([checkSession(key, mine)]));
    await done(here().transact([lock(key, mine)]));
    await done(there().transact([checkSession(key, mine), set(`${at}b`, '1')]));
    await conflicts(there().transact([checkSession(key, other)]));
    await conflicts(there().transact([set(`${at}b`, '2'), checkSession(key, other)]), 1);
    await conflicts(there().transact([checkSession(`${at}none`, mine)]));
    assert.equal((await entryOf(here(), `${at}b`)).value, '1');
  });

  it('hands a lock from one session to another in one transaction', async () => {
    const at = prefix();
    const key = `${at}owner`;
    const [mine, other] = [await session({ lockDelayMs: 30_000 }), await session()];
    await done(here().transact([lock(key, mine, 'mine')]));
    await conflicts(here().transact([unlock(key, other), lock(key, other)]));
    await done(here().transact([checkSession(key, mine), unlock(key, mine, 'handed'), lock(key, other, 'theirs')]));
    const { value, session: holder } = await entryOf(there(), key);
    assert.deepEqual({ value, holder }, { value: 'theirs', holder: other });
    await conflicts(here().transact([unlock(key, mine), lock(key, other)]));
  });

  it('keeps locks advisory: set and delete go by them', async () => {
    const key = `${prefix()}a`;
    const mine = await session();
    await done(here().transact([lock(key, mine, '1')]));
    await done(there().transact([set(key, '2')]));
    const { value, session: holder, index } = await entryOf(here(), key);
    assert.deepEqual({ value, holder }, { value: '2', holder: mine });
    await done(there().transact([{ kind: 'compare-and-set', key, value: '3', index }]));
    assert.equal((await entryOf(here(), key)).session, mine);
    await done(there().transact([{ kind: 'delete', key }]));
    await conflicts(here().transact([checkSession(key, mine)]));
    await done(there().transact([set(key, '4')]));
    assert.equal((await entryOf(here(), key)).session, null);
  });

  it('locks nothing for a session that is gone', async () => {
    const key = `${prefix()}a`;
    const mine = await session();
    await here().destroySession(mine);
    await conflicts(here().transact([lock(key, mine)]));
    await conflicts(here().transact([lock(key, goneSession)]));
    assert.equal(await here().get(key, { fresh: true }), null);
  });

  it('lets one of many win who lock the same key', async () => {
    const key = `${prefix()}a`;
    const sessions = await Promise.all(Array.from({ length: 10 }, () => session()));
    const outcomes = await Promise.all(sessions.map((id) => there().transact([lock(key, id, id)])));
    const winners = sessions.filter((_, position) => outcomes[position]?.kind === 'done');
    assert.equal(winners.length, 1);
    assert.equal((await entryOf(here(), key)).session, winners[0]);
  });

  it('frees the locks of a session that is destroyed, and keeps the keys', async () => {
    const at = prefix();
    const [mine, other] = [await session(), await session()];
    await done(here().transact([lock(`${at}a`, mine, '1'), lock(`${at}b`, mine, '2'), lock(`${at}c`, other, '3')]));
    const before = await entryOf(here(), `${at}a`);
    await here().destroySession(mine);
    const entries = await there().list(at, { fresh: true });
    assert.deepEqual(
      entries.map(({ value, session: holder }) => [value, holder]),
      [
        ['1', null],
        ['2', null],
        ['3', other],
      ],
    );
    assert.notEqual(entries[0]?.index, before.index);
    await done(there().transact([lock(`${at}a`, other)]));
  });

  it('delays locks of a session that was destroyed, not of keys it had unlocked', async () => {
    const at = prefix();
    const mine = await session({ lockDelayMs: 1_500 });
    const other = await session();
    await done(here().transact([lock(`${at}a`, mine), lock(`${at}b`, mine)]));
    await done(here().transact([unlock(`${at}b`, mine)]));
    await here().destroySession(mine);
    await conflicts(there().transact([set(`${at}c`, ''), lock(`${at}a`, other)]), 1);
    assert.equal(await there().get(`${at}c`, { fresh: true }), null);
    await done(there().transact([lock(`${at}b`, other)]));
    await done(there().transact([set(`${at}a`, 'not a lock')]));
    await until('the lock delay is over', 10_000, async () => {
      const outcome = await there().transact([lock(`${at}a`, other)]);
      return outcome.kind === 'done' ? true : undefined;
    });
  });
}
