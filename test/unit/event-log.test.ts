import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { createEventLog, type EventLog } from '../../controller/cluster/event-log.ts';
import { eventKeys, eventSchema, eventsMax } from '../../controller/model/events.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { createMemoryStore, type MemoryStore } from '../../controller/store/memory.ts';
import { until } from '../support/until.ts';

describe('the log of events', () => {
  let store: MemoryStore;
  let stop: AbortController;
  let running: Promise<void>;
  let log: EventLog;
  let nowMs = 1_000;

  beforeEach(() => {
    const clock = {
      nowMs: () => nowMs++,
      randomHex: (bytes: number) => Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex'),
      sleep: (ms: number, signal?: AbortSignal) => sleep(ms, undefined, { signal }).catch(() => undefined),
    };
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
