import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { done, lock, type StoreContext, set, unlock, valuesOf } from './context.ts';

export function watchContract({ here, there, prefix, session, watched }: StoreContext): void {
  it('tells at once what is there, also if that is nothing', async () => {
    const [at, empty] = [prefix(), prefix()];
    await done(here().transact([set(`${at}b`, '2'), set(`${at}a`, '1')]));
    const entries = await watched(there(), at).until('it tells', () => true);
    assert.deepEqual(entries, await here().list(at, { fresh: true }));
    assert.deepEqual(await watched(there(), empty).until('it tells', () => true), []);
  });

  it('tells of changes and deletions by others and by itself, with everything that is there', async () => {
    const at = prefix();
    const seen = watched(there(), at);
    await seen.until('it has begun', () => true);
    await done(here().transact([set(`${at}a`, '1')]));
    await seen.until('the key is seen', (entries) => entries.length === 1);
    await done(there().transact([set(`${at}b`, '1')]));
    await seen.until('the second key is seen', (entries) => entries.length === 2);
    await done(here().transact([set(`${at}a`, '2')]));
    const both = await seen.until('the change is seen', ([entry]) => entry?.value === '2');
    assert.deepEqual(valuesOf(both), { [`${at}a`]: '2', [`${at}b`]: '1' });
    await done(here().transact([{ kind: 'delete', key: `${at}a` }]));
    await seen.until('the deletion is seen', (entries) => entries.length === 1);
    await done(here().transact([{ kind: 'delete', key: `${at}b` }]));
    await seen.until('nothing is left', (entries) => entries.length === 0);
  });

  it('tells of locks and of their release', async () => {
    const at = prefix();
    const mine = await session();
    const seen = watched(there(), at);
    await seen.until('it has begun', () => true);
    await done(here().transact([lock(`${at}a`, mine)]));
    await seen.until('the lock is seen', ([entry]) => entry?.session === mine);
    await done(here().transact([unlock(`${at}a`, mine)]));
    await seen.until('the key is free', ([entry]) => entry?.session === null);
    await done(here().transact([lock(`${at}a`, mine)]));
    await seen.until('the lock is seen again', ([entry]) => entry?.session === mine);
    await here().destroySession(mine);
    await seen.until('the session is gone', ([entry]) => entry?.session === null);
  });

  it('never shows half a transaction, and in the end what is there', async () => {
    const at = prefix();
    const seen = watched(there(), at);
    await seen.until('it has begun', () => true);
    for (let round = 1; round <= 60; round += 1) {
      await done(here().transact([set(`${at}a`, String(round)), set(`${at}b`, String(round))]));
    }
    await seen.until('the last round is seen', ([entry]) => entry?.value === '60');
    for (const entries of seen.lists)
      assert.equal(new Set(entries.map(({ value }) => value)).size, entries.length === 0 ? 0 : 1);
    assert.ok(seen.lists.length <= 62);
  });

  it('leaves out what happens elsewhere', async () => {
    const [at, elsewhere] = [prefix(), prefix()];
    const seen = watched(there(), at);
    await seen.until('it has begun', () => true);
    for (let round = 0; round < 5; round += 1) await done(here().transact([set(`${elsewhere}a`, String(round))]));
    await done(here().transact([set(`${at}a`, '1')]));
    await seen.until('the key is seen', (entries) => entries.length === 1);
    assert.equal(seen.lists.length, 2);
  });

  it('tells a slow reader the newest', async () => {
    const at = prefix();
    const ending = new AbortController();
    const values: string[] = [];
    for await (const [entry] of there().watch(at, ending.signal)) {
      values.push(entry?.value ?? '');
      if (values.length === 1) {
        for (let round = 1; round <= 10; round += 1) await done(here().transact([set(`${at}a`, String(round))]));
      }
      if (entry?.value === '10') break;
    }
    assert.deepEqual(values.at(-1), '10');
    assert.ok(values.length <= 3, values.join(' '));
  });

  it('ends when its signal fires, before, while it waits, and between two lists', async () => {
    const at = prefix();
    for await (const _ of here().watch(at, AbortSignal.abort())) assert.fail('told after its end');

    const ending = new AbortController();
    const iterator = here().watch(at, ending.signal)[Symbol.asyncIterator]();
    assert.equal((await iterator.next()).done, false);
    const waiting = iterator.next();
    await sleep(50);
    ending.abort();
    assert.equal((await waiting).done, true);
    assert.equal((await iterator.next()).done, true);

    const between = new AbortController();
    for await (const _ of here().watch(at, between.signal)) between.abort();
  });

  it('serves many watches at the same time', async () => {
    const at = prefix();
    const all = Array.from({ length: 20 }, (_, position) => watched(position % 2 === 0 ? here() : there(), at));
    await Promise.all(all.map((seen) => seen.until('it has begun', () => true)));
    await done(here().transact([set(`${at}a`, '1')]));
    await Promise.all(all.map((seen) => seen.until('the key is seen', (entries) => entries.length === 1)));
  });
}
