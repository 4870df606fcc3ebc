import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { createEventLog, type EventLog } from '../../controller/cluster/event-log.ts';
import { encodeEvent, eventKeys, eventSchema, eventsMax } from '../../controller/model/events.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { createMemoryStore, type MemoryStore } from '../../controller/store/memory.ts';
import type { Operation, Store } from '../../controller/store/store.ts';
import { until } from '../support/until.ts';

describe('the log of events', () => {
  let store: MemoryStore;
  let stop: AbortController;
  let running: Promise<void>;
  let log: EventLog;
  let nowMs = 1_000;

  const clock = {
    nowMs: () => nowMs++,
    randomHex: (bytes: number) => Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex'),
    sleep: (ms: number, signal?: AbortSignal) => sleep(ms, undefined, { signal }).catch(() => undefined),
  };

  beforeEach(() => {
    store = createMemoryStore({ clock, random: Math.random, timeoutMs: 200 });
    stop = new AbortController();
    log = createEventLog({ store: store.connect('n1'), node: parseNodeName('n1'), clock });
    running = log.run(stop.signal);
  });
  afterEach(async () => {
    stop.abort();
    await running;
    store.close();
  });

  const texts = () =>
    store
      .entries()
      .filter(({ key }) => key.startsWith(`${eventKeys.events}/`))
      .map(({ value }) => eventSchema.parse(JSON.parse(value)).text);
  const tell = (text: string) => log.tell('fenced', 'data', text);
  const other = parseNodeName('n2');
  const put = (atMs: number, text: string) => {
    const value = encodeEvent({ atMs, node: other, kind: 'fenced', subject: 'data', text });
    return store.connect('n2').transact([{ kind: 'set', key: eventKeys.event(atMs, other, 'aa'), value }]);
  };

  it('keeps the newest of them only', async function () {
    this.timeout(30_000);
    const count = eventsMax + 205;
    for (let index = 0; index < count; index += 100) {
      const part = Math.min(100, count - index);
      for (let next = index; next < index + part; next += 1) tell(`${next}`);
      await until(`${index + part} are written`, 10_000, () =>
        texts().includes(`${index + part - 1}`) ? true : undefined,
      );
    }
    const kept = await until('the oldest are gone', 5_000, () =>
      texts().length < eventsMax + 50 ? texts() : undefined,
    );
    assert.ok(kept.length >= eventsMax, `${kept.length}`);
    assert.deepEqual(
      kept,
      Array.from({ length: kept.length }, (_, index) => `${count - kept.length + index}`),
    );
  });

  it('keeps what was told late, however old it is, and lets go of what was written first', async function () {
    this.timeout(30_000);
    await put(9e12, 'of a clock that is ahead');
    for (let index = 1; index < eventsMax; index += 1) await put(5e12 + index, `${index}`);
    nowMs = 1_000;
    for (let index = 0; index < 50; index += 1) tell(`late ${index}`);
    const kept = await until('the first ones are gone', 10_000, () =>
      texts().includes('late 49') && texts().length === eventsMax ? texts() : undefined,
    );
    assert.deepEqual([kept[0], kept[49], kept[50], kept.at(-1)], ['late 0', 'late 49', '50', `${eventsMax - 1}`]);
  });

  it('lets go of what is too much as soon as a program begins, though it has nothing to tell', async function () {
    this.timeout(30_000);
    for (let index = 0; index < eventsMax + 70; index += 1) await put(index, `${index}`);
    const done = createEventLog({ store: store.connect('n3'), node: parseNodeName('n3'), clock }).run(stop.signal);
    await until('the first ones are gone', 10_000, () => (texts().length === eventsMax ? true : undefined));
    assert.equal(texts()[0], '70');
    stop.abort();
    await done;
  });

  it('has its first events written whatever becomes of that', async () => {
    const fault = Promise.withResolvers<never>();
    const hanging: Store = { ...store.connect('n2'), list: () => fault.promise };
    const second = createEventLog({ store: hanging, node: other, clock });
    const done = second.run(stop.signal);
    second.tell('fenced', 'data', 'first');
    await until('it is written', 5_000, () => (texts().includes('first') ? true : undefined));
    fault.reject(new Error('the store has no leader'));
    second.tell('fenced', 'data', 'second');
    await until('the next one, too', 5_000, () => (texts().includes('second') ? true : undefined));
    stop.abort();
    await done;
  });

  it('is written once, also where an answer was lost', async function () {
    this.timeout(30_000);
    const inner = store.connect('n2');
    /** Where the same value is a change, too: a store may be like that. */
    const changing: Store = {
      ...inner,
      transact: (operations) =>
        inner.transact(
          operations.flatMap((one): Operation[] =>
            one.kind === 'set' ? [{ kind: 'delete', key: one.key }, one] : [one],
          ),
        ),
    };
    const second = createEventLog({ store: changing, node: other, clock });
    const done = second.run(stop.signal);
    const first = () => store.entries().find(({ key }) => key.startsWith(`${eventKeys.events}/`));
    store.cut('n2', 'answers');
    second.tell('fenced', 'data', 'first');
    const { index } = await until('it is written', 5_000, first);
    store.heal('n2');
    second.tell('fenced', 'data', 'second');
    await until('the second one is there', 15_000, () => (texts().length === 2 ? true : undefined));
    assert.equal(first()?.index, index);
    stop.abort();
    await done;
  });

  it('is written when the store is back, the newest of what was told meanwhile', async function () {
    this.timeout(30_000);
    store.cut('n1');
    for (let index = 0; index < 250; index += 1) tell(`${index}`);
    await sleep(300);
    assert.deepEqual(texts(), []);
    store.heal('n1');
    await until('they are there', 15_000, () => (texts().length === 200 ? true : undefined));
    assert.deepEqual([texts()[0], texts().at(-1)], ['50', '249']);
  });
});
