import assert from 'node:assert/strict';
import { FlockError } from '../../controller/model/errors.ts';
import { type DatasetId, parseVolumeName } from '../../controller/model/names.ts';
import { CommandError } from '../../plugin/exec.ts';
import type { State, UnreadableRecord } from '../../plugin/state.ts';
import type { createMemory } from '../../plugin/storage/memory.ts';
import { resizeVolume } from '../../plugin/volumes/change.ts';
import { createVolume } from '../../plugin/volumes/create.ts';
import { mountVolume } from '../../plugin/volumes/mounts.ts';
import { recover } from '../../plugin/volumes/recover.ts';
import { createSnapshot, listSnapshots, rollbackVolume } from '../../plugin/volumes/snapshots.ts';
import { purgeVolume, removeVolume, restoreVolume, sweepTrash, trashedVolumes } from '../../plugin/volumes/trash.ts';
import { createFixture, memoryHost, never, type PluginFixture } from '../support/plugin-context.ts';
import { rejects } from '../support/refuses.ts';

type Memory = ReturnType<typeof createMemory>;
type Faults = {
  /** Runs before the storage's or the state's own method of this name. */
  before: Partial<Record<string, () => void>>;
  /** Runs after it. */
  after: Partial<Record<string, () => void>>;
  unreadable: readonly UnreadableRecord[];
  kind: string | null;
};

const full = () => {
  throw new FlockError('storage-failed', 'the file system that holds state.db is full');
};

