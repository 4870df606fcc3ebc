import assert from 'node:assert/strict';
import { FlockError } from '../../controller/model/errors.ts';
import { parseVolumeName } from '../../controller/model/names.ts';
import { snapshotName } from '../../controller/model/replication.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { createMemory } from '../../plugin/storage/memory.ts';
import { useGraceMs } from '../../plugin/uses.ts';
import { protectVolume, resizeVolume } from '../../plugin/volumes/change.ts';
import { createVolume } from '../../plugin/volumes/create.ts';
import { limitVolumes } from '../../plugin/volumes/limit.ts';
import { mountVolume, sweepMounts, unmountVolume } from '../../plugin/volumes/mounts.ts';
import { recover } from '../../plugin/volumes/recover.ts';
import { createSnapshot, listSnapshots, removeSnapshot, rollbackVolume } from '../../plugin/volumes/snapshots.ts';
import { purgeVolume, removeVolume, restoreVolume, sweepTrash, trashedVolumes } from '../../plugin/volumes/trash.ts';
import { createFixture, memoryHost, never, type PluginFixture } from '../support/plugin-context.ts';
import { rejects } from '../support/refuses.ts';

type Memory = ReturnType<typeof createMemory>;

describe('volumes', () => {
  let host: PluginFixture<Memory>;
  beforeEach(async () => {
    host = await createFixture(memoryHost());
  });
  afterEach(async () => await host.dispose());

  const create = async (name: string, options: Record<string, string> = {}) => {
    const record = await createVolume(host.context, name, options, never);
    assert.ok(record !== null);
    return record;
  };
  const mount = (name: string, id = 'm') => mountVolume(host.context, name, id, never);
  const unmount = (name: string, id = 'm') => unmountVolume(host.context, name, id, never);
  const remove = (name: string, caller: 'docker' | 'operator' = 'docker') =>
    removeVolume(host.context, name, caller, never);
  const dataset = (name: string) => {
    const record = host.context.state.byName(parseVolumeName(name));
    assert.ok(record, `no volume ${name}`);
    return record.id;
  };
  const write = (name: string, text: string) => host.storage.content.write(dataset(name), 'file', text);
  const read = async (name: string) => (await host.storage.content.read(dataset(name), 'file'))?.toString() ?? null;
  const mounted = (name: string) =>
    host.storage.mountTable().then((table) => table.some((entry) => host.storage.isMountOf(entry, dataset(name))));
  const holder = { pid: 7, containerId: 'c1', mountPoint: '/data' };

  describe('create', () => {
    it('answers the same volume when it is repeated', async () => {
      assert.equal((await create('db', { size: '1M' })).id, (await create('db')).id);
      assert.equal((await create('db', { size: '1M' })).id, dataset('db'));
    });

    it('refuses other options for a volume that exists, and names them', async () => {
      await create('db', { size: '1M' });
      assert.match((await rejects(create('db', { size: '2M' }), 'volume-exists')).message, /sizeBytes|size/);
    });

    it('creates nothing when an option is wrong', async () => {
      for (const options of [
        { sise: '1G' },
        { size: '-1' },
        { compression: 'nonsense' },
        { recordsize: '16K' },
        { 'zfs.atime': 'on' },
        { from: 'nowhere' },
        { from: 'db' },
      ]) {
        await assert.rejects(create('db', options as Record<string, string>));
      }
      assert.deepEqual(host.context.state.all(), []);
      assert.deepEqual(await host.storage.list(), []);
    });

    it('makes one volume out of many creations at once', async () => {
      const all = await Promise.all(Array.from({ length: 50 }, () => create('db')));
      assert.equal(new Set(all.map((record) => record.id)).size, 1);
      assert.equal((await host.storage.list()).length, 1);
    });

    it('clones a volume with its options, or with others where they are given', async () => {
      await create('db', { size: '1M' });
      await write('db', 'one');
      await createSnapshot(host.context, 'db', 's1', never);
      await write('db', 'two');
      const copy = await create('copy', { from: 'db', size: '2M' });
      assert.equal(copy.options.sizeBytes, 2 * 1024 ** 2);
      assert.equal((await create('old', { from: 'db@s1' })).options.sizeBytes, 1024 ** 2);
      assert.deepEqual([await read('copy'), await read('old'), await read('db')], ['two', 'one', 'two']);
    });
  });

  describe('mounts', () => {
    it('keeps the volume mounted until the last id has gone', async () => {
      await create('db');
      const path = await mount('db', 'a');
      assert.equal(await mount('db', 'b'), path);
      await unmount('db', 'a');
      assert.equal(await mounted('db'), true);
      await unmount('db', 'b');
      assert.equal(await mounted('db'), false);
    });

    it('survives docker cp on a running container', async () => {
      await create('db');
      await mount('db', 'a');
      host.holders.set(dataset('db'), [holder]);
      await mount('db', 'a');
      await unmount('db', 'a');
      assert.equal(await mounted('db'), true);
    });

    it('takes a mount back when the caller has gone, and leaves those of others alone', async () => {
      await create('db');
      const gone = new AbortController();
      const late = mountVolume(host.context, 'db', 'late', gone.signal);
      gone.abort();
      await rejects(late, 'caller-gone');
      assert.equal(await mounted('db'), false);
      await mount('db', 'other');
      const again = new AbortController();
      const second = mountVolume(host.context, 'db', 'late', again.signal);
      again.abort();
      await assert.rejects(second);
      assert.equal(await mounted('db'), true);
    });

    it('has right counts after 50 mounts and unmounts at once', async () => {
      await create('db');
      const ids = Array.from({ length: 50 }, (_, index) => `m${index}`);
      await Promise.all(ids.map((id) => mount('db', id)));
      assert.equal(host.context.state.uses(dataset('db')).length, 50);
      await Promise.all(ids.map((id) => unmount('db', id)));
      assert.equal(await mounted('db'), false);
    });

    it('refuses an empty mount id, as it comes with a broken request', async () => {
      await create('db');
      await rejects(mount('db', ''), 'invalid-request');
    });

    it('keeps counts when only the plugin was restarted', async () => {
      await create('db');
      await mount('db', 'a');
      host.holders.set(dataset('db'), [holder]);
      await host.restart();
      await mount('db', 'a');
      await unmount('db', 'a');
      assert.equal(host.context.state.uses(dataset('db'))[0]?.count, 1);
    });

    it('forgets counts when the containers were killed too', async () => {
      await create('db');
      await mount('db', 'a');
      await host.restart();
      await mount('db', 'a');
      await unmount('db', 'a');
      assert.equal(await mounted('db'), false);
    });

    it('drops a use that no container has backed up for a long time', async () => {
      await create('db');
      await mount('db', 'lost');
      const sweep = () => sweepMounts(host.context, () => true, never);
      await sweep();
      assert.equal(await mounted('db'), true);
      host.nowMs += useGraceMs;
      host.holders.set(dataset('db'), [holder]);
      await sweep();
      assert.equal(await mounted('db'), true);
      host.holders.clear();
      await sweep();
      assert.equal(await mounted('db'), false);
    });

    it('keeps a use whose container has started since the mount tables were read, however long ago that is', async () => {
      await create('db');
      await mount('db', 'starting');
      const stoodStill = {
        ...host.context,
        async findHolders() {
          host.nowMs += useGraceMs;
          return new Map();
        },
      };
      await rejects(removeVolume(stoodStill, 'db', 'operator', never), 'volume-in-use');
      host.nowMs -= useGraceMs;
      await sweepMounts(stoodStill, () => true, never);
      assert.equal(await mounted('db'), true);
    });
  });

  describe('removal', () => {
    it('frees the name at once and keeps the data', async () => {
      await create('db');
      await write('db', 'precious');
      await remove('db');
      await create('db');
      assert.equal(await read('db'), null);
      const [entry] = trashedVolumes(host.context);
      await rejects(restoreVolume(host.context, entry?.id ?? '', null, never), 'volume-exists');
      await restoreVolume(host.context, 'db', 'db-old', never);
      assert.equal(await read('db-old'), 'precious');
    });

    it('asks which one when the trash holds several of a name', async () => {
      for (let round = 0; round < 2; round += 1) {
        await create('db');
        await remove('db');
      }
      assert.match(
        (await rejects(restoreVolume(host.context, 'db', null, never), 'invalid-request')).message,
        /db\.0+\w+ or db\.0+\w+/,
      );
    });

    it('refuses what is protected, in use, or not there', async () => {
      await create('db', { protect: 'true' });
      assert.match((await rejects(remove('db'), 'volume-protected')).message, /flockctl volume set db protect=false/);
      await protectVolume(host.context, 'db', false, never);
      host.holders.set(dataset('db'), [holder]);
      assert.match((await rejects(remove('db'), 'volume-in-use')).message, /container c1/);
      host.holders.clear();
      await mount('db', 'starting');
      await rejects(remove('db', 'operator'), 'volume-in-use');
      await remove('db', 'docker');
      await rejects(remove('db'), 'volume-not-found');
    });

    it('destroys at once where there is no trash', async () => {
      host.settings = { ...host.settings, trashMs: 0 };
      await create('db');
      await remove('db');
      assert.deepEqual(await host.storage.list(), []);
      assert.deepEqual(host.context.state.all(), []);
    });

    it('destroys when the time in the trash is over, not before', async () => {
      await create('db');
      await remove('db');
      host.nowMs += host.settings.trashMs - 1;
      await sweepTrash(host.context, never);
      assert.equal((await host.storage.list()).length, 1);
      host.nowMs += 1;
      await sweepTrash(host.context, never);
      assert.deepEqual(await host.storage.list(), []);
    });

    it('purges by id or by name', async () => {
      await create('db');
      await remove('db');
      await purgeVolume(host.context, 'db', never);
      assert.deepEqual(host.context.state.all(), []);
      await rejects(purgeVolume(host.context, 'db', never), 'volume-not-found');
    });
  });

  describe('snapshots', () => {
    it('are named after the time when they get no name', async () => {
      await create('db');
      assert.equal((await createSnapshot(host.context, 'db', null, never)).name, '2027-01-15T08:00:00.000Z');
    });

    it('roll back and keep what came after in the trash', async () => {
      await create('db');
      await write('db', 'one');
      await createSnapshot(host.context, 'db', 's1', never);
      await write('db', 'two');
      await createSnapshot(host.context, 'db', 's2', never);
      await write('db', 'three');
      const kept = await rollbackVolume(host.context, 'db', 's1', never);
      assert.equal(await read('db'), 'one');
      assert.deepEqual(
        (await listSnapshots(host.context, 'db')).map((snapshot) => snapshot.name),
        ['s1'],
      );
      await restoreVolume(host.context, kept.id, 'after', never);
      assert.equal(await read('after'), 'three');
      assert.deepEqual(
        (await listSnapshots(host.context, 'after')).map((snapshot) => snapshot.name),
        ['s2'],
      );
    });

    it('remember up to when a rollback took away what replication had made', async () => {
      await create('db');
      await createSnapshot(host.context, 'db', 's1', never);
      await host.context.storage.snapshot(dataset('db'), snapshotName(3, 9_000));
      await rollbackVolume(host.context, 'db', 's1', never);
      assert.equal(host.context.state.byId(dataset('db'))?.namesAfterMs, 9_000);
      await rollbackVolume(host.context, 'db', 's1', never);
      assert.equal(host.context.state.byId(dataset('db'))?.namesAfterMs, 9_000);
    });

    it('keep what a rollback replaced for a day even where there is no trash', async () => {
      host.settings = { ...host.settings, trashMs: 0 };
      await create('db');
      await createSnapshot(host.context, 'db', 's1', never);
      await rollbackVolume(host.context, 'db', 's1', never);
      await sweepTrash(host.context, never);
      assert.equal(trashedVolumes(host.context).length, 1);
    });

    it('refuse a rollback while a container has the volume', async () => {
      await create('db');
      await createSnapshot(host.context, 'db', 's1', never);
      host.holders.set(dataset('db'), [holder]);
      await rejects(rollbackVolume(host.context, 'db', 's1', never), 'volume-in-use');
      host.holders.clear();
      await mount('db');
      await rejects(rollbackVolume(host.context, 'db', 's1', never), 'volume-in-use');
    });

    it('say when there is no such snapshot', async () => {
      await create('db');
      await rejects(rollbackVolume(host.context, 'db', 'no', never), 'snapshot-not-found');
      await rejects(removeSnapshot(host.context, 'db', 'no', never), 'snapshot-not-found');
    });
  });

  it('resizes, and refuses below what is used', async () => {
    await create('db', { size: '4M' });
    await write('db', 'x'.repeat(2_000_000));
    await rejects(resizeVolume(host.context, 'db', 1_900_000, never), 'quota-below-usage');
    assert.match((await rejects(resizeVolume(host.context, 'db', 4096, never), 'invalid-option')).message, /1 MiB/);
    assert.equal((await resizeVolume(host.context, 'db', null, never)).options.sizeBytes, null);
  });

  it('finds the volumes of a pool that came without its state file', async () => {
    const pool = memoryHost();
    const before = await createFixture(pool);
    const made = await createVolume(before.context, 'db', { size: '1M', protect: 'true' }, never);
    // As in a pool where it was a copy.
    await before.context.storage.resize(made?.id as never, null);
    await before.dispose();
    const after = await createFixture(pool);
    await recover(after.context, never);
    await limitVolumes(after.context, never);
    const adopted = after.context.state.byName(parseVolumeName('db'));
    assert.deepEqual(
      [adopted?.phase.kind, adopted?.options.sizeBytes, adopted?.options.protect],
      ['ready', 1024 ** 2, true],
    );
    assert.equal((await after.context.storage.list())[0]?.quotaBytes, 1024 ** 2);
    await after.dispose();
  });

  it('limits what has become a volume anew to its size, or to what it holds if that is more', async () => {
    const host = await createFixture(memoryHost());
    const { storage, state } = host.context;
    await createVolume(host.context, 'db', { size: '1M' }, never);
    const record = state.byName(parseVolumeName('db')) as VolumeRecord;
    const quota = async () => (await storage.list())[0]?.quotaBytes;
    const due = { ...record, phase: { kind: 'ready', unlimited: true } } as const;
    const { resize } = storage;
    for (const [limit, used] of [
      [1024 ** 2, null],
      [3 * 1024 ** 2, 2 * 1024 ** 2],
    ] as const) {
      await resize(record.id, null);
      storage.resize = async (id, bytes) => {
        if (used === null || bytes === null || bytes >= used) return await resize(id, bytes);
        throw new FlockError('quota-below-usage', 'it holds more', { usedBytes: used });
      };
      state.commit({ put: [due] });
      await limitVolumes(host.context, never);
      const phase = used === null ? { kind: 'ready' } : { kind: 'ready', unlimited: 'larger' };
      assert.deepEqual([await quota(), state.byId(record.id)?.phase], [limit, phase]);
    }
    storage.resize = resize;
    await limitVolumes(host.context, never);
    assert.deepEqual(
      [await quota(), state.byId(record.id)?.phase],
      [1024 ** 2, { kind: 'ready' }],
      'it holds less now',
    );
    storage.resize = async () => {
      throw new FlockError('pool-unusable', 'not now');
    };
    state.commit({ put: [due] });
    await limitVolumes(host.context, never);
    assert.deepEqual(state.byId(record.id)?.phase, due.phase, 'later');
    await host.dispose();
  });
});
