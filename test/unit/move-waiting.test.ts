import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { type MoveDoc, moveKeys } from '../../controller/model/move.ts';
import { waitForChange } from '../../controller/moves/waiting.ts';
import { createMemoryStore } from '../../controller/store/memory.ts';
import type { Store } from '../../controller/store/store.ts';
import { moveDoc } from '../support/move-documents.ts';

/** A store with one move, a mover that has seen it, and a clock whose time never comes to an end: only what is told ends a wait. */
function createWorld() {
  const clock = {
    bootMs: () => 0,
    nowMs: () => 0,
    randomHex: () => 'aa',
    sleep: (_ms: number, signal?: AbortSignal) =>
      new Promise<void>((resolve) => {
        if (signal?.aborted) resolve();
        else signal?.addEventListener('abort', () => resolve());
      }),
  };
  const memory = createMemoryStore({ clock, random: Math.random });
  const store = memory.connect('n1');
  const listeners = new Set<() => void>();
  let doc = moveDoc();
  const write = async (next: MoveDoc) => {
    await store.transact([{ kind: 'set', key: moveKeys.move(next.id), value: JSON.stringify(next) }]);
    doc = next;
    for (const listener of listeners) listener();
  };
  const mover = {
    moves: () => new Map([[doc.id, doc]]),
    onChange: (listener: () => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  return {
    ...{ store, listeners, close: memory.close },
    goOn: () => write({ ...doc, revision: doc.revision + 1 }),
    begin: () => write(doc),
    wait: (through: Store = store, signal = new AbortController().signal) =>
      waitForChange(
        { tools: { store: through, clock }, mover },
        { id: doc.id, after: doc.revision, waitMs: 1_000 },
        signal,
      ),
    revision: () => doc.revision,
  };
}

describe('waiting for a change of a move', () => {
  let world: ReturnType<typeof createWorld>;
  beforeEach(async () => {
    world = createWorld();
    await world.begin();
  });
  afterEach(() => world.close());

  it('ends with the next change', async () => {
    const waiting = world.wait();
    await sleep(20);
    await world.goOn();
    assert.equal((await waiting).revision, world.revision());
    assert.equal(world.listeners.size, 0);
  });

  it('ends with one that comes while the record is on its way', async () => {
    let isFirst = true;
    const slow: Store = {
      ...world.store,
      async get(key, options) {
        const entry = await world.store.get(key, options);
        if (isFirst) {
          isFirst = false;
          await world.goOn();
        }
        return entry;
      },
    };
    assert.equal((await world.wait(slow)).revision, world.revision());
    assert.equal(world.listeners.size, 0);
  });

  it('listens no more when nobody waits, or the record can’t be had', async () => {
    const gone = new AbortController();
    const waiting = world.wait(world.store, gone.signal);
    await sleep(20);
    gone.abort(new Error('the caller has left'));
    await assert.rejects(waiting, /the caller has left/);
    const away: Store = { ...world.store, get: () => Promise.reject(new Error('the store is away')) };
    await assert.rejects(world.wait(away), /the store is away/);
    assert.equal(world.listeners.size, 0);
  });
});
