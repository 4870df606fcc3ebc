import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatasetId } from '../../controller/model/names.ts';
import { createCommands } from '../../plugin/exec.ts';
import { createHost, type Host } from '../../plugin/storage/btrfs/host.ts';
import { rollbackSteps } from '../../plugin/storage/btrfs/rollback.ts';
import { receiveSteps } from '../../plugin/storage/btrfs/transfer.ts';
import {
  assertText,
  type Bench,
  bytes,
  datasetOf,
  mebi,
  namesOf,
  newId,
  openBench,
  options,
  snap,
  tag,
} from '../contract/storage/context.ts';
import { received, sent } from '../contract/storage/streams.ts';
import { type BtrfsPool, command, openBtrfsPool } from '../support/btrfs-pool.ts';
import { rejects } from '../support/refuses.ts';

describe('btrfs volumes', function () {
  this.timeout(60_000);
  let pool: BtrfsPool;
  let bench: Bench;
  let host: Host;

  before(async () => {
    pool = await openBtrfsPool();
    bench = await openBench(pool, { poolBytes: 400 * mebi });
    host = createHost(pool.config, createCommands());
  });
  after(() => bench.dispose());

  /** The process that was interrupted is gone; another one starts. */
  async function restarted(): Promise<Bench> {
    await bench.storage.close();
    return { ...bench, storage: pool.again() };
  }

  async function history(): Promise<DatasetId> {
    const id = newId();
    await bench.storage.create(id, options({ stamp: 'before', quotaBytes: 32 * mebi }));
    for (const step of ['0', '1', '2', '3']) {
      await bench.content.write(id, 'file', step);
      if (step !== '3') await bench.storage.snapshot(id, snap(`s${step}`));
    }
    return id;
  }

  const crashes: Readonly<Record<string, (rollback: Parameters<typeof rollbackSteps.makeLive>[1]) => Promise<void>>> = {
    'after the live content was put aside': (rollback) => rollbackSteps.keepAside(host, rollback),
    'while snapshots were moved': async (rollback) => {
      await rollbackSteps.keepAside(host, rollback);
      const { layout } = host;
      await mkdir(layout.snapshotsOf(rollback.aside));
      await rename(layout.snapshotFolder(rollback.id, snap('s2')), layout.snapshotFolder(rollback.aside, snap('s2')));
    },
    'before the snapshot became live': async (rollback) => {
      await rollbackSteps.keepAside(host, rollback);
      await rollbackSteps.moveYounger(host, rollback);
      await command('btrfs', 'subvolume', 'create', host.layout.work(rollback.id, 'live'));
    },
  };
  for (const [when, crash] of Object.entries(crashes)) {
    it(`a rollback that was cut short ${when} is finished by repeating it`, async () => {
      const [id, aside] = [await history(), newId('aside')];
      await bench.storage.hold(id, snap('s2'), tag('moves'));
      const rollback = { id, name: snap('s0'), aside, options: options({ stamp: 'after', quotaBytes: 32 * mebi }) };
      await crash(rollback);
      const next = await restarted();
      assert.equal(await next.storage.exists(id), false);
      // Its snapshots are still there, so nothing else may take its place.
      await rejects(next.storage.create(id, options()), 'storage-failed');
      await next.storage.rollback(id, rollback.name, aside, rollback.options);
      await next.storage.rollback(id, rollback.name, aside, rollback.options);
      assert.deepEqual(await namesOf(next, id), ['s0']);
      assert.deepEqual(await namesOf(next, aside), ['s1', 's2']);
      assert.deepEqual((await next.storage.snapshots(aside)).at(-1)?.holds, ['moves']);
      assert.deepEqual([(await datasetOf(next, id)).stamp, (await datasetOf(next, aside)).stamp], ['after', 'before']);
      assert.equal((await datasetOf(next, id)).quotaBytes, 32 * mebi);
      await assertText(next, id, 'file', '0');
      await assertText(next, aside, 'file', '3');
    });
  }

  it('a renaming that was cut short is finished by repeating it, with the subvolumes in the volume', async () => {
    const [id, other] = [await history(), newId('other')];
    await bench.storage.hold(id, snap('s1'), tag('moves'));
    const nested = join(await bench.storage.mount(id), 'nested');
    await command('btrfs', 'subvolume', 'create', nested);
    await writeFile(join(nested, 'only'), 'here');
    await bench.storage.unmount(id);
    await rollbackSteps.keepAside(host, { id, aside: other });
    const next = await restarted();
    assert.equal(await next.storage.exists(id), false);
    await next.storage.rename(id, other);
    await next.storage.rename(id, other);
    assert.deepEqual(await namesOf(next, other), ['s0', 's1', 's2']);
    assert.deepEqual((await next.storage.snapshots(other))[1]?.holds, ['moves']);
    assert.equal((await datasetOf(next, other)).stamp, 'before');
    assert.equal((await next.content.read(other, 'nested/only'))?.toString(), 'here');
    // Nothing is left of the old id.
    await next.storage.create(id, options());
    assert.deepEqual(await namesOf(next, id), []);
  });

  for (const steps of [0, 1, 2, 3]) {
    it(`an increment that was cut short after ${steps} steps can be received again`, async () => {
      const source = await history();
      const replica = newId('replica');
      await received(bench, await sent(bench, source, snap('s0')), { id: replica, to: snap('s0') });
      const stream = await sent(bench, source, snap('s1'), snap('s0'));
      const work = host.layout.work(replica, 'receive');
      await mkdir(work);
      await writeFile(join(bench.directory, 'cut'), stream);
      await command('btrfs', 'receive', '-q', '-f', join(bench.directory, 'cut'), work);
      const target = { id: replica, to: snap('s1'), from: snap('s0') };
      const request = { ...target, stamp: 'x' };
      if (steps > 0) await receiveSteps.makeLive(host, request, true);
      if (steps > 1) await receiveSteps.setOldAside(host, request);
      if (steps > 2) await receiveSteps.showLive(host, request);
      const next = await restarted();
      assert.equal(await next.storage.exists(replica), true);
      assert.deepEqual(await readdir(host.layout.incoming), []);
      assert.deepEqual(await namesOf(next, replica), ['s0']);
      await received(next, stream, target);
      assert.deepEqual(await namesOf(next, replica), ['s0', 's1']);
      await assertText(next, replica, 'file', '1');
    });
  }

  it('a complete stream that was taken but not shown when the host went down can be received again', async () => {
    const [source, replica] = [await history(), newId('replica')];
    const stream = await sent(bench, source, snap('s0'));
    await received(bench, stream, { id: replica, to: snap('s0') });
    await command('btrfs', 'subvolume', 'delete', host.layout.live(replica));
    const next = await restarted();
    assert.equal(await next.storage.exists(replica), false);
    await received(next, stream, { id: replica, to: snap('s0') });
    await assertText(next, replica, 'file', '0');
  });

  it('what broken work left in the pool is gone when it is opened', async () => {
    const { incoming } = host.layout;
    await command('btrfs', 'subvolume', 'create', join(incoming, 'x.00000001.live'));
    await mkdir(join(incoming, 'x.00000001.receive'));
    await command('btrfs', 'subvolume', 'create', join(incoming, 'x.00000001.receive/s1'));
    await writeFile(join(incoming, 'x.00000001.stamp'), 'half');
    const next = await restarted();
    await next.storage.list();
    assert.deepEqual(await readdir(incoming), []);
  });

  it('a volume in which a container made subvolumes is destroyed with them', async () => {
    const id = await history();
    const path = await bench.storage.mount(id);
    for (const name of ['nested', 'nested/deep er', 'nested/deep er/deepest'])
      await command('btrfs', 'subvolume', 'create', join(path, name));
    await bench.storage.unmount(id);
    await bench.storage.destroy(id);
    assert.equal(await bench.storage.exists(id), false);
  });

  it('a bare directory that somebody wrote into is not removed', async () => {
    const id = await history();
    const path = bench.storage.mountPath(id);
    await mkdir(path, { recursive: true });
    await writeFile(join(path, 'precious'), 'text');
    await bench.storage.mount(id);
    await bench.storage.unmount(id);
    assert.equal(await readFile(join(path, 'precious'), 'utf8'), 'text');
  });

  it('a mount that shows something else is replaced', async () => {
    const id = await history();
    const path = bench.storage.mountPath(id);
    await mkdir(path, { recursive: true });
    await command('mount', '-t', 'tmpfs', 'stranger', path);
    await bench.storage.mount(id);
    assert.equal(await readFile(join(path, 'file'), 'utf8'), '3');
    await bench.storage.unmount(id);
  });

  it('a volume that is over its limit can be given more, or no limit, but not less', async () => {
    for (const more of [20 * mebi, null]) {
      const id = newId();
      await bench.storage.create(id, options({ quotaBytes: 32 * mebi }));
      await bench.content.write(id, 'file', bytes(12 * mebi));
      await host.limit(4 * mebi, host.layout.live(id));
      await host.sync();
      await rejects(bench.storage.resize(id, 3 * mebi), 'quota-below-usage');
      await bench.storage.resize(id, more);
      assert.equal((await datasetOf(bench, id)).quotaBytes, more);
      await bench.content.write(id, 'another', bytes(mebi));
      await bench.storage.destroy(id);
    }
  });

  it('an increment is received whatever the old limit of its base was', async () => {
    const [old, fresh] = [await history(), newId('replica')];
    await bench.storage.rollback(old, snap('s2'), newId('aside'), options({ quotaBytes: 32 * mebi }));
    await received(bench, await sent(bench, old, snap('s2')), { id: fresh, to: snap('s2') });
    await bench.content.write(fresh, 'big', bytes(48 * mebi));
    await bench.storage.snapshot(fresh, snap('s3'));
    const stream = await sent(bench, fresh, snap('s3'), snap('s2'));
    await received(bench, stream, { id: old, to: snap('s3'), from: snap('s2') });
    assert.ok((await datasetOf(bench, old)).usedBytes >= 48 * mebi);
    await bench.storage.destroy(old);
    await bench.storage.destroy(fresh);
  });

  it('source and replicas may be in one pool, and are told apart from strangers', async () => {
    const [source, one, two] = [await history(), newId('replica'), newId('replica')];
    const identity = (await bench.storage.snapshots(source))[0]?.identity;
    for (const id of [one, two]) {
      const copy = await received(bench, await sent(bench, source, snap('s0')), { id, to: snap('s0') });
      assert.equal(copy.identity, identity);
      const increment = await sent(bench, source, snap('s1'), snap('s0'));
      await received(bench, increment, { id, to: snap('s1'), from: snap('s0') });
    }
    // The base of this stream is in the pool, but it is not the newest snapshot of this dataset.
    const stranger = await history();
    const stream = await sent(bench, source, snap('s2'), snap('s1'));
    await received(bench, stream, { id: two, to: snap('s2'), from: snap('s1') });
    await bench.storage.rollback(stranger, snap('s1'), newId('aside'), options());
    const lie = { id: stranger, to: snap('s2'), from: snap('s1') };
    await rejects(received(bench, stream, lie), 'no-common-snapshot');
    const complete = await sent(bench, source, snap('s2'));
    await rejects(received(bench, complete, lie), 'stream-invalid');
    await rejects(received(bench, stream, { id: newId(), to: snap('s2') }), 'stream-invalid');
    assert.deepEqual(await namesOf(bench, stranger), ['s0', 's1']);
    await assertText(bench, two, 'file', '2');
  });

  it('compression reaches the disk and travels with clones', async () => {
    const id = newId();
    await bench.storage.create(id, options({ compression: 'on' }));
    const clone = newId('clone');
    await bench.storage.clone({ id, snapshot: null }, clone, options());
    for (const dataset of [id, clone]) {
      await bench.content.write(dataset, 'zeros', Buffer.alloc(8 * mebi));
      assert.ok((await datasetOf(bench, dataset)).usedBytes < 2 * mebi);
    }
    const plain = newId('clone');
    await bench.storage.clone({ id, snapshot: null }, plain, options({ compression: 'off' }));
    await bench.content.write(plain, 'more', Buffer.alloc(8 * mebi));
    assert.ok((await datasetOf(bench, plain)).usedBytes >= 8 * mebi);
  });
});
