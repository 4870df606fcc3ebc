import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { pino } from 'pino';
import { type DatasetId, datasetIdFor, parseVolumeName } from '../../controller/model/names.ts';
import { createFence } from '../../plugin/cluster/fence.ts';
import type { Proofs } from '../../plugin/cluster/proofs.ts';

const [one, two] = ['one', 'two'].map((name) => datasetIdFor(parseVolumeName(name), '00000001')) as [
  DatasetId,
  DatasetId,
];
const fenceAfterMs = 1_000;

describe('the fence', () => {
  let nowMs = 0;
  const provenAtMs = new Map<DatasetId, number>();
  const signals: string[] = [];
  /** Of this volume users can't be stopped. */
  let stuck: DatasetId | null = null;
  let withdrawn: DatasetId | null = null;
  let published: ReadonlyMap<DatasetId, number> = new Map();
  /** While the processes to be thawed are looked for. */
  let meanwhile: () => void = () => undefined;
  let stop = new AbortController();

  /** Runs rounds one tick apart. `using`: the volumes; `containers`: which of them each container has together. */
  function start(using: readonly DatasetId[], containers: readonly (readonly DatasetId[])[] = [using]) {
    let next: () => void = () => undefined;
    const fence = createFence({
      clock: {
        bootMs: () => nowMs,
        nowMs: () => nowMs,
        randomHex: () => '',
        sleep: (_ms, signal) =>
          new Promise((resolve) => {
            next = resolve;
            signal.addEventListener('abort', () => resolve(), { once: true });
          }),
      },
      users: {
        using: async () => new Set(using),
        async freeze(ids) {
          signals.push(`stop ${ids.join(' ')}`);
          if (stuck !== null && ids.includes(stuck)) throw new Error('one of them does not stand');
        },
        async thaw(ids, guarded, mayWrite) {
          meanwhile();
          for (const container of containers) {
            const used = container.filter((id) => guarded.includes(id));
            if (used.some((id) => ids.includes(id)) && used.every(mayWrite)) signals.push('go on');
          }
        },
        stop: async () => undefined,
      },
      proofs: { provenAtMs: (id) => provenAtMs.get(id) ?? Number.NEGATIVE_INFINITY } as Proofs,
      fenceAfterMs,
      owned: () => using,
      isWithdrawn: (id) => id === withdrawn,
      async publish(deadlines) {
        published = deadlines;
      },
      onChange: () => undefined,
      log: pino({ level: 'silent' }),
    });
    const running = fence.run(stop.signal);
    async function round(ms: number): Promise<void> {
      await settled();
      nowMs += ms;
      next();
      await settled();
    }
    return { fence, round, running };
  }

  /** All that follows from what is resolved. */
  async function settled(): Promise<void> {
    for (let turns = 0; turns < 10; turns += 1) await turn();
  }

  beforeEach(() => {
    nowMs = 10_000;
    provenAtMs.clear();
    signals.length = 0;
    stuck = null;
    withdrawn = null;
    meanwhile = () => undefined;
    stop = new AbortController();
  });
  afterEach(() => stop.abort());

  it('stops users when the proof has run out, and lets them go on when there is another one', async () => {
    provenAtMs.set(one, nowMs);
    const { fence, round } = start([one]);
    await round(0);
    assert.deepEqual(signals.splice(0), ['go on'], 'what a predecessor may have stopped');
    await round(fenceAfterMs);
    assert.deepEqual(signals.splice(0), [`stop ${one}`]);
    assert.equal(fence.isFrozen(one), true);
    provenAtMs.set(one, nowMs);
    await round(100);
    assert.equal(signals[0], 'go on');
    // Once more, for the watchdog went by the old deadline until the new one was told.
    await round(100);
    assert.equal(fence.isFrozen(one), false);
  });

  it('does not let users go on when it stood still between the decision and the signal until the proof ran out', async () => {
    provenAtMs.set(one, nowMs);
    const { fence, round } = start([one]);
    await round(fenceAfterMs);
    signals.length = 0;
    provenAtMs.set(one, nowMs);
    meanwhile = () => {
      nowMs += fenceAfterMs;
    };
    await round(100);
    assert.deepEqual(signals, []);
    assert.equal(fence.isFrozen(one), true);
  });

  it('does not let a container go on for one of its volumes while another one is not proven', async () => {
    provenAtMs.set(one, nowMs).set(two, nowMs);
    const { round } = start([one, two]);
    await round(fenceAfterMs);
    signals.length = 0;
    provenAtMs.set(one, nowMs);
    await round(100);
    assert.deepEqual(signals, []);
    provenAtMs.set(two, nowMs);
    await round(100);
    assert.deepEqual(signals, ['go on']);
  });

  it('lets users of other volumes go on, and tells their deadlines, while one process can’t be stopped', async () => {
    provenAtMs.set(one, nowMs).set(two, nowMs);
    const { fence, round } = start([one, two], [[one], [two]]);
    await round(fenceAfterMs);
    stuck = one;
    provenAtMs.set(two, nowMs);
    for (let rounds = 0; rounds < 5; rounds += 1) await round(100);
    assert.equal(fence.isFrozen(two), false);
    assert.equal(fence.isFrozen(one), true);
    assert.ok(signals.includes('go on'));
    provenAtMs.set(two, nowMs);
    for (let rounds = 0; rounds < 8; rounds += 1) await round(100);
    assert.equal(published.get(two), nowMs - 800 + fenceAfterMs);
    assert.ok(signals.includes(`stop ${one}`), 'it is tried again');
  });

  it('has the watchdog stop the users of what is given up, should it not come to that itself', async () => {
    provenAtMs.set(one, nowMs);
    const { fence, round } = start([one]);
    await round(0);
    withdrawn = one;
    provenAtMs.delete(one);
    await fence.watch(one);
    assert.ok(
      (published.get(one) ?? Number.NEGATIVE_INFINITY) > Number.NEGATIVE_INFINITY,
      'what has no deadline is not looked at',
    );
    assert.ok((published.get(one) ?? nowMs) < nowMs);
    signals.length = 0;
    await round(100);
    assert.deepEqual(signals, [`stop ${one}`]);
  });
});
