import assert from 'node:assert/strict';
import { createMemoryStore, type MemoryStoreOptions } from '../../controller/store/memory.ts';
import type { SessionId, Store } from '../../controller/store/store.ts';
import { rejects } from '../support/refuses.ts';

/** Time goes on only by `advance`, from sleeper to sleeper. */
function createFakeClock() {
  let nowMs = 0;
  let sleepers: { readonly atMs: number; readonly wake: () => void }[] = [];
  return {
    nowMs: () => nowMs,
    sleep: (ms: number, signal?: AbortSignal) =>
      new Promise<void>((resolve) => {
        if (signal?.aborted === true) return resolve();
        const sleeper = { atMs: nowMs + ms, wake: resolve };
        sleepers.push(sleeper);
        signal?.addEventListener('abort', () => {
          sleepers = sleepers.filter((other) => other !== sleeper);
          resolve();
        });
      }),
    sleeping: () => sleepers.length,
    async advance(ms: number) {
      const endMs = nowMs + ms;
      for (;;) {
        // Lets everything run that is not asleep.
        for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
        const next = sleepers.reduce<(typeof sleepers)[number] | null>(
          (least, one) => (one.atMs <= endMs && (least === null || one.atMs < least.atMs) ? one : least),
          null,
        );
        if (next === null) break;
        nowMs = Math.max(nowMs, next.atMs);
        sleepers = sleepers.filter((one) => one !== next);
        next.wake();
      }
      nowMs = endMs;
    },
  };
}

/** The same numbers for the same seed. */
function createDice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function open(options: Partial<MemoryStoreOptions> = {}) {
  const clock = createFakeClock();
  const server = createMemoryStore({ clock, random: createDice(1), timeoutMs: 1_000, ...options });
  return { clock, server, one: server.connect('one'), two: server.connect('two') };
}

const set = (store: Store, key: string, value: string) => store.transact([{ kind: 'set', key, value }]);
const sessionOf = (store: Store, ttlMs: number, lockDelayMs = 0) =>
  store.createSession({ name: 'a test', ttlMs, lockDelayMs });
const lock = (store: Store, session: SessionId) =>
  store.transact([{ kind: 'lock', key: 'a', value: 'locked', session }]);

/** What became of a call by now. */
function follow<T>(call: Promise<T>): { state: 'pending' | 'fulfilled' | 'rejected'; readonly call: Promise<T> } {
  const followed: { state: 'pending' | 'fulfilled' | 'rejected'; readonly call: Promise<T> } = {
    state: 'pending',
    call,
  };
  call.then(
    () => {
      followed.state = 'fulfilled';
    },
    () => {
      followed.state = 'rejected';
    },
  );
  return followed;
}

