import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  byWriting,
  encodeEvent,
  eventKeys,
  eventsAfter,
  isBeforeCursor,
  newestEvents,
} from '../../controller/model/events.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { readEvents } from '../../controller/moves/event-reading.ts';
import { createMemoryStore, type MemoryStore } from '../../controller/store/memory.ts';
import type { Store } from '../../controller/store/store.ts';

/** By key, so by time: `a` is the oldest one. */
const written = (...indexes: readonly string[]) =>
  indexes.map((index, position) => ({ key: String.fromCharCode(97 + position), index }));
const keysOf = (events: readonly { readonly key: string }[]) => events.map(({ key }) => key).join('');

describe('pages of the log of events', () => {
  it('are in the order in which they were written, also beyond what a number can tell apart', () => {
    const events = written('18446744073709551615', '9', '18446744073709551614', '10');
    assert.equal(keysOf(byWriting(events)), 'bdca');
    const { events: later, cursor } = eventsAfter(events, '18446744073709551614', 5);
    assert.deepEqual([keysOf(later), cursor], ['a', '18446744073709551615']);
  });

  it('begin with the newest by time, and go on with all that is written later', () => {
    const first = newestEvents(written('7', '3', '4', '5'), 2);
    assert.deepEqual([keysOf(first.events), first.cursor], ['cd', '7']);
    assert.deepEqual(newestEvents([], 2), { events: [], cursor: '0' });
    assert.deepEqual(eventsAfter(written('7', '3'), '7', 2), { events: [], cursor: '7' });
    assert.equal(keysOf(eventsAfter(written('7', '3'), '0', 2).events), 'ba');
  });

  it('leave nothing out where there is more than fits', () => {
    const events = written('9', '2', '8', '3', '7');
    let [seen, cursor] = ['', '2'];
    for (let page = 0; page < 3; page += 1) {
      const found = eventsAfter(events, cursor, 2);
      seen += `${keysOf(found.events)} `;
      cursor = found.cursor;
    }
    assert.equal(seen, 'de ca  ');
    assert.equal(keysOf(eventsAfter(written('1', '2', '2', '2', '3'), '0', 2).events), 'abcd', 'of one transaction');
  });

  it('know a store that was set back from one where nothing has happened', () => {
    const events = written('5', '4');
    assert.deepEqual(
      ['4', '5', '6'].map((cursor) => isBeforeCursor(events, cursor)),
      [false, false, true],
    );
    assert.deepEqual([isBeforeCursor([], '0'), isBeforeCursor([], '1')], [false, true]);
  });
});

describe('a question for events', () => {
  const stores: MemoryStore[] = [];
  const clock = {
    bootMs: () => performance.now(),
    nowMs: () => Date.now(),
    randomHex: () => 'aa',
    sleep: (ms: number, signal?: AbortSignal) => sleep(ms, undefined, { signal }).catch(() => undefined),
  };
  const open = () => {
    const memory = createMemoryStore({ clock, random: Math.random });
    stores.push(memory);
    return memory.connect('n1');
  };
  afterEach(() => {
    for (const store of stores.splice(0)) store.close();
  });

  const node = parseNodeName('n1');
  const tell = (store: Store, atMs: number) => {
    const value = encodeEvent({ atMs, node, kind: 'fenced', subject: 'data', text: String(atMs) });
    return store.transact([{ kind: 'set', key: eventKeys.event(atMs, node, 'aa'), value }]);
  };
  const never = new AbortController().signal;
  const ask = async (store: Store, after: string | null, waitMs = 20_000, limit = 10) => {
    const { events, cursor } = await readEvents({ store, clock }, { after, waitMs, limit }, never);
    return { times: events.map(({ atMs }) => atMs), cursor };
  };

  it('goes on from an empty log', async () => {
    const store = open();
    await store.transact([{ kind: 'set', key: 'other', value: '' }]);
    const { cursor } = await ask(store, null);
    const next = ask(store, cursor);
    await tell(store, 7);
    assert.deepEqual((await next).times, [7]);
    assert.deepEqual(await ask(store, cursor, 0), await next);
    assert.deepEqual(await ask(store, (await next).cursor, 5), { times: [], cursor: (await next).cursor });
  });

  it('misses nothing of what comes late between two questions', async () => {
    const store = open();
    await tell(store, 9_000);
    let { cursor } = await ask(store, null);
    const seen: number[] = [];
    const late = [50, 30, 40, 10, 20];
    for (const atMs of late.slice(0, 3)) await tell(store, atMs);
    while (seen.length < late.length) {
      const { times, cursor: next } = await ask(store, cursor, 20_000, 2);
      seen.push(...times);
      cursor = next;
      if (seen.length === 3) for (const atMs of late.slice(3)) await tell(store, atMs);
    }
    assert.deepEqual(seen, late);
  });

  it('of a store that was replaced is answered as a first one, and what comes then is seen', async () => {
    const before = open();
    for (const atMs of [1, 2, 3, 4, 5]) await tell(before, atMs);
    const { cursor } = await ask(before, null);
    const after = open();
    assert.deepEqual(await ask(after, cursor), { times: [], cursor: '0' });
    await tell(after, 8);
    await tell(after, 6);
    for (const waitMs of [0, 20_000]) {
      const again = await ask(after, cursor, waitMs);
      assert.deepEqual(again.times, [6, 8]);
      const next = ask(after, again.cursor);
      await tell(after, 7 + waitMs);
      assert.deepEqual((await next).times, [7 + waitMs]);
      await after.transact([{ kind: 'delete', key: eventKeys.event(7 + waitMs, node, 'aa') }]);
    }
  });

  it('takes a watch that is behind for no store that was set back', async () => {
    const store = open();
    await tell(store, 2);
    const old = await store.list('events/');
    await tell(store, 1);
    const { cursor } = await ask(store, null);
    const behind: Store = {
      ...store,
      async *watch(prefix, signal) {
        yield old;
        yield* store.watch(prefix, signal);
      },
    };
    const next = ask(behind, cursor);
    await tell(store, 3);
    assert.deepEqual((await next).times, [3]);
  });
});
