import assert from 'node:assert/strict';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import { datasetIdFor, parseSnapshotName, parseVolumeName, type SnapshotName } from '../../controller/model/names.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import { resizeVolume } from '../../plugin/volumes/change.ts';
import { limitVolumes } from '../../plugin/volumes/limit.ts';
import { never } from '../support/plugin-context.ts';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const waitMs = 30_000;

describe('replication of a volume', () => {
  let cluster: SmallCluster;
  beforeEach(async () => {
    cluster = await startSmallCluster(['n1', 'n2']);
  });
  afterEach(async () => await cluster.dispose());

  it('brings the last writes before an unmount also if the pool refuses a snapshot just then', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    const end = await n1.use('data');
    const arrived = (text: string) =>
      until(`the copy has ${text}`, waitMs, async () => {
        const [copy] = n1.agent.copies(id);
        const newest = (await n2.storage.snapshots(id).catch(() => [])).at(-1);
        if (copy?.state !== 'in-sync' || newest === undefined) return undefined;
        return (await n2.storage.content.read(id, 'file'))?.toString() === text ? true : undefined;
      });
    await n1.write('data', 'first');
    await arrived('first');
    const { snapshot } = n1.storage;
    let refused = 0;
    n1.storage.snapshot = async () => {
      refused += 1;
      throw new FlockError('pool-full', 'no room for a snapshot');
    };
    await n1.write('data', 'last');
    await end();
    await until('it was refused after the unmount', waitMs, () => (refused > 1 ? true : undefined));
    n1.storage.snapshot = snapshot;
    await arrived('last');
  });

  it('leaves a copy alone that an old request would have go back, and that has got more since', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    await until('there is a copy', waitMs, () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined));
    const before = await n2.storage.snapshots(id);
    const ask = { id, epoch: 1, common: null, isCovered: true };
    const late = await n2.agent.answers['rewind-copy'](n1.name, { ...ask, head: 'of an hour ago' }, never);
    assert.deepEqual(
      late.snapshots?.map(({ identity }) => identity),
      before.map(({ identity }) => identity),
    );
    const head = before.at(-1)?.identity ?? null;
    assert.equal((await n2.agent.answers['rewind-copy'](n1.name, { ...ask, head }, never)).snapshots, null);
  });

  it('gives a volume the size that it has by now wherever it becomes the volume', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1', size: '1M' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    await until('there is a copy', waitMs, () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined));
    await resizeVolume(n1.context, 'data', 4 * 1024 ** 2, never);
    const large = 'x'.repeat(2 * 1024 ** 2);
    const end = await n2.use('data');
    await n2.write('data', large);
    assert.equal(await n2.read('data'), large);
    await end();
    await until('it has its limit', waitMs, async () =>
      (await n2.storage.list())[0]?.quotaBytes === 4 * 1024 ** 2 ? true : undefined,
    );
  });

  it('gets the limit of its size when its pool can, and nobody waits for that', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1', size: '1M' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    await until('there is a copy', waitMs, () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined));
    const quota = async () => (await n2.storage.list()).find((one) => one.id === id)?.quotaBytes;
    const recordHere = () => n2.context.state.byId(id);
    const { resize } = n2.storage;
    let refusals = 0;
    n2.storage.resize = async (...args) => {
      refusals += 1;
      // Nothing is done; or it is done, and nobody hears of it.
      if (refusals === 3) await resize(...args);
      if (refusals <= 3) throw new FlockError('pool-unusable', 'not now');
      await resize(...args);
    };
    await resizeVolume(n1.context, 'data', 4 * 1024 ** 2, never);
    const end = await n2.use('data');
    assert.deepEqual([await quota(), recordHere()?.phase], [null, { kind: 'ready', unlimited: true }]);
    await until('it was tried', waitMs, () => refusals > 0 || undefined);
    // As each sweep does.
    for (let sweep = 0; sweep < 3; sweep += 1) await limitVolumes(n2.context, never);
    assert.deepEqual(recordHere()?.phase, { kind: 'ready' });
    assert.deepEqual([await quota(), recordHere()?.options.sizeBytes], [4 * 1024 ** 2, 4 * 1024 ** 2]);
    await end();
    const back = await n1.use('data');
    // The first attempt to take its limit away fails as well.
    refusals = 2;
    await resizeVolume(n1.context, 'data', null, never);
    await n1.write('data', 'x'.repeat(6 * 1024 ** 2));
    await until('the copy has it, and no limit', waitMs, async () =>
      (await n2.storage.content.read(id, 'file'))?.length === 6 * 1024 ** 2 && (await quota()) === null
        ? true
        : undefined,
    );
    await n1.write('data', 'more');
    await until('that is known', waitMs, () => (recordHere()?.options.sizeBytes === null ? true : undefined));
    assert.ok(isUnlimited());
    await back();

    function isUnlimited(): boolean {
      return 'unlimited' in (recordHere()?.phase ?? {});
    }
  });

  it('limits no copy, which gets what the volume had before it was made smaller, too, and the volume wherever it goes', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1', size: '4M' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    const quota = async () => (await n2.storage.list()).find((one) => one.id === id)?.quotaBytes;
    const inSync = () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined);
    await until('there is a copy', waitMs, inSync);
    assert.equal(await quota(), null);
    // As a copy that was the volume has one still.
    await n2.storage.resize(id, 1024 ** 2);
    const record = n2.context.state.byId(id) as VolumeRecord;
    n2.context.state.commit({ put: [{ ...record, options: { ...record.options, sizeBytes: 1024 ** 2 } }] });
    const end = await n1.use('data');
    const { receive } = n2.storage;
    let refused = 0;
    // As OpenZFS does.
    n2.storage.receive = async (request, source, signal) => {
      const limit = await quota();
      if (limit === null || limit === undefined) return await receive(request, source, signal);
      refused += 1;
      throw new FlockError('storage-failed', 'quota exceeded');
    };
    await n1.write('data', 'x'.repeat(2 * 1024 ** 2));
    await n1.storage.snapshot(id, parseSnapshotName('large'));
    await n1.write('data', 'small');
    await resizeVolume(n1.context, 'data', 1024 ** 2, never);
    await until('the copy follows', waitMs, async () =>
      (await n2.storage.content.read(id, 'file'))?.toString() === 'small' ? true : undefined,
    );
    assert.deepEqual([await quota(), refused], [null, 0]);
    await end();
    const end2 = await n2.use('data');
    await until('it has its limit', waitMs, async () => ((await quota()) === 1024 ** 2 ? true : undefined));
    await end2();
  });

  it('lets a copy go back to what was larger than the volume may be by now', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1', size: '4M' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    const end = await n1.use('data');
    await n1.write('data', 'x'.repeat(2 * 1024 ** 2));
    await until('the copy has it', waitMs, async () =>
      (await n2.storage.list().catch(() => []))[0]?.usedBytes === 2 * 1024 ** 2 ? true : undefined,
    );
    await end();
    // The last that both have is as large as that.
    const common = (await n1.storage.snapshots(id)).at(-1)?.identity;
    await until('the copy has the same', waitMs, async () =>
      (await n2.storage.snapshots(id)).at(-1)?.identity === common ? true : undefined,
    );
    // As if that node had been the owner, and somebody had made it smaller there.
    await n2.storage.content.write(id, 'file', 'own');
    await n2.storage.snapshot(id, parseSnapshotName('own'));
    await n2.storage.resize(id, 1024 ** 2);
    const record = n2.context.state.byId(id) as VolumeRecord;
    n2.context.state.commit({ put: [{ ...record, options: { ...record.options, sizeBytes: 1024 ** 2 } }] });
    const again = await n1.use('data');
    await n1.write('data', 'small');
    await resizeVolume(n1.context, 'data', 1024 ** 2, never);
    await until('the copy follows again', waitMs, async () =>
      (await n2.storage.content.read(id, 'file'))?.toString() === 'small' ? true : undefined,
    );
    await again();
    const end2 = await n2.use('data');
    await until('it has its limit', waitMs, async () =>
      (await n2.storage.list()).find((one) => one.id === id)?.quotaBytes === 1024 ** 2 ? true : undefined,
    );
    await end2();
  });

  it('leaves no copy in the middle of going back when its owner is gone', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    await until('there is a copy', waitMs, () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined));
    const { state } = n2.context;
    const common = (await n2.storage.snapshots(id)).at(-1)?.name as SnapshotName;
    // As after a crash between the two steps of a rollback on btrfs or zfs: the dataset has the other name, and its snapshots, too.
    const stashing = { aside: datasetIdFor(parseVolumeName('data'), 'deadbeef'), common, isCovered: false };
    const isHalf = () => (state.byId(id)?.phase as { stashing?: unknown } | undefined)?.stashing != null;
    const { exists } = n2.storage;
    n2.storage.exists = async (which) => (which !== id || !isHalf()) && (await exists(which));
    cluster.cutOff('n1');
    const record = state.byId(id) as VolumeRecord;
    state.commit({ put: [{ ...record, phase: { kind: 'replica', owner: n1.name, stashing } }] });
    await until('n2 owns it', waitMs, () => (state.byId(id)?.phase.kind === 'ready' ? true : undefined));
    assert.equal(state.byId(stashing.aside)?.phase.kind, 'stashed');
  });

  it('does not have a takeover wait for what the dead owner was sending', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    await until('there is a copy', waitMs, () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined));
    const doc = n2.agent.directory.volume(id)?.doc as VolumeDoc;
    const from = (await n2.storage.snapshots(id)).at(-1)?.name as SnapshotName;
    const transfer = { doc, from, to: parseSnapshotName('never'), toIdentity: 'never' };
    // Of a host without power nothing comes any more, no end either.
    let isBegun = false;
    const stream = n2.agent.receive(
      n1.name,
      transfer,
      (receive) => {
        isBegun = true;
        return receive(-1, never);
      },
      never,
    );
    await until('it has begun', waitMs, () => (isBegun ? true : undefined));
    cluster.cutOff('n1');
    await Promise.all([
      assert.rejects(stream),
      until('n2 owns it', waitMs, () => (n2.context.state.byId(id)?.phase.kind === 'ready' ? true : undefined)),
    ]);
  });

  it('sets aside what a copy has beyond its newest snapshot, and goes on', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    await until('there is a copy', waitMs, () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined));
    // As of an owner that died, whose state file was lost with its host's disk, and that was found again by its stamp.
    await n2.storage.content.write(id, 'file', 'only here');
    const end = await n1.use('data');
    await n1.write('data', 'new');
    await until('the copy follows', waitMs, async () =>
      (await n2.storage.content.read(id, 'file').catch(() => null))?.toString() === 'new' ? true : undefined,
    );
    await end();
    const [stash] = n2.context.state.all().filter(({ phase }) => phase.kind === 'stashed');
    assert.equal((await n2.storage.content.read(stash?.id as never, 'file'))?.toString(), 'only here');
  });
});
