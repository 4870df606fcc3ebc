import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { type DatasetId, parseNodeName, type SnapshotName } from '../../controller/model/names.ts';
import { createBring } from '../../plugin/cluster/bringing.ts';
import type { CopyState } from '../../plugin/cluster/ports.ts';
import { createWork, statusOf, targetOf } from '../../plugin/cluster/replication-work.ts';
import type { Replicated } from '../../plugin/cluster/replicator.ts';
import type { Snapshot, Storage } from '../../plugin/storage/storage.ts';
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
});
