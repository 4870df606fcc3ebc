import assert from 'node:assert/strict';
import { storeLimits } from '../../../controller/store/store.ts';
import { rejects } from '../../support/refuses.ts';
import { done, type StoreContext, set, valuesOf } from './context.ts';

const keyOfLength = (start: string, length: number) => start + 'k'.repeat(length - start.length);

export function limitContract({ here, there, prefix }: StoreContext): void {
  it('takes the largest transaction, and nothing above it', async () => {
    const at = prefix();
    const { operationsMax, transactionBytesMax, keyBytesMax } = storeLimits;
    const keys = Array.from({ length: operationsMax }, (_, position) => keyOfLength(`${at}${position}-`, keyBytesMax));
    const valueBytes = Math.floor(transactionBytesMax / operationsMax) - keyBytesMax;
    const operations = keys.map((key) => set(key, 'v'.repeat(valueBytes)));
    await done(here().transact(operations));
    assert.equal((await there().list(at, { fresh: true })).length, operationsMax);
    await rejects(here().transact(keys.map((key) => set(key, 'v'.repeat(valueBytes + 1)))), 'invalid-request');
    await rejects(here().transact([...operations, set(`${at}more`, '')]), 'invalid-request');
    assert.equal(await here().get(`${at}more`, { fresh: true }), null);
  });

  it('counts a comparing deletion as two operations', async () => {
    const at = prefix();
    const keys = Array.from({ length: storeLimits.operationsMax / 2 }, (_, position) => `${at}${position}`);
    const indexes = await done(here().transact(keys.map((key) => set(key, '1'))));
    const removals = keys.map((key) => ({ kind: 'compare-and-delete', key, index: indexes.get(key) ?? '' }) as const);
    await rejects(here().transact([set(`${at}more`, ''), ...removals]), 'invalid-request');
    await done(here().transact(removals));
    assert.deepEqual(valuesOf(await here().list(at, { fresh: true })), {});
  });

  it('takes the largest value, and nothing above it', async () => {
    const key = `${prefix()}a`;
    // two bytes each
    const largest = 'ä'.repeat(storeLimits.valueBytesMax / 2);
    await done(here().transact([set(key, largest)]));
    assert.equal((await there().get(key, { fresh: true }))?.value, largest);
    await rejects(here().transact([set(key, `${largest}a`)]), 'invalid-request');
    assert.equal((await there().get(key, { fresh: true }))?.value, largest);
  });

  it('refuses keys, prefixes, values and indexes that are none', async () => {
    const at = prefix();
    const bad = ['', '/', 'a/', '/a', 'a//b', '.', '..', 'a/../b', 'a b', 'a?b', 'a%2fb', 'ä', 'a\n', 'a\0', `${at}*`];
    for (const key of [...bad, keyOfLength(at, storeLimits.keyBytesMax + 1)]) {
      await rejects(here().get(key), 'invalid-request');
      await rejects(here().transact([set(key, '')]), 'invalid-request');
    }
    for (const below of ['a', '/', '../', 'a//', 'a b/']) {
      await rejects(here().list(below), 'invalid-request');
      assert.throws(() => here().watch(below, AbortSignal.timeout(10)), { code: 'invalid-request' });
    }
    await rejects(here().transact([]), 'invalid-request');
    await rejects(here().transact([set(`${at}a`, '\ud800')]), 'invalid-request');
    for (const index of ['', '0', '-1', '1.5', 'x']) {
      await rejects(here().transact([{ kind: 'check-index', key: `${at}a`, index }]), 'invalid-request');
    }
    for (const key of ['.a', '...', 'a/.b', '-', '_', 'A.b-c_d/0']) await done(here().transact([set(at + key, key)]));
    assert.equal((await here().get(`${at}...`, { fresh: true }))?.value, '...');
  });

  it('refuses sessions beyond the limits', async () => {
    const good = { name: 'a test', ttlMs: 60_000, lockDelayMs: 0 };
    const bad = [{ ttlMs: 0 }, { ttlMs: 1.5 }, { ttlMs: 90_000_000 }, { lockDelayMs: -1 }, { lockDelayMs: 60_001 }];
    for (const wrong of [...bad, { name: 'n'.repeat(257) }]) {
      await rejects(here().createSession({ ...good, ...wrong }), 'invalid-request');
    }
    await here().destroySession(await here().createSession({ ...good, lockDelayMs: 60_000 }));
  });
}
