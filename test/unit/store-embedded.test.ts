import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { hostClock, openEmbeddedStore } from '../../controller/store/embedded.ts';
import { rejects } from '../support/refuses.ts';

describe('embedded store', () => {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flock-store-'));
  });
  afterEach(() => rm(folder, { recursive: true }));
  const path = () => join(folder, 'store.db');

  it('makes a file that only its owner can read', async () => {
    const store = await openEmbeddedStore(path());
    await store.transact([{ kind: 'set', key: 'a', value: '1' }]);
    for (const name of ['store.db', 'store.db-wal']) {
      assert.equal((await stat(join(folder, name))).mode & 0o777, 0o600, name);
    }
    await store.close();
  });

  it('can be opened by many at the same time', async () => {
    const stores = await Promise.all(Array.from({ length: 8 }, () => openEmbeddedStore(path())));
    await Promise.all(stores.map((store, each) => store.transact([{ kind: 'set', key: `a${each}`, value: '' }])));
    for (const store of stores) assert.equal((await store.list('')).length, 8);
    for (const store of stores) await store.close();
  });

  it('keeps entries, sessions and indexes when it is opened again', async () => {
    const first = await openEmbeddedStore(path());
    const session = await first.createSession({ name: 'a test', ttlMs: 60_000, lockDelayMs: 0 });
    await first.transact([{ kind: 'lock', key: 'a', value: '1', session }]);
    const entry = await first.get('a');
    await first.close();
    await first.close();
    const second = await openEmbeddedStore(path());
    assert.deepEqual(await second.get('a'), entry);
    assert.equal(await second.renewSession(session), true);
    await second.close();
  });

  it('ends every session with the boot, whatever its time, and lets its lock delay run from then', async () => {
    let nowMs = 5_000_000;
    const before = await openEmbeddedStore(path(), { clock: { bootId: 'one', nowMs: () => nowMs } });
    const session = await before.createSession({ name: 'a test', ttlMs: 80_000, lockDelayMs: 10_000 });
    await before.transact([{ kind: 'lock', key: 'a', value: '1', session }]);
    await before.close();

    nowMs = 1_000;
    const after = await openEmbeddedStore(path(), { clock: { bootId: 'two', nowMs: () => nowMs } });
    assert.equal((await after.get('a'))?.session, null);
    assert.equal(await after.renewSession(session), false);
    const mine = await after.createSession({ name: 'a test', ttlMs: 80_000, lockDelayMs: 0 });
    const locking = { kind: 'lock', key: 'a', value: '2', session: mine } as const;
    assert.equal((await after.transact([locking])).kind, 'conflict');
    nowMs += 10_000;
    assert.equal((await after.transact([locking])).kind, 'done');
    await after.close();
  });

  it('ends a session at its time, not before', async () => {
    let nowMs = 0;
    const store = await openEmbeddedStore(path(), { clock: { bootId: 'one', nowMs: () => nowMs } });
    const session = await store.createSession({ name: 'a test', ttlMs: 1_000, lockDelayMs: 0 });
    nowMs = 999;
    assert.equal(await store.renewSession(session), true);
    nowMs = 1_998;
    await store.transact([{ kind: 'lock', key: 'a', value: '1', session }]);
    assert.equal((await store.get('a'))?.session, session);
    nowMs = 1_999;
    assert.equal((await store.get('a'))?.session, null);
    assert.equal(await store.renewSession(session), false);
    await store.close();
  });

  it('reads on while nothing can be written, though a session is over', async () => {
    let nowMs = 0;
    const store = await openEmbeddedStore(path(), { clock: { bootId: 'one', nowMs: () => nowMs }, timeoutMs: 200 });
    const session = await store.createSession({ name: 'a test', ttlMs: 1_000, lockDelayMs: 0 });
    await store.transact([{ kind: 'lock', key: 'a', value: '1', session }]);
    nowMs = 1_000;
    const other = new DatabaseSync(path());
    other.exec('BEGIN IMMEDIATE');
    await rejects(store.transact([{ kind: 'set', key: 'a', value: '2' }]), 'store-unavailable');
    assert.equal((await store.get('a', { fresh: true }))?.value, '1');
    other.exec('ROLLBACK');
    other.close();
    assert.equal((await store.get('a', { fresh: true }))?.session, null);
    await store.close();
  });

  it('says what is wrong with a file that is none, or a folder that is missing', async () => {
    await writeFile(path(), 'this is no database, and long enough to be looked at as one. '.repeat(20));
    assert.match((await rejects(openEmbeddedStore(path()), 'store-unavailable')).message, /another kind of file/);
    const missing = openEmbeddedStore(join(folder, 'none/store.db'));
    assert.match((await rejects(missing, 'store-unavailable')).message, /missing/);
  });

  it('ends watches and refuses calls after it was closed', async () => {
    const store = await openEmbeddedStore(path());
    const iterator = store.watch('', AbortSignal.timeout(5_000))[Symbol.asyncIterator]();
    await iterator.next();
    const waiting = iterator.next();
    await store.close();
    assert.equal((await waiting).done, true);
    await rejects(store.get('a'), 'store-unavailable');
    await rejects(store.transact([{ kind: 'set', key: 'a', value: '' }]), 'store-unavailable');
  });

  it('has a clock that goes on', () => {
    const clock = hostClock();
    assert.match(clock.bootId, /^[0-9a-f-]{36}$/);
    assert.ok(clock.nowMs() > 0);
  });
});
