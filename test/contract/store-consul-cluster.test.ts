import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '../../controller/model/errors.ts';
import { createConsulStore } from '../../controller/store/consul.ts';
import type { Entry, Outcome, Store } from '../../controller/store/store.ts';
import { type ConsulCluster, startConsul } from '../support/consul.ts';
import { until } from '../support/until.ts';
import { done, entryOf, lock, set } from './store/context.ts';

describe('consul store: three servers', function () {
  this.timeout(90_000);
  let consul: ConsulCluster | undefined;
  let stores: Store[] = [];

  before(async () => {
    consul = await startConsul(3);
    stores = consul.servers.map(({ address }) => createConsulStore({ address, prefix: 'flock/', timeoutMs: 1_500 }));
  });
  after(async () => {
    for (const store of stores) await store.close();
    await consul?.stop();
  });

  it('reads fresh at every server what one of them has written', async () => {
    for (let round = 0; round < 20; round += 1) {
      const writer = stores[round % 3];
      if (writer === undefined) continue;
      await done(writer.transact([set('a', String(round))]));
      const values = await Promise.all(stores.map((store) => entryOf(store, 'a')));
      assert.deepEqual(new Set(values.map(({ value }) => value)), new Set([String(round)]));
    }
  });

  it('goes on after its leader was killed: locks, sessions, watches, and every acknowledged write', async () => {
    assert.ok(consul !== undefined);
    const leader = await consul.leader();
    const position = consul.servers.indexOf(leader);
    const store = stores[(position + 1) % 3];
    assert.ok(store !== undefined);
    const session = await store.createSession({ name: 'a test', ttlMs: 30_000, lockDelayMs: 1_000 });
    await done(store.transact([lock('owner', session, 'mine'), set('count/a', '0')]));

    const ending = new AbortController();
    const faults: unknown[] = [];
    let seen: readonly Entry[] = [];
    const watching = (async () => {
      for await (const entries of store.watch('count/', ending.signal, (error) => faults.push(error))) seen = entries;
    })();
    await until('the watch has begun', 10_000, () => (seen.length > 0 ? true : undefined));

    let refused = 0;
    const deadline = performance.now() + 30_000;
    let at = (await entryOf(store, 'count/a')).index;
    await leader.kill();
    for (let round = 1; round <= 20; ) {
      // What was not answered may be done at any time later: only what goes by the index can't replace what was written since.
      const outcome: Outcome | null = await attempt(
        store.transact([{ kind: 'compare-and-set', key: 'count/a', value: String(round), index: at }]),
      );
      if (outcome === null) {
        refused += 1;
        assert.ok(performance.now() < deadline, 'there is no leader again');
        await sleep(50);
        continue;
      }
      const entry = await entryOf(store, 'count/a');
      assert.equal(entry.value, String(round), outcome.kind);
      at = entry.index;
      round += 1;
    }
    assert.ok(refused > 0);
    const last = (await entryOf(store, 'count/a')).index;
    // A query that the server has forgotten is noticed when its time is over.
    await until('the watch sees the last', 40_000, () => (seen[0]?.index === last ? true : undefined));
    assert.ok(faults.every((fault) => hasCode(fault, 'store-unavailable')));
    assert.equal(await store.renewSession(session), true);
    assert.equal((await entryOf(store, 'owner')).session, session);
    ending.abort();
    await watching;

    await leader.restart();
    const back = stores[position];
    assert.ok(back !== undefined);
    await until('the killed server answers', 30_000, async () => (await attempt(back.get('owner'))) ?? undefined);
  });
});

async function attempt<T extends Outcome | Entry | null>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (hasCode(error, 'store-unavailable')) return null;
    throw error;
  }
}
