import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { newestOf } from '../../controller/model/copy-order.ts';
import { type DatasetId, parseNodeName, parseSnapshotName, type SnapshotName } from '../../controller/model/names.ts';
import { type Identified, planTransfer, snapshotName } from '../../controller/model/replication.ts';
import { createBring, upToNext } from '../../plugin/cluster/bringing.ts';
import type { CopyState } from '../../plugin/cluster/ports.ts';
import { createWork, noteTaken, statusOf, targetOf } from '../../plugin/cluster/replication-work.ts';
import type { Replicated } from '../../plugin/cluster/replicator.ts';
import type { Snapshot, Storage } from '../../plugin/storage/storage.ts';
import { createRandom } from '../simulation/random.ts';
import { volumeDoc } from '../support/move-documents.ts';
import { silent } from '../support/proxy-fakes.ts';

const n2 = parseNodeName('n2');
const named = (identity: string): Snapshot => {
  const name = `flock.r.1.2027011${identity === 'first' ? 4 : 5}T080011544Z` as SnapshotName;
  return { name, identity, createdAtMs: 1, bytes: 0 } as unknown as Snapshot;
};

describe('bringing a copy up to date', () => {
  it('counts it for nothing while it is rewound: its answer may be late, or lost', async () => {
    const doc = volumeDoc('data', 'n1', { replicas: ['n2'] });
    const [first, second] = [named('first'), named('second')];
    const storage = {} as Storage;
    const work = createWork(storage, doc.id as DatasetId, { pruneAtMs: 1e12, pruneByMs: 1e12 });
    // A rollback has taken the second one away, and nothing was written since.
    work.history = [first];
    work.newest = { identity: second.identity, name: second.name, atMs: 0 };
    const target = targetOf(work, n2);
    target.copy = { epoch: 1, snapshots: [first, second] };
    target.currentAtMs = 0;
    const answer = Promise.withResolvers<CopyState>();
    const asked: string[] = [];
    const bring = createBring({
      storage,
      clock: { bootMs: () => 1 } as never,
      peers: {
        call(_node: unknown, name: string) {
          asked.push(name);
          return answer.promise;
        },
      } as never,
      log: silent,
    });
    const volume: Replicated = { doc, copies: [n2], isMounted: false };
    const done = bring(volume, work, target, { until: null, signal: new AbortController().signal });
    await turn();
    assert.deepEqual(asked, ['rewind-copy']);
    assert.notEqual(statusOf(work, target, 10).state, 'in-sync');
    assert.equal(statusOf(work, target, 10).lagMs, 10);
    answer.reject(new Error('no answer'));
    await assert.rejects(done, /no answer/);
    assert.equal(target.copy, null, 'it is asked for anew');
  });

  it('is far behind still with a snapshot that people made: that may be of any age', async () => {
    const doc = volumeDoc('data', 'n1', { replicas: ['n2'] });
    const [first, second] = [named('first'), named('second')];
    const hourly = { ...second, name: parseSnapshotName('hourly'), identity: 'hourly' };
    const unheld = [first, hourly, second].map((one) => ({ ...one, holds: [] }));
    const storage = {
      snapshots: async () => unheld,
      hold: async () => {},
      release: async () => {},
    } as unknown as Storage;
    const work = createWork(storage, doc.id as DatasetId, { pruneAtMs: 1e12, pruneByMs: 1e12 });
    work.history = [first, hourly, second];
    noteTaken(work, { identity: second.identity, name: second.name, atMs: 5_000 });
    const target = targetOf(work, n2);
    target.copy = { epoch: 1, snapshots: [first] };
    target.currentAtMs = 7;
    const lags: (number | null)[] = [];
    const bring = createBring({
      storage,
      clock: { bootMs: () => 10_000 } as never,
      peers: { transfer: async () => void lags.push(statusOf(work, target, 10_000).lagMs) } as never,
      log: silent,
    });
    await bring({ doc, copies: [n2], isMounted: false }, work, target, {
      until: null,
      signal: new AbortController().signal,
    });
    // Before the hourly one is sent, and after it.
    assert.deepEqual(lags, [9_993, 9_993]);
    assert.equal(target.currentAtMs, 5_000);
  });
});

describe('a copy that catches up through snapshots that people made', () => {
  /** A number is the time of one for replication, all else is people's. */
  const made = (one: number | string): Identified => ({
    name: typeof one === 'string' ? parseSnapshotName(one) : snapshotName(1, one),
    identity: String(one),
  });

  /** The next one that it gets; null: it has all. */
  function step(owner: readonly Identified[], copy: readonly Identified[] | null): Identified | null {
    const plan = planTransfer({
      owner: upToNext(owner, { snapshots: copy }),
      replica: copy,
      ownerEpoch: 1,
      replicaEpoch: 1,
    });
    assert.ok(plan.kind === 'full' || plan.kind === 'incremental' || plan.kind === 'in-sync', plan.kind);
    return plan.kind === 'in-sync' ? null : plan.to;
  }

  function stepsOf(owner: readonly (number | string)[], copy: readonly (number | string)[] | null): string {
    const snapshots = owner.map(made);
    let has = copy?.map(made) ?? null;
    const got: string[] = [];
    for (let to = step(snapshots, has); to !== null; to = step(snapshots, has)) {
      has = [...(has ?? []), to];
      got.push(to.identity);
    }
    return got.join(' ');
  }

  it('gets each, and before it what tells how far it is; a first copy gets nothing that could be taken for complete', () => {
    const owner = [1, 2, 'a', 3, 4, 'b', 'c', 5, 6];
    assert.equal(stepsOf(owner, [1]), '2 a 4 b c 6');
    assert.equal(stepsOf(owner, [1, 2]), 'a 4 b c 6');
    assert.equal(stepsOf(owner, [1, 2, 'a', 4]), 'b c 6');
    assert.equal(stepsOf(owner, null), 'a b c 6');
  });

  it('is newer than one that got less far, however far each is and whatever was thinned meanwhile', () => {
    const random = createRandom(1);
    for (let round = 0; round < 60; round += 1) {
      const all = Array.from({ length: 20 }, (_, at) => made(random.chance(0.3) ? `people-${at}` : at + 1));
      let owner = [made(0), ...all];
      // Each was complete at some time.
      const copies = Array.from({ length: 3 }, () => {
        const copy = { snapshots: [made(0)], asOfMs: null };
        const before = owner.slice(0, random.whole(1, 8));
        for (let to = step(before, copy.snapshots); to !== null; to = step(before, copy.snapshots))
          copy.snapshots.push(to);
        return copy;
      });
      for (let at = 0; at < 40; at += 1) {
        const copy = random.pick(copies);
        const to = step(owner, copy.snapshots);
        if (to !== null) copy.snapshots.push(to);
        const held = new Set(copies.map(({ snapshots }) => snapshots.at(-1)?.identity));
        owner = owner.filter(
          ({ name, identity }) => held.has(identity) || !name.startsWith('flock.') || random.chance(0.95),
        );
        const places = copies.map(({ snapshots }) =>
          [made(0), ...all].findIndex((one) => one.identity === snapshots.at(-1)?.identity),
        );
        const farthest = copies.filter((_, index) => places[index] === Math.max(...places));
        assert.deepEqual(newestOf(copies).copies, farthest, `round ${round}`);
      }
    }
  });
});
