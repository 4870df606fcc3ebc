import assert from 'node:assert/strict';
import { checkKey, checkOperations } from '../../controller/store/requests.ts';
import { judge } from '../../controller/store/rules.ts';
import { sameEntries } from '../../controller/store/snapshots.ts';
import type { Entry, SessionId } from '../../controller/store/store.ts';
import { refuses } from '../support/refuses.ts';

const mine = 'mine' as SessionId;
const free = { isAlive: () => true, isDelayed: () => false };
const entry = (part: Partial<Entry> = {}): Entry => ({ key: 'a', value: '1', index: '7', session: null, ...part });

describe('store rules', () => {
  it('takes the same value for no change', () => {
    assert.deepEqual(judge({ kind: 'set', key: 'a', value: '1' }, entry(), free), { kind: 'keep' });
    const again = { kind: 'lock', key: 'a', value: '1', session: mine } as const;
    assert.deepEqual(judge(again, entry({ session: mine }), free), { kind: 'keep' });
  });

  it('keeps the lock when a value is set', () => {
    const verdict = judge({ kind: 'set', key: 'a', value: '2' }, entry({ session: mine }), free);
    assert.deepEqual(verdict, { kind: 'write', value: '2', session: mine });
  });

  it('delays locks only of keys whose session was ended', () => {
    const locking = { kind: 'lock', key: 'a', value: '1', session: mine } as const;
    assert.equal(judge(locking, entry(), { ...free, isDelayed: (key) => key === 'a' }).kind, 'conflict');
    assert.equal(judge(locking, entry(), { ...free, isDelayed: (key) => key === 'b' }).kind, 'write');
  });

  it('names who has a lock when it conflicts', () => {
    const unlocking = { kind: 'unlock', key: 'a', value: '1', session: mine } as const;
    const verdict = judge(unlocking, entry({ session: 'theirs' as SessionId }), free);
    assert.deepEqual(verdict, { kind: 'conflict', reason: 'a is locked by theirs, not by mine' });
  });
});

describe('store requests', () => {
  it('names a bad key shortened and quoted', () => {
    assert.match(
      refuses(() => checkKey(`a\n${'x'.repeat(9_999)}`), 'invalid-request').message,
      /^"a\\nx{70,}… \(10001/,
    );
  });

  it('counts bytes of keys and values together', () => {
    const half = { kind: 'set', key: 'k', value: 'v'.repeat(128 * 1024) } as const;
    checkOperations([half, half]);
    refuses(() => checkOperations([half, half, half]), 'invalid-request');
  });
});

describe('store snapshots', () => {
  it('are the same when keys and indexes are', () => {
    assert.equal(sameEntries(null, []), false);
    assert.equal(sameEntries([], []), true);
    assert.equal(sameEntries([entry()], [entry({ value: 'never looked at' })]), true);
    assert.equal(sameEntries([entry()], [entry({ index: '8' })]), false);
    assert.equal(sameEntries([entry()], [entry({ key: 'b' })]), false);
    assert.equal(sameEntries([entry()], []), false);
  });
});