describe('volumes when something fails', () => {
  let host: PluginFixture<Memory>;
  let faults: Faults;
  const volume = (name = 'db') => {
    const record = host.context.state.byName(parseVolumeName(name));
    assert.ok(record, `no volume ${name}`);
    return record;
  };
  const create = (name: string, options: Record<string, string> = {}) =>
    createVolume(host.context, name, options, never);
  const write = (text: string) => host.storage.content.write(volume().id, 'file', text);
  const read = async () => (await host.storage.content.read(volume().id, 'file'))?.toString() ?? null;

  beforeEach(async () => {
    faults = { before: {}, after: {}, unreadable: [], kind: null };
    const faulty = <T extends object>(target: T): T =>
      new Proxy(target, {
        get(inner, name) {
          const value: unknown = Reflect.get(inner, name);
          if (name === 'kind' && faults.kind !== null) return faults.kind;
          const [before, after] = [faults.before[String(name)], faults.after[String(name)]];
          if (typeof value !== 'function' || (before === undefined && after === undefined)) return value;
          return (...args: readonly unknown[]) => {
            before?.();
            const result: unknown = value.apply(inner, args);
            if (after === undefined) return result;
            return result instanceof Promise ? result.then(after) : after();
          };
        },
      });
    const wrapState = (state: State): State => faulty({ ...state, unreadable: () => faults.unreadable });
    host = await createFixture(memoryHost(), () => ({ storage: faulty, state: wrapState }));
  });
  afterEach(async () => await host.dispose());

  describe('a rollback', () => {
    beforeEach(async () => {
      await create('db');
      await write('one');
      await createSnapshot(host.context, 'db', 's1', never);
      await write('two');
    });
    const rollback = () => rollbackVolume(host.context, 'db', 's1', never);

    for (const code of ['quota-below-usage', 'pool-full', 'volume-busy', 'storage-failed'] as const) {
      it(`that storage refuses (${code}) has not happened, and does not happen later`, async () => {
        faults.before['rollback'] = () => {
          throw new FlockError(code, 'refused');
        };
        assert.equal((await rejects(rollback(), code)).message, 'refused');
        assert.equal(volume().phase.kind, 'ready');
        delete faults.before['rollback'];
        await recover(host.context, never);
        assert.equal(await read(), 'two');
        await mountVolume(host.context, 'db', 'm', never);
      });
    }

    it('that was begun says that it goes on, and does', async () => {
      faults.after['rollback'] = () => {
        throw new FlockError('pool-full', 'no room');
      };
      assert.match((await rejects(rollback(), 'pool-full')).message, /was begun .* goes on with it .*: no room/);
      assert.equal(volume().phase.kind, 'rolling-back');
      delete faults.after['rollback'];
      await recover(host.context, never);
      assert.equal(await read(), 'one');
      assert.equal(trashedVolumes(host.context).length, 1);
    });

    it('of which nobody knows what became of it says that it goes on, too', async () => {
      faults.before['rollback'] = () => {
        throw new FlockError('storage-daemon-down', 'no answer');
      };
      assert.match((await rejects(rollback(), 'storage-daemon-down')).message, /was begun .*: no answer/);
      assert.equal(volume().phase.kind, 'rolling-back');
    });

    it('that a crash interrupted and storage refuses makes the volume ready as it was', async () => {
      faults.before['rollback'] = () => {
        throw new Error('the process died');
      };
      await assert.rejects(rollback());
      await host.restart();
      faults.before['rollback'] = () => {
        throw new FlockError('quota-below-usage', 'refused');
      };
      await recover(host.context, never);
      assert.equal(volume().phase.kind, 'ready');
      assert.equal((await listSnapshots(host.context, 'db')).length, 1);
    });
  });

  it('clones of each other at the same time do not wait for each other', async () => {
    for (let round = 0; round < 8; round += 1) {
      await create('xa');
      const signal = AbortSignal.timeout(1_000);
      const results = await Promise.allSettled([
        removeVolume(host.context, 'xa', 'docker', signal),
        createVolume(host.context, 'xb', { from: 'xa' }, signal),
        createVolume(host.context, 'xa', { from: 'xb' }, signal),
      ]);
      for (const result of results)
        if (result.status === 'rejected') assert.doesNotMatch(String(result.reason), /busy|timeout/);
      for (const name of ['xa', 'xb']) await removeVolume(host.context, name, 'docker', never).catch(() => undefined);
    }
  });

  it('a property that zfs refuses is named with its value and the reason, without the command', async () => {
    faults.kind = 'zfs';
    faults.before['create'] = () => {
      const cause = new CommandError({
        file: '/usr/lib/zfs-fuse/zfs',
        args: ['create', '-o', 'copies=7', '--', 'tank/flock/db.00000001'],
        exitCode: 1,
        stderr: "cannot create 'tank/flock/db.00000001': 'copies' must be one of '1 | 2 | 3'\nusage:\n\tcreate\n",
        timedOut: false,
        reason: 'exit status 1',
      });
      throw new FlockError('invalid-option', cause.message, {}, { cause });
    };
    const options = { 'zfs.copies': '7', 'zfs.exec': 'off' };
    assert.equal(
      (await rejects(create('db', options), 'invalid-option')).message,
      "zfs.copies=7: 'copies' must be one of '1 | 2 | 3'",
    );
  });

  it('a volume can not be made from itself', async () => {
    await rejects(create('db', { from: 'db' }), 'invalid-option');
  });

  describe('a change', () => {
    beforeEach(async () => {
      await create('db', { size: '2M' });
    });
    const quota = async () => (await host.storage.list())[0]?.quotaBytes;
    const stamp = async () => (await host.storage.list())[0]?.stamp;

    for (const step of ['resize', 'stamp', 'commit'] as const) {
      it(`that fails at ${step} changes nothing`, async () => {
        const before = { quota: await quota(), stamp: await stamp(), record: volume() };
        let failures = 0;
        faults[step === 'commit' ? 'before' : 'after'][step] = () => {
          failures += 1;
          if (failures === 1) full();
        };
        await rejects(resizeVolume(host.context, 'db', 4 * 1024 ** 2, never), 'storage-failed');
        assert.deepEqual({ quota: await quota(), stamp: await stamp(), record: volume() }, before);
      });
    }

    it('that can not be taken back says so', async () => {
      faults.before['commit'] = full;
      faults.after['stamp'] = full;
      const { message } = await rejects(resizeVolume(host.context, 'db', 4 * 1024 ** 2, never), 'storage-failed');
      assert.match(message, /could not be taken back .*: repeat the command/);
    });
  });

  it('nothing is purged or destroyed by the sweep while somebody has it mounted', async () => {
    await create('db');
    const { id } = volume();
    await removeVolume(host.context, 'db', 'docker', never);
    host.holders.set(id, [{ pid: 7, containerId: 'c1', mountPoint: '/data' }]);
    assert.match((await rejects(purgeVolume(host.context, 'db', never), 'volume-in-use')).message, /container c1/);
    host.nowMs += 10 * 86_400_000;
    await sweepTrash(host.context, never);
    assert.equal(trashedVolumes(host.context).length, 1);
    assert.equal(await host.storage.exists(id), true);
    host.holders.clear();
    await sweepTrash(host.context, never);
    assert.equal(await host.storage.exists(id), false);
  });

  it('a volume whose name looks like an id comes back by its name', async () => {
    await create('db.deadbeef');
    await removeVolume(host.context, 'db.deadbeef', 'docker', never);
    assert.equal((await restoreVolume(host.context, 'db.deadbeef', null, never)).name, 'db.deadbeef');
    await rejects(restoreVolume(host.context, 'no.deadbeef', null, never), 'volume-not-found');
  });

  it('a mount without a container says when it passes', async () => {
    await create('db');
    await mountVolume(host.context, 'db', 'm'.repeat(64), never);
    host.nowMs += 9 * 60_000;
    const { message } = await rejects(removeVolume(host.context, 'db', 'operator', never), 'volume-in-use');
    assert.match(message, /passes by itself in 1 min/);
    host.nowMs += 59_000;
    assert.match(
      (await rejects(removeVolume(host.context, 'db', 'operator', never), 'volume-in-use')).message,
      /passes by itself in 1 s/,
    );
    host.nowMs += 1_000;
    await removeVolume(host.context, 'db', 'operator', never);
  });

  it('what a record that can not be read stands for is neither hidden, adopted nor destroyed', async () => {
    await create('db');
    const { id } = volume();
    await host.storage.create('db.00c0ffee' as DatasetId, {
      quotaBytes: null,
      compression: null,
      recordSizeBytes: null,
      mode: null,
      uid: null,
      gid: null,
      properties: {},
      stamp: (await host.storage.list())[0]?.stamp ?? '',
    });
    host.context.state.commit({ delete: [id] });
    faults.unreadable = [{ id, name: 'db', reason: 'phase.kind: Invalid input' }];
    await recover(host.context, never);
    await sweepTrash(host.context, never);
    assert.deepEqual(host.context.state.all(), []);
    assert.equal((await host.storage.list()).length, 2);
    for (const attempt of [
      () => create('db'),
      () => create('db2', { from: 'db' }),
      () => mountVolume(host.context, 'db', 'm', never),
      () => removeVolume(host.context, 'db', 'docker', never),
    ]) {
      const { message } = await rejects(attempt(), 'storage-failed');
      assert.match(message, /record of volume "db" can't be read \(phase.kind: Invalid input\).*DELETE FROM volumes/);
    }
    faults.unreadable = [];
    await recover(host.context, never);
    assert.equal(volume().name, 'db');
  });
});
