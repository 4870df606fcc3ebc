import assert from 'node:assert/strict';
import { pruneTombstones, removedEpoch, tombstone } from '../../controller/cluster/tombstones.ts';
import { keys } from '../../controller/model/cluster.ts';
import type { DatasetId } from '../../controller/model/names.ts';
import { orphanDutyOf, orphansKeptMs } from '../../controller/model/ownership.ts';
import { createMemoryStore } from '../../controller/store/memory.ts';
import { purgeVolume, removeVolume } from '../../plugin/volumes/trash.ts';
import { never } from '../support/plugin-context.ts';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const waitMs = 30_000;

describe('copies of volumes that the store knows nothing of', () => {
  let cluster: SmallCluster;
  beforeEach(async () => {
    cluster = await startSmallCluster(['n1', 'n2']);
  });
  afterEach(async () => await cluster.dispose());

  /** A volume of n1 with a copy on n2. */
  async function copied(): Promise<DatasetId> {
    const n1 = cluster.node('n1');
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName('data' as never)?.id as DatasetId;
    await until('there is a copy', waitMs, () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined));
    return id;
  }
  const hasCopy = async (id: DatasetId) => await cluster.node('n2').storage.exists(id);
  /** The dataset itself may have to wait: see Transitions.withdraw. */
  const isGoing = (id: DatasetId) =>
    (cluster.node('n2').context.state.byId(id)?.phase.kind ?? 'destroying') === 'destroying';
  const forget = (id: DatasetId) =>
    cluster.client.transact([
      { kind: 'delete', key: keys.volume(id) },
      { kind: 'delete', key: keys.name('data' as never) },
    ]);

  it('are kept, and told of once, when nobody has removed the volume: the store may have been lost with its owner', async function () {
    this.timeout(2 * waitMs);
    const id = await copied();
    cluster.cutOff('n1');
    await forget(id);
    const told = () => cluster.told.filter(({ kind, node }) => kind === 'orphaned' && node === 'n2');
    await until('it is told', waitMs, () => (told().length > 0 ? true : undefined));
    assert.match(told()[0]?.text ?? '', /nobody has removed it: its copy here is kept/);
    assert.ok((await hasCopy(id)) && !isGoing(id));
    // It was removed before, and had come back since.
    await cluster.client.transact([tombstone({ id, epoch: 0 }, Date.now())]);
    assert.equal(await removedEpoch(cluster.client, id), 0);
    // With a tombstone of its own time it goes.
    await cluster.client.transact([tombstone({ id, epoch: 9 }, Date.now())]);
    await until('the copy goes', waitMs, () => (isGoing(id) ? true : undefined));
    assert.equal(told().length, 1);
  });

  it('go at once when the volume was removed', async function () {
    this.timeout(2 * waitMs);
    const id = await copied();
    const { context } = cluster.node('n1');
    await removeVolume(context, 'data', 'operator', never);
    await purgeVolume(context, id, never).catch(() => undefined);
    await until('the copy goes', waitMs, () => (isGoing(id) ? true : undefined));
    assert.ok(!cluster.told.some(({ kind }) => kind === 'orphaned'));
  });

  it('are destroyed for nothing but a removal, and become a stash after a day', () => {
    const seen = { isMember: true, isRemoved: false, forMs: 0 };
    assert.equal(orphanDutyOf(seen), 'keep');
    assert.equal(orphanDutyOf({ ...seen, forMs: orphansKeptMs }), 'stash');
    assert.equal(orphanDutyOf({ ...seen, isRemoved: true }), 'destroy');
    // Of an empty store nothing can be told, whatever else it says.
    assert.equal(orphanDutyOf({ isMember: false, isRemoved: true, forMs: orphansKeptMs }), 'keep');
  });

  it('are told by tombstones, which go after a month', async () => {
    const clock = { nowMs: () => performance.now(), sleep: async () => undefined };
    const store = createMemoryStore({ clock, random: Math.random, timeoutMs: 1_000 }).connect('test');
    const dayMs = 86_400_000;
    for (const [id, day] of [
      ['old.00000001', 1],
      ['new.00000002', 20],
    ] as const)
      await store.transact([tombstone({ id: id as DatasetId, epoch: 1 }, day * dayMs)]);
    await pruneTombstones(store, 40 * dayMs);
    assert.deepEqual(
      (await store.list(`${keys.allRemoved}/`)).map(({ key }) => key),
      [keys.removed('new.00000002' as DatasetId)],
    );
    await store.close();
  });
});