describe('memory store for simulations', () => {
  it('cuts off one node: its calls hang for their time and are not done; the other goes on', async () => {
    const { clock, server, one, two } = open();
    server.cut('one');
    const write = follow(set(one, 'a', '1'));
    await clock.advance(999);
    assert.equal(write.state, 'pending');
    assert.equal((await set(two, 'b', '2')).kind, 'done');
    await clock.advance(1);
    await rejects(write.call, 'store-unavailable');
    assert.deepEqual(
      server.entries().map(({ key }) => key),
      ['b'],
    );
    server.heal('one');
    assert.equal((await one.get('b'))?.value, '2');
  });

  it('does writes whose answers get lost', async () => {
    const { clock, server, one, two } = open();
    server.cut('one', 'answers');
    const write = follow(set(one, 'a', '1'));
    await clock.advance(0);
    assert.equal((await two.get('a'))?.value, '1');
    await clock.advance(1_000);
    await rejects(write.call, 'store-unavailable');
  });

  it('loses one write on its way, which comes late, also after writes that came after it; and tells of each change', async () => {
    const changes: (readonly string[])[] = [];
    const { clock, server, one } = open({ onChange: (keys) => changes.push([...keys]) });
    server.loseNext('one', 1_500);
    const write = follow(set(one, 'a', 'late'));
    assert.equal((await set(one, 'a', 'new')).kind, 'done');
    await clock.advance(1_000);
    await rejects(write.call, 'store-unavailable');
    assert.equal((await one.get('a'))?.value, 'new');
    await clock.advance(500);
    assert.equal((await one.get('a'))?.value, 'late');
    assert.deepEqual(changes, [['a'], ['a']]);
  });

  it('loses the answer of a call that was under way when its node was cut off', async () => {
    const { clock, server, one } = open({ quirks: { latencyMsMax: 100 } });
    const write = follow(set(one, 'a', '1'));
    while (server.entries().length === 0) await clock.advance(1);
    server.cut('one');
    await clock.advance(1_000);
    await rejects(write.call, 'store-unavailable');
  });

  it('may do a write long after its caller has given up', async () => {
    const { clock, server, one } = open({ quirks: { lateShare: 1, lateMsMax: 60_000 } });
    server.cut('one');
    const writes = Array.from({ length: 10 }, (_, position) => follow(set(one, `a${position}`, '1')));
    await clock.advance(1_000);
    for (const write of writes) await rejects(write.call, 'store-unavailable');
    assert.ok(server.entries().length < 10);
    await clock.advance(60_000);
    assert.equal(server.entries().length, 10);
  });

  it('ends sessions between one and two times to live after the last renewal', async () => {
    for (let seed = 1; seed <= 30; seed += 1) {
      const { clock, server, one } = open({ random: createDice(seed) });
      const session = await sessionOf(one, 1_000);
      await lock(one, session);
      await clock.advance(900);
      assert.equal(await one.renewSession(session), true);
      await clock.advance(999);
      assert.equal(server.entries()[0]?.session, session);
      await clock.advance(1_002);
      assert.equal(server.entries()[0]?.session, null);
      assert.equal(clock.sleeping(), 0);
    }
  });

  it('ends a session at any moment, and delays its locks', async () => {
    const { clock, server, one, two } = open();
    const [mine, other] = [await sessionOf(one, 60_000, 5_000), await sessionOf(two, 60_000)];
    await lock(one, mine);
    server.endSession(mine);
    assert.equal(await one.renewSession(mine), false);
    assert.equal((await lock(two, other)).kind, 'conflict');
    await clock.advance(4_999);
    assert.equal((await lock(two, other)).kind, 'conflict');
    await clock.advance(1);
    assert.equal((await lock(two, other)).kind, 'done');
    server.close();
  });

  it('ends no session without a leader, and gives each its full time with the next one', async () => {
    const { clock, server, one } = open();
    const session = await sessionOf(one, 1_000);
    await lock(one, session);
    server.loseLeader();
    const read = follow(one.get('a', { fresh: true }));
    await clock.advance(10_000);
    await rejects(read.call, 'store-unavailable');
    assert.deepEqual(server.sessions(), [session]);
    server.electLeader();
    await clock.advance(999);
    assert.deepEqual(server.sessions(), [session]);
    await clock.advance(2_000);
    assert.deepEqual(server.sessions(), []);
  });

  it('answers what was true a moment ago unless fresh answers are asked for', async () => {
    const { clock, one } = open({ quirks: { staleMsMax: 100 } });
    await set(one, 'p/a', '0');
    await set(one, 'p/gone', '0');
    await clock.advance(500);
    await one.transact([{ kind: 'delete', key: 'p/gone' }]);
    const seen = new Set<string>();
    for (let round = 1; round <= 50; round += 1) {
      await set(one, 'p/a', String(round));
      await clock.advance(10);
      const [age] = [round - Number((await one.get('p/a'))?.value)];
      assert.ok(age >= 0 && age <= 10, `${age}`);
      assert.equal((await one.get('p/a', { fresh: true }))?.value, String(round));
      seen.add((await one.list('p/')).map(({ key }) => key).join(' '));
      assert.equal((await one.list('p/', { fresh: true })).length, 1);
    }
    assert.deepEqual(seen, new Set(['p/a p/gone', 'p/a']));
  });

  it('tells watches late and of several changes as one, but always of the last', async () => {
    const { clock, server, one, two } = open({ quirks: { watchDelayMsMax: 500 } });
    const values: string[] = [];
    const ending = new AbortController();
    const watching = (async () => {
      for await (const [entry] of two.watch('', ending.signal)) values.push(entry?.value ?? '');
    })();
    await clock.advance(0);
    for (let round = 1; round <= 20; round += 1) {
      await set(one, 'a', String(round));
      await clock.advance(50);
    }
    await clock.advance(500);
    assert.equal(values[0], '');
    assert.equal(values.at(-1), '20');
    assert.ok(values.length < 15, values.join(' '));
    ending.abort();
    await watching;
    server.close();
  });

  it("tells a watch of its node's cut, and what has changed when that is over", async () => {
    const { clock, server, one, two } = open();
    const faults: unknown[] = [];
    const values: string[] = [];
    const ending = new AbortController();
    const watching = (async () => {
      for await (const [entry] of two.watch('', ending.signal, (error) => faults.push(error))) {
        values.push(entry?.value ?? '');
      }
    })();
    await clock.advance(0);
    server.cut('two');
    await set(one, 'a', '1');
    await clock.advance(10_000);
    assert.ok(faults.length >= 3 && faults.length <= 10, String(faults.length));
    assert.deepEqual(values, ['']);
    server.heal('two');
    await clock.advance(5_000);
    assert.deepEqual(values, ['', '1']);
    ending.abort();
    await watching;
    assert.equal(clock.sleeping(), 0);
  });

  it('does the same for the same seed', async () => {
    const run = async () => {
      const { clock, server, one, two } = open({
        random: createDice(42),
        quirks: { latencyMsMax: 20, watchDelayMsMax: 30, staleMsMax: 40, lateShare: 0.5, lateMsMax: 3_000 },
      });
      const log: string[] = [];
      for (let round = 0; round < 40; round += 1) {
        const session = follow(sessionOf(one, 500));
        if (round % 7 === 3) server.cut('one');
        if (round % 7 === 6) server.heal('one');
        const read = follow(two.list(''));
        void follow(set(one, `a${round % 5}`, String(round)));
        await clock.advance(37);
        if (read.state === 'fulfilled') log.push(JSON.stringify(await read.call));
        log.push(session.state, server.sessions().join(' '));
      }
      server.close();
      return log;
    };
    assert.deepEqual(await run(), await run());
  });

  it('ends calls and watches of a client that is closed', async () => {
    const { clock, server, one, two } = open();
    server.cut('one');
    const write = follow(set(one, 'a', '1'));
    await clock.advance(1);
    await one.close();
    await rejects(write.call, 'store-unavailable');
    await rejects(one.get('a'), 'store-unavailable');
    assert.equal(await two.get('a'), null);
  });
});
