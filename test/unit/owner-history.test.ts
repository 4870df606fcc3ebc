import assert from 'node:assert/strict';
import { keys, type VolumeDoc } from '../../controller/model/cluster.ts';
import { hasCode } from '../../controller/model/errors.ts';
import { type DatasetId, parseNodeName, type SnapshotName } from '../../controller/model/names.ts';
import { parseReplicationSnapshot } from '../../controller/model/replication.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import { createSnapshot, rollbackVolume } from '../../plugin/volumes/snapshots.ts';
import { purgeVolume, removeVolume, restoreVolume } from '../../plugin/volumes/trash.ts';
import { never } from '../support/plugin-context.ts';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const waitMs = 30_000;

describe('the history of an owner', () => {
  let cluster: SmallCluster;
  beforeEach(async () => {
    cluster = await startSmallCluster(['n1', 'n2', 'n3']);
  });
  afterEach(async () => await cluster.dispose());

  /** The store knows nothing of the volume "data" any more. */
  const forget = (id: string) =>
    cluster.client.transact([
      { kind: 'delete', key: keys.volume(id as DatasetId) },
      { kind: 'delete', key: keys.name('data' as never) },
    ]);

  describe('an owner that has nothing but a complete stream of the epoch before', () => {
    it('makes no stash of an older copy, as the document says that its history has all of that', async function () {
      this.timeout(3 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '1' });
      const id = n1.context.state.byName('data' as never)?.id ?? '';
      const second = await until('a copy is there', waitMs, () => {
        const [copy] = n1.agent.copies(id as never);
        return copy?.state === 'in-sync' ? copy.node : undefined;
      });
      const third = second === 'n2' ? 'n3' : 'n2';
      const end = await n1.use('data');
      await n1.write('data', 'first');
      await end();
      const stop = await cluster.node(second).use('data');
      // From here on n1 gets nothing, and so has no snapshot of this epoch.
      const free = Promise.withResolvers<void>();
      cluster.onStream = (_from, to) => (to === 'n1' ? free.promise : undefined);
      await cluster.node(second).write('data', 'second');
      await stop();
      const done = await cluster.node(third).use('data');
      free.resolve();
      await cluster.node(third).write('data', 'third');
      await done();

      const doc = () => cluster.node(third).agent.directory.byName('data' as never)?.doc;
      assert.deepEqual([doc()?.owner, doc()?.epoch], [third, 3]);
      assert.deepEqual(
        doc()?.bases?.map(({ began, epoch }) => [began, epoch]),
        [
          [2, 1],
          [3, 2],
        ],
      );
      const epochsOn = async (name: string) => {
        const { context, storage } = cluster.node(name);
        const record = context.state.byId(id as never);
        if (record === undefined || !(await storage.exists(id as never))) return null;
        return new Set((await storage.snapshots(id as never)).map(({ name: one }) => one.split('.')[2]));
      };
      assert.deepEqual(await epochsOn('n1'), new Set(['1']), 'n1 has nothing in common with the owner yet');
      await until('n1 follows, or has given up what it had', waitMs, async () => {
        const epochs = await epochsOn('n1');
        return epochs === null || epochs.has('3') ? true : undefined;
      });
      assert.deepEqual(
        cluster.told.filter(({ kind }) => kind === 'stashed'),
        [],
      );
      const phases = [...n1.context.state.all()].map(({ phase }) => phase.kind);
      assert.ok(!phases.includes('stashed'), phases.join());
    });
  });

  describe('a copy that is taken by force though it is older than others', () => {
    it('makes a stash of what the others have more', async function () {
      this.timeout(4 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '2', failover: 'manual' });
      const id = n1.context.state.byName('data' as never)?.id ?? '';
      const end = await n1.use('data');
      await n1.write('data', 'old');
      const namesOn = async (name: string) => (await cluster.node(name).storage.snapshots(id as never)).map(String);
      await until('both copies are there', waitMs, () => {
        const copies = n1.agent.copies(id as never);
        return copies.length === 2 && copies.every(({ state }) => state === 'in-sync') ? true : undefined;
      });
      const free = Promise.withResolvers<void>();
      const held = new Set(['n3']);
      cluster.onStream = (_from, to) => (held.has(to) ? free.promise : undefined);
      await n1.write('data', 'only on n1 and n2');
      await end();
      await cluster.node('n2').use('data');
      held.add('n1');
      await cluster.node('n2').write('data', 'only on n2');
      cluster.cutOff('n2');
      await until('n3 takes it', 2 * waitMs, () =>
        cluster
          .node('n3')
          .agent.takeOver('data' as never, { force: true }, AbortSignal.timeout(waitMs))
          .catch(() => undefined),
      );
      cluster.onStream = () => undefined;
      free.resolve();
      assert.ok((await namesOn('n1')).length > 0);
      const stop = await cluster.node('n3').use('data');
      assert.equal(await cluster.node('n3').read('data'), 'old');
      await cluster.node('n3').write('data', 'third');
      const stashed = await until('n1 has stashed what n3 has not', waitMs, () =>
        [...n1.context.state.all()].find(({ phase }) => phase.kind === 'stashed'),
      );
      assert.equal((await n1.storage.content.read(stashed.id, 'file'))?.toString(), 'only on n1 and n2');
      await stop();
    });
  });

  describe('a volume with more snapshots than one round of replication sends', () => {
    it('is handed over with all of them, and what came after', async function () {
      this.timeout(4 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '0' });
      const id = n1.context.state.byName('data' as never)?.id ?? '';
      const end = await n1.use('data');
      for (let number = 0; number < 140; number += 1)
        await createSnapshot(n1.context, 'data', `s${number}`, AbortSignal.timeout(waitMs));
      await n1.write('data', 'last');
      await end();
      const n2 = cluster.node('n2');
      const stop = await n2.use('data');
      assert.equal(await n2.read('data'), 'last');
      assert.ok((await n2.storage.snapshots(id as never)).length > 140);
      await stop();
    });
  });

  describe('a volume that the cluster knows nothing of any more', () => {
    it('is published with an epoch that nobody has seen', async function () {
      this.timeout(2 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '0' });
      const stop = await cluster.node('n2').use('data');
      await cluster.node('n2').write('data', 'kept');
      await stop();
      const { context } = cluster.node('n2');
      const id = context.state.byName('data' as never)?.id ?? '';
      const epoch = () => context.state.byId(id as never)?.epoch ?? 0;
      assert.equal(epoch(), 2);
      await forget(id);
      await until('it is there again', waitMs, () => (epoch() > 2 ? true : undefined));
      assert.equal(cluster.node('n3').agent.directory.byName('data' as never)?.doc.epoch, epoch());
      assert.equal(await cluster.node('n2').read('data'), 'kept');
    });
  });

  describe('a volume that was forgotten while it was handed over', () => {
    it('is published, too', async function () {
      this.timeout(2 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '0' });
      const { state } = n1.context;
      const record = state.byName('data' as never) as VolumeRecord;
      await forget(record.id);
      state.commit({ put: [{ ...record, phase: { kind: 'handing-over', to: parseNodeName('n2') } }] });
      await until('it is there again', waitMs, () =>
        state.byId(record.id)?.phase.kind === 'ready' ? true : undefined,
      );
      assert.ok((state.byId(record.id)?.epoch ?? 0) > 2);
    });
  });

  describe('what was brought back from the trash, but for a crash', () => {
    it('can be brought back again, and purged', async function () {
      this.timeout(2 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '0' });
      const { state } = n1.context;
      const record = state.byName('data' as never) as VolumeRecord;
      await removeVolume(n1.context, 'data', 'operator', never);
      await cluster.client.transact([{ kind: 'delete', key: keys.volume(record.id) }]);
      const { stamp } = n1.storage;
      n1.storage.stamp = () => Promise.reject(new Error('the plugin was killed'));
      await assert.rejects(restoreVolume(n1.context, record.id, 'other', never), /killed/);
      n1.storage.stamp = stamp;
      await until('record and document agree', waitMs, () =>
        (state.byId(record.id)?.epoch ?? 0) > 2 ? true : undefined,
      );
      await restoreVolume(n1.context, record.id, 'again', never);
      await removeVolume(n1.context, 'again', 'operator', never);
      await purgeVolume(n1.context, record.id, never);
      assert.equal(state.byId(record.id), undefined);
    });
  });

  describe('what a rollback has replaced', () => {
    it('is brought back from the trash as a volume of the cluster', async function () {
      this.timeout(2 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '1' });
      await createSnapshot(n1.context, 'data', 's1', never);
      await n1.write('data', 'later');
      const kept = await rollbackVolume(n1.context, 'data', 's1', never);
      await assert.rejects(restoreVolume(n1.context, kept.id, 'data', never), /already/);
      await restoreVolume(n1.context, kept.id, 'after', never);
      assert.equal(await n1.read('after'), 'later');
      await until(
        'others know it',
        waitMs,
        () => cluster.node('n2').agent.directory.byName('after' as never) ?? undefined,
      );
      await until('it has a copy', waitMs, () =>
        n1.agent.copies(kept.id).some(({ state }) => state === 'in-sync') ? true : undefined,
      );
    });
  });

  describe('a copy that is being taken', () => {
    it('is changed by its old owner no more, whatever that has asked for before', async function () {
      this.timeout(4 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '1', failover: 'manual' });
      const id = n1.context.state.byName('data' as never)?.id as DatasetId;
      const end = await n1.use('data');
      await n1.write('data', 'a');
      const second = cluster.node(
        await until(
          'a copy is there',
          waitMs,
          () => n1.agent.copies(id).find(({ state }) => state === 'in-sync')?.node,
        ),
      );
      const namesThere = async () => (await second.storage.snapshots(id)).map(({ name }) => name);
      const common = (await namesThere()).at(-1) as SnapshotName;
      await n1.write('data', 'b');
      await until('it has more', waitMs, async () => ((await namesThere()).at(-1) !== common ? true : undefined));
      await end();
      const before = await namesThere();
      cluster.cutOff('n1');
      // The old owner, whose people had just rolled back, reaches the copy still: in the moment of the takeover, and then for ever.
      const doc = n1.agent.directory.volume(id)?.doc as VolumeDoc;
      const old = parseNodeName('n1');
      const refusals: Promise<unknown>[] = [];
      cluster.onTransact = (from, operations) => {
        const isTake = operations.some(({ kind, key }) => kind === 'lock' && key === keys.volume(id));
        if (from !== second.name || !isTake || refusals.length > 0) return;
        const ask = { id, epoch: 1, common, isCovered: true };
        refusals.push(
          Promise.resolve(second.agent.answers['rewind-copy'](old, ask, never)).then(
            () => 'rewound',
            (error: unknown) => error,
          ),
          second.agent
            .receive(old, { doc, from: common, to: common, toIdentity: 'x' }, () => new Promise(() => undefined), never)
            .catch((error: unknown) => error),
        );
      };
      await until('it is taken', waitMs, () =>
        second.agent.takeOver('data' as never, { force: true }, never).catch(() => undefined),
      );
      for (const refusal of await Promise.all(refusals))
        assert.ok(hasCode(refusal, 'volume-busy') || hasCode(refusal, 'epoch-stale'), String(refusal));
      assert.equal(refusals.length, 2);
      assert.deepEqual(await namesThere(), before);
      const newest = parseReplicationSnapshot(before.at(-1) as SnapshotName);
      const base = second.agent.directory.volume(id)?.doc.bases?.at(-1);
      assert.deepEqual(base, { ...newest, began: 2 });
      assert.equal(await second.read('data'), 'b');
    });
  });

  describe('a volume that is being handed over', () => {
    it('has all its content in a snapshot before its record says so', async function () {
      this.timeout(2 * waitMs);
      const n1 = cluster.node('n1');
      await n1.create('data', { replicas: '1' });
      const id = n1.context.state.byName('data' as never)?.id as DatasetId;
      const end = await n1.use('data');
      await n1.write('data', 'last');
      await end();
      const phases: (string | undefined)[] = [];
      const { snapshot } = n1.storage;
      n1.storage.snapshot = async (of, name) => {
        if (of === id) phases.push(n1.context.state.byId(id)?.phase.kind);
        return await snapshot(of, name);
      };
      await n1.write('data', 'very last');
      await (await cluster.node('n2').use('data'))();
      assert.ok(phases.length > 0);
      assert.deepEqual([...new Set(phases)], ['ready']);
      assert.equal(await cluster.node('n2').read('data'), 'very last');
    });
  });
});
