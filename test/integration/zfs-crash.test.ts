import assert from 'node:assert/strict';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatasetId } from '../../controller/model/names.ts';
import { createCommands } from '../../plugin/exec.ts';
import type { Storage } from '../../plugin/storage/storage.ts';
import { createZfs } from '../../plugin/storage/zfs/zfs.ts';
import { newId, options, snap, tag } from '../contract/storage/context.ts';
import { commandsWithFuse, createFuse } from '../support/crash-points.ts';
import { enterOwnMounts } from '../support/own-mounts.ts';
import { isShort } from '../support/short.ts';
import { startZfsFuse, whyNoZfsFuse, type ZfsFuse } from '../support/zfs-fuse.ts';

enterOwnMounts();
const reason = whyNoZfsFuse();
const stepsMax = 60;

/** The process dies before each command in turn; the call is repeated by a new one and must finish the work. */
(reason === null ? describe : describe.skip)(`zfs after a crash${reason === null ? '' : ` (${reason})`}`, function () {
  this.timeout(300_000);
  let host: ZfsFuse;
  let storage: Storage;
  const never = new AbortController().signal;

  before(async () => {
    host = await startZfsFuse();
    storage = createZfs(host.config, createCommands());
  });
  after(() => host?.stop());

  async function atEveryStep<T>(
    prepare: () => Promise<T>,
    work: (storage: Storage, prepared: T) => Promise<unknown>,
    check: (prepared: T, where: string) => Promise<void>,
  ): Promise<void> {
    for (let diesAt = 0; diesAt < stepsMax; diesAt += isShort ? 4 : 1) {
      const prepared = await prepare();
      const fuse = createFuse();
      const doomed = createZfs(host.config, commandsWithFuse(createCommands(), fuse));
      // What a running process has looked up already is no step of the call.
      await doomed.list();
      fuse.arm(diesAt);
      await work(doomed, prepared).catch((error: unknown) => assert.ok(fuse.diedAt() !== null, String(error)));
      const died = fuse.diedAt();
      await work(storage, prepared);
      await check(prepared, `after dying at step ${diesAt}, before "${died}"`);
      if (died === null) return;
    }
    assert.fail(`more than ${stepsMax} steps`);
  }

  async function write(id: DatasetId, text: string): Promise<void> {
    await writeFile(join(await storage.mount(id), 'file'), text);
    await storage.unmount(id);
  }

  async function read(id: DatasetId): Promise<string> {
    const path = await storage.mount(id);
    const text = await readFile(join(path, 'file'), 'utf8');
    await storage.unmount(id);
    return text;
  }

  async function history(): Promise<DatasetId> {
    const id = newId();
    await storage.create(id, options({ stamp: 'before' }));
    for (const step of ['0', '1', '2']) {
      await write(id, step);
      await storage.snapshot(id, snap(`s${step}`));
    }
    await storage.hold(id, snap('s0'), tag('keep'));
    await write(id, 'live');
    return id;
  }

  const names = async (id: DatasetId) => (await storage.snapshots(id)).map(({ name }) => name);
  const stampOf = async (id: DatasetId) => (await storage.list()).find((dataset) => dataset.id === id)?.stamp;
  const everything = async () =>
    (await host.zfs('list', '-H', '-r', '-t', 'all', '-o', 'name', host.config.prefix)).trim().split('\n').slice(1);

  it('a rollback is finished', async () => {
    await atEveryStep(
      async () => ({ id: await history(), aside: newId('aside') }),
      (doomed, { id, aside }) =>
        doomed.rollback(id, snap('s1'), aside, options({ stamp: 'after', mode: 0o700, uid: null, gid: null })),
      async ({ id, aside }, where) => {
        assert.deepEqual([await names(id), await names(aside)], [['s0', 's1'], ['s2']], where);
        assert.deepEqual([await read(id), await read(aside)], ['1', 'live'], where);
        assert.deepEqual([await stampOf(id), await stampOf(aside)], ['after', 'before'], where);
        await storage.destroy(aside);
        await storage.destroy(id);
        assert.deepEqual(await everything(), [], where);
      },
    );
  });

  it('a renaming is finished, with a clone in use', async () => {
    await atEveryStep(
      async () => {
        const [id, other, clone] = [await history(), newId('other'), newId('clone')];
        await storage.clone({ id, snapshot: snap('s1') }, clone, options());
        await storage.mount(clone);
        return { id, other, clone };
      },
      (doomed, { id, other }) => doomed.rename(id, other),
      async ({ id, other, clone }, where) => {
        assert.equal(await storage.exists(id), false, where);
        assert.deepEqual([await names(other), await names(clone)], [['s0', 's1', 's2'], []], where);
        assert.deepEqual((await storage.snapshots(other))[0]?.holds, ['keep'], where);
        assert.deepEqual([await read(other), await read(clone)], ['live', '1'], where);
        await storage.destroy(other);
        await storage.destroy(clone);
        assert.deepEqual(await everything(), [], where);
      },
    );
  });

  it('a destruction is finished, and clones keep their data and gain no snapshots', async () => {
    await atEveryStep(
      async () => {
        const [id, first, second] = [await history(), newId('clone'), newId('clone')];
        await storage.clone({ id, snapshot: snap('s1') }, first, options());
        await storage.clone({ id, snapshot: null }, second, options());
        return { id, first, second };
      },
      (doomed, { id }) => doomed.destroy(id),
      async ({ id, first, second }, where) => {
        assert.equal(await storage.exists(id), false, where);
        assert.deepEqual([await names(first), await names(second)], [[], []], where);
        assert.deepEqual([await read(first), await read(second)], ['1', 'live'], where);
        await storage.destroy(second);
        await storage.destroy(first);
        assert.deepEqual(await everything(), [], where);
      },
    );
  });

  it('a clone of live content is finished, and leaves no snapshot behind', async () => {
    await atEveryStep(
      async () => ({ id: await history(), clone: newId('clone') }),
      (doomed, { id, clone }) => doomed.clone({ id, snapshot: null }, clone, options({ stamp: 'clone', mode: 0o700 })),
      async ({ id, clone }, where) => {
        assert.deepEqual([await read(clone), await stampOf(clone)], ['live', 'clone'], where);
        await storage.destroy(clone);
        assert.deepEqual((await everything()).length, 4, where);
        await storage.destroy(id);
      },
    );
  });

  it('a creation is finished', async () => {
    await atEveryStep(
      async () => newId(),
      (doomed, id) => doomed.create(id, options({ stamp: 'made', mode: 0o700 })),
      async (id, where) => {
        await write(id, 'works');
        assert.deepEqual([await read(id), await stampOf(id)], ['works', 'made'], where);
        await storage.destroy(id);
      },
    );
  });

  it('holding and releasing are finished', async () => {
    const holds = async (id: DatasetId) => (await storage.snapshots(id))[0]?.holds;
    await atEveryStep(
      history,
      async (doomed, id) => {
        await doomed.hold(id, snap('s0'), tag('more'));
        await doomed.release(id, snap('s0'), tag('keep'));
      },
      async (id, where) => {
        assert.deepEqual(await holds(id), ['more'], where);
        await storage.release(id, snap('s0'), tag('more'));
        await storage.destroySnapshot(id, snap('s0'));
        await storage.destroy(id);
      },
    );
  });

  it('a complete stream is received in the end, once it is sent again', async () => {
    const id = await history();
    const path = join(host.folder, 'stream');
    const sink = await open(path, 'w');
    await storage.send({ id, to: snap('s1'), from: null }, sink.fd, never);
    await sink.close();
    await atEveryStep(
      async () => newId('replica'),
      async (doomed, replica) => {
        if ((await stampOf(replica)) === 'replica') return;
        const source = await open(path);
        try {
          await doomed.receive({ id: replica, to: snap('s1'), from: null, stamp: 'replica' }, source.fd, never);
        } finally {
          await source.close();
        }
      },
      async (replica, where) => {
        assert.deepEqual([await names(replica), await read(replica)], [['s1'], '1'], where);
        await storage.destroy(replica);
      },
    );
  });
});
