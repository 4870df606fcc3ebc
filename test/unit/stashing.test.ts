import assert from 'node:assert/strict';
import { type DatasetId, parseHoldTag, parseSnapshotName, type SnapshotName } from '../../controller/model/names.ts';
import { noOptions } from '../../controller/model/options.ts';
import { parseReplicationSnapshot, snapshotName } from '../../controller/model/replication.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import { type Copies, createCopies } from '../../plugin/cluster/copies.ts';
import { finishDestroying } from '../../plugin/volumes/destroy.ts';
import { createSnapshot, listSnapshots } from '../../plugin/volumes/snapshots.ts';
import { removeStash, restoreStash } from '../../plugin/volumes/stash.ts';
import { createFixture, memoryHost, never, type PluginFixture } from '../support/plugin-context.ts';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const waitMs = 30_000;
const id = 'data.0123abcd' as DatasetId;
const kept = parseSnapshotName('before-upgrade');

const stashOf = (records: readonly VolumeRecord[]) => records.find(({ phase }) => phase.kind === 'stashed');

describe('a copy that has nothing in common with its owner', () => {
  let fixture: PluginFixture<Awaited<ReturnType<ReturnType<typeof memoryHost>>>>;
  beforeEach(async () => {
    fixture = await createFixture(memoryHost());
  });
  afterEach(async () => await fixture.dispose());

  /** As the owner of a copy that is not wanted any more has nothing, or there is no owner: see orphans.ts. */
  async function copiesWithOne(): Promise<Copies> {
    const { context, storage } = fixture;
    const { state, locks, clock, log } = context;
    const copies = createCopies({
      storage,
      state,
      locks,
      clock,
      directory: {} as never,
      stashMs: () => 1_000,
      destroy: (record) => finishDestroying(context, record),
      onStale: () => undefined,
      tell: () => undefined,
      log,
    });
    const { content } = storage;
    const plain = { quotaBytes: null, compression: null, recordSizeBytes: null, mode: null, uid: null, gid: null };
    await storage.create(id, { ...plain, properties: {}, stamp: '' });
    await content.write(id, 'file', 'before');
    await storage.snapshot(id, kept);
    await content.write(id, 'file', 'after');
    await storage.snapshot(id, snapshotName(3, 1_700_000_000_000));
    await storage.hold(id, snapshotName(3, 1_700_000_000_000), parseHoldTag('flock.owner'));
    const phase = { kind: 'replica', owner: 'n9', stashing: null } as never;
    state.commit({
      put: [{ id, name: 'data' as never, createdAtMs: 1, options: noOptions, epoch: 3, phase }],
    });
    fixture.nowMs += 60_000;
    return copies;
  }

  it('becomes a stash with all its snapshots when it is discarded, which are there again in the volume made of it', async () => {
    const copies = await copiesWithOne();
    const { context, storage } = fixture;
    const record = context.state.byId(id) as VolumeRecord;
    await copies.discard(record, { snapshots: [], history: [] }, never);
    assert.equal(context.state.byId(id), undefined);
    assert.equal(await storage.exists(id), false);
    const stash = stashOf(context.state.all()) as VolumeRecord;
    const names = async () => (await storage.snapshots(stash.id)).map(({ name }) => name);
    assert.deepEqual(await names(), [kept, snapshotName(3, 1_700_000_000_000)]);
    await restoreStash(context, stash.id, 'again', never);
    assert.deepEqual(
      (await listSnapshots(context, 'again')).map(({ name }) => name),
      [kept],
    );
    assert.equal((await storage.content.read(stash.id, 'file'))?.toString(), 'after');
  });

  it('is thrown away as a stash with its snapshots, held or not', async () => {
    const copies = await copiesWithOne();
    const { context, storage } = fixture;
    await copies.discard(context.state.byId(id) as VolumeRecord, { snapshots: [], history: [] }, never);
    const stash = stashOf(context.state.all()) as VolumeRecord;
    await removeStash(context, stash.id, never);
    assert.deepEqual([await storage.list(), context.state.all()], [[], []]);
  });

  it('is one stash, whole, where a crash came before its record said so', async () => {
    const copies = await copiesWithOne();
    const { context, storage } = fixture;
    const aside = 'data.deadbeef' as DatasetId;
    const record = context.state.byId(id) as VolumeRecord;
    const stashing = { aside, common: null, isCovered: false };
    context.state.commit({ put: [{ ...record, phase: { kind: 'replica', owner: 'n9' as never, stashing } }] });
    await storage.rename(id, aside);
    await copies.finish(id, never);
    assert.equal(context.state.byId(aside)?.phase.kind, 'stashed');
    assert.deepEqual(
      (await storage.snapshots(aside)).map(({ name }) => name),
      [kept, snapshotName(3, 1_700_000_000_000)],
    );
  });
});

describe('an owner that comes back when nothing of its history is left', () => {
  let cluster: SmallCluster;
  beforeEach(async () => {
    cluster = await startSmallCluster(['n1', 'n2']);
  });
  afterEach(async () => await cluster.dispose());

  it('keeps the snapshots that only it has as a stash, which becomes a volume that is thinned, and follows', async function () {
    this.timeout(3 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1' });
    const data = n1.context.state.byName('data' as never)?.id as DatasetId;
    await until('there is a copy', waitMs, () => (n1.agent.copies(data)[0]?.state === 'in-sync' ? true : undefined));
    const end = await n1.use('data');
    // One that was never sent; of all others, so the new owner says, it has thinned its own.
    await n2.storage.snapshot(data, kept);
    await n2.agent.answers['rewind-copy'](n1.name, { id: data, epoch: 1, common: null, isCovered: false }, never);
    const stash = await until('it is a stash', waitMs, () => stashOf([...n2.context.state.all()]));
    assert.ok((await n2.storage.snapshots(stash.id)).some(({ name }) => name === kept));
    await n1.write('data', 'newest');
    await until('the copy follows', waitMs, async () =>
      (await n2.storage.content.read(data, 'file').catch(() => null))?.toString() === 'newest' ? true : undefined,
    );
    await end();
    const restored = await restoreStash(n2.context, stash.id, 'again', never);
    const epochs = (names: readonly SnapshotName[]) =>
      names.flatMap((name) => parseReplicationSnapshot(name)?.epoch ?? []);
    const inIt = (await n2.storage.snapshots(stash.id)).map(({ name }) => name);
    assert.ok(restored.epoch > Math.max(...epochs(inIt)), `${restored.epoch} after ${inIt.join()}`);
    await createSnapshot(n2.context, 'again', 'later', never);
    assert.deepEqual(
      (await listSnapshots(n2.context, 'again')).map(({ name }) => name),
      [kept, 'later'],
    );
  });
});
