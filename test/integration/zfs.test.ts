import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatasetId, SnapshotName } from '../../controller/model/names.ts';
import { type Commands, createCommands } from '../../plugin/exec.ts';
import { readMountTable } from '../../plugin/mount-table.ts';
import type { PoolMaker, Storage } from '../../plugin/storage/storage.ts';
import { createZfs } from '../../plugin/storage/zfs/zfs.ts';
import { bytes, mebi, newId, options, snap, tag } from '../contract/storage/context.ts';
import { enterOwnMounts } from '../support/own-mounts.ts';
import { rejects } from '../support/refuses.ts';
import { startZfsFuse, whyNoZfsFuse, type ZfsFuse } from '../support/zfs-fuse.ts';

enterOwnMounts();
const reason = whyNoZfsFuse();

/** What only this backend can meet; the rest is in the contract suite. */
(reason === null ? describe : describe.skip)(`zfs on zfs-fuse${reason === null ? '' : ` (${reason})`}`, function () {
  this.timeout(60_000);
  let fuse: ZfsFuse;
  let storage: Storage & PoolMaker;

  /** As after a restart of the plugin: nothing is remembered. */
  const again = (commands: Commands = createCommands()) => createZfs(fuse.config, commands);
  const pathOf = (id: DatasetId) => `${fuse.config.prefix}/${id}`;

  async function made(text = 'text'): Promise<DatasetId> {
    const id = newId();
    await storage.create(id, options());
    await write(id, text);
    return id;
  }

  async function write(id: DatasetId, text: string): Promise<void> {
    await writeFile(join(await storage.mount(id), 'file'), text);
    await storage.unmount(id);
  }

  async function read(id: DatasetId): Promise<string> {
    const path = await storage.mount(id);
    try {
      return await readFile(join(path, 'file'), 'utf8');
    } finally {
      await storage.unmount(id);
    }
  }

  const names = async (id: DatasetId) => (await storage.snapshots(id)).map(({ name }) => name);

  before(async () => {
    fuse = await startZfsFuse();
    storage = again();
  });
  after(() => fuse?.stop());

  describe('after its daemon was killed', () => {
    it('says what to do, and that the pool has failed', async () => {
      const id = await made();
      await fuse.killDaemon();
      const error = await rejects(storage.mount(id), 'storage-daemon-down');
      assert.match(error.message, /systemctl restart zfs-fuse/);
      const status = await storage.pool();
      assert.ok(status.state === 'failed' && /systemctl restart zfs-fuse/.test(status.reason), JSON.stringify(status));
      await fuse.startDaemon();
      assert.equal((await storage.pool()).state, 'online');
    });

    it('imports the pool again, and does not take volumes for missing', async () => {
      const id = await made();
      await storage.snapshot(id, snap('one'));
      await fuse.killDaemon();
      await fuse.startDaemon();
      await assert.rejects(fuse.zpool('list', '-H', 'flock'), /no such pool/);
      await storage.destroySnapshot(id, snap('one'));
      assert.deepEqual(await names(id), []);
      assert.equal(await storage.exists(id), true);
    });

    it('mounts over dead mounts, here and on the host', async () => {
      const id = await made('kept');
      await storage.mount(id);
      await fuse.killDaemon();
      await assert.rejects(readFile(join(storage.mountPath(id), 'file')), { code: 'ENOTCONN' });
      await fuse.startDaemon();
      assert.equal(await read(id), 'kept');
      await storage.destroy(id);
    });

    it('has all that was synced in the next snapshot, though nothing has mounted it since', async () => {
      const id = await made();
      await storage.snapshot(id, snap('one'));
      const file = await open(join(await storage.mount(id), 'file'), 'a');
      await file.write(' and what was synced');
      await file.sync();
      await fuse.killDaemon();
      await file.close().catch(() => undefined);
      await fuse.startDaemon();
      await storage.unmount(id);
      await storage.snapshot(id, snap('two'));
      const copy = newId();
      await storage.clone({ id, snapshot: snap('two') }, copy, options());
      assert.equal(await read(copy), 'text and what was synced');
    });

    it('unmounts dead mounts without a daemon', async () => {
      const id = await made();
      const path = await storage.mount(id);
      await fuse.killDaemon();
      await storage.unmount(id);
      await assert.rejects(access(path), { code: 'ENOENT' });
      await fuse.startDaemon();
      assert.equal(await read(id), 'text');
    });
  });

  it('says that the daemon hangs when it does not answer in time', async () => {
    const id = await made();
    const commands = createCommands();
    const hasty = again({
      ...commands,
      run: (file, args, settings) => commands.run(file, args, { ...settings, timeoutMs: 1_500 }),
    });
    await hasty.mount(id);
    fuse.signalDaemon('SIGSTOP');
    try {
      const error = await rejects(hasty.mount(id), 'storage-daemon-down');
      assert.match(error.message, /systemctl restart zfs-fuse/);
    } finally {
      fuse.signalDaemon('SIGCONT');
    }
    await storage.unmount(id);
  });

  it('a dataset that is mounted in another name space is not destroyed, and keeps its snapshots and holds', async () => {
    const id = await made();
    await storage.snapshot(id, snap('one'));
    await storage.hold(id, snap('one'), tag('keep'));
    // As in a container: a copy of the mount in a name space of its own, at another place.
    const script = 'mount --bind "$0" /mnt && echo && exec sleep 600';
    const place = await storage.mount(id);
    const container = spawn('unshare', ['--mount', '--propagation', 'private', '--', 'sh', '-c', script, place]);
    await once(container.stdout, 'data');
    await storage.unmount(id);
    await rejects(storage.destroy(id), 'volume-busy');
    assert.deepEqual(await names(id), ['one']);
    await rejects(storage.destroySnapshot(id, snap('one')), 'snapshot-held');
    container.kill('SIGKILL');
    await once(container, 'exit');
    await storage.destroy(id);
    assert.equal(await storage.exists(id), false);
  });

  it('a clone is not mounted by its making', async () => {
    const [id, clone] = [await made(), newId('clone')];
    await storage.clone({ id, snapshot: null }, clone, options());
    assert.ok(!(await readMountTable()).some(({ source }) => source === pathOf(clone)));
    await storage.destroy(clone);
  });

  describe('a dataset whose clone is in use', () => {
    /** A dataset with the snapshots one and two, and a clone of two that is mounted and has a file open. */
    async function withClone() {
      const [id, clone] = [await made('one'), newId('clone')];
      await storage.snapshot(id, snap('one'));
      await write(id, 'two');
      await storage.snapshot(id, snap('two'));
      await storage.clone({ id, snapshot: snap('two') }, clone, options());
      const file = await open(join(await storage.mount(clone), 'file'), 'r+');
      return { id, clone, file };
    }

    it('is destroyed all the same, and the clone goes on', async () => {
      const { id, clone, file } = await withClone();
      await storage.destroy(id);
      assert.equal(await storage.exists(id), false);
      assert.equal((await file.read(Buffer.alloc(3), 0, 3, 0)).buffer.toString(), 'two');
      await file.write('2', 0);
      await file.close();
      assert.deepEqual(await names(clone), []);
      assert.equal(await read(clone), '2wo');
      await storage.destroy(clone);
    });

    it('is rolled back all the same, and the clone goes on', async () => {
      const { id, clone, file } = await withClone();
      const aside = newId('aside');
      await storage.rollback(id, snap('one'), aside, options());
      assert.deepEqual([await names(id), await names(aside), await names(clone)], [['one'], ['two'], []]);
      assert.deepEqual([await read(id), await read(aside)], ['one', 'two']);
      await file.write('2', 0);
      await file.close();
      await storage.unmount(clone);
      assert.equal(await read(clone), '2wo');
    });

    it('gets its snapshots back when a crash came between', async () => {
      const { id, clone, file } = await withClone();
      await file.close();
      await fuse.zfs('set', 'flock:lent=on', pathOf(id));
      await fuse.zfs('promote', pathOf(clone));
      await storage.unmount(clone);
      const aside = newId('aside');
      await storage.rollback(id, snap('one'), aside, options());
      assert.deepEqual([await names(id), await names(aside), await names(clone)], [['one'], ['two'], []]);
      assert.match(await fuse.zfs('get', '-Hp', '-o', 'source', 'flock:lent', pathOf(aside)), /^-/);
    });
  });

  it('a snapshot that a clone needs is given up with its name, and goes with the clone', async () => {
    const [id, clone] = [await made('old'), newId('clone')];
    await storage.snapshot(id, snap('one'));
    await storage.clone({ id, snapshot: snap('one') }, clone, options());
    await storage.destroySnapshot(id, snap('one'));
    assert.deepEqual(await names(id), []);
    await storage.snapshot(id, snap('one'));
    assert.equal(await read(clone), 'old');
    await storage.destroy(clone);
    const left = await fuse.zfs('list', '-H', '-r', '-t', 'snapshot', '-o', 'name', pathOf(id));
    assert.equal(left.trim(), `${pathOf(id)}@one`);
  });

  it('a held snapshot is held for others too, and one that others hold is not destroyed', async () => {
    const id = await made();
    await storage.snapshot(id, snap('one'));
    await storage.hold(id, snap('one'), tag('keep'));
    await assert.rejects(fuse.zfs('destroy', `${pathOf(id)}@one`), /dataset is busy/);
    await storage.release(id, snap('one'), tag('keep'));
    await fuse.zfs('hold', 'by-hand', `${pathOf(id)}@one`);
    await rejects(storage.destroySnapshot(id, snap('one')), 'snapshot-held');
    await fuse.zfs('release', 'by-hand', `${pathOf(id)}@one`);
    await storage.destroySnapshot(id, snap('one'));
    assert.deepEqual(await names(id), []);
  });

  it('raw properties and a record size reach the dataset', async () => {
    const id = newId();
    await storage.create(
      id,
      options({ properties: { logbias: 'throughput' }, recordSizeBytes: 16_384, compression: 'gzip-1' }),
    );
    const values = await fuse.zfs('get', '-Hp', '-o', 'value', 'logbias,recordsize,compression,canmount', pathOf(id));
    assert.deepEqual(values.trim().split('\n'), ['throughput', '16384', 'gzip-1', 'noauto']);
  });

  it('an unknown raw property is refused and makes nothing', async () => {
    const id = newId();
    await rejects(storage.create(id, options({ properties: { nonsense: 'x' } })), 'invalid-option');
    assert.equal(await storage.exists(id), false);
  });

  describe('a replica', () => {
    const never = new AbortController().signal;

    async function send(id: DatasetId, to: SnapshotName, from: SnapshotName | null): Promise<string> {
      const path = join(fuse.folder, `${id}-${to}`);
      const file = await open(path, 'w');
      await storage.send({ id, to, from }, file.fd, never);
      await file.close();
      return path;
    }

    async function receive(path: string, id: DatasetId, to: SnapshotName, from: SnapshotName | null): Promise<void> {
      const file = await open(path);
      try {
        await storage.receive({ id, to, from, stamp: 'replica' }, file.fd, never);
      } finally {
        await file.close();
      }
    }

    /** A source at s2, a replica at s1, and the stream between. */
    async function replicated() {
      const [source, replica] = [await made('one'), newId('replica')];
      await storage.snapshot(source, snap('s1'));
      await receive(await send(source, snap('s1'), null), replica, snap('s1'), null);
      await write(source, 'two');
      await storage.snapshot(source, snap('s2'));
      return { source, replica, increment: await send(source, snap('s2'), snap('s1')) };
    }

    it('that was mounted and read takes the next increment', async () => {
      const { replica, increment } = await replicated();
      assert.equal(await read(replica), 'one');
      await receive(increment, replica, snap('s2'), snap('s1'));
      assert.equal(await read(replica), 'two');
      assert.deepEqual(await names(replica), ['s1', 's2']);
    });

    it('that was written to refuses it and keeps what was written, which a rollback then saves', async () => {
      const { replica, increment } = await replicated();
      await write(replica, 'own');
      storage = again();
      const error = await rejects(receive(increment, replica, snap('s2'), snap('s1')), 'no-common-snapshot');
      assert.equal(error.facts['reason'], 'modified');
      assert.equal(await read(replica), 'own');
      const aside = newId('aside');
      await storage.rollback(replica, snap('s1'), aside, options());
      await receive(increment, replica, snap('s2'), snap('s1'));
      assert.deepEqual([await read(replica), await read(aside)], ['two', 'own']);
    });

    it('of which a clone was made takes the next increment', async () => {
      const { replica, increment } = await replicated();
      const clone = newId('clone');
      await storage.clone({ id: replica, snapshot: null }, clone, options());
      await receive(increment, replica, snap('s2'), snap('s1'));
      assert.deepEqual([await read(replica), await read(clone)], ['two', 'one']);
      await storage.destroy(clone);
    });

    it('is read-only until it is mounted', async () => {
      const { replica } = await replicated();
      const readOnly = async () => (await fuse.zfs('get', '-H', '-o', 'value', 'readonly', pathOf(replica))).trim();
      assert.equal(await readOnly(), 'on');
      await write(replica, 'promoted');
      assert.equal(await readOnly(), 'off');
    });

    it('whose making was cut off before its stamp is made anew', async () => {
      const { source, replica } = await replicated();
      await fuse.zfs('inherit', 'flock:stamp', pathOf(replica));
      await receive(await send(source, snap('s2'), null), replica, snap('s2'), null);
      assert.deepEqual(await names(replica), ['s2']);
    });
  });

  it('without its prefix the pool is missing, and no volume is taken for absent', async () => {
    const lost = createZfs({ ...fuse.config, prefix: 'flock/elsewhere' }, createCommands());
    const status = await lost.pool();
    assert.equal(status.state, 'missing');
    assert.ok(status.state === 'missing' && status.reason.includes('zfs create -p'));
    await rejects(lost.exists(newId()), 'pool-missing');
    await rejects(lost.destroy(newId()), 'pool-missing');
    await rejects(lost.list(), 'pool-missing');
  });

  it('a list finishes the destruction that a crash cut off', async () => {
    const [id, clone] = [newId(), newId('clone')];
    // Never mounted: the daemon keeps what it has mounted, and does not rename that.
    await storage.create(id, options());
    await fuse.zfs('snapshot', `${pathOf(id)}@one`);
    await storage.clone({ id, snapshot: snap('one') }, clone, options());
    await fuse.zfs('rename', pathOf(id), `${pathOf(id)}:gone`);
    assert.ok(!(await again().list()).some((dataset) => dataset.id === id));
    const left = await fuse.zfs('list', '-H', '-r', '-o', 'name', fuse.config.prefix);
    assert.ok(!left.includes(':gone'), left);
    assert.equal(await storage.exists(clone), true);
    assert.deepEqual(await names(clone), []);
  });
});

(reason === null ? describe : describe.skip)('the making of a zfs pool', function () {
  this.timeout(60_000);
  let fuse: ZfsFuse;
  let storage: Storage & PoolMaker;
  const file = () => join(fuse.folder, 'pool', 'pool.zfs');

  beforeEach(async () => {
    fuse = await startZfsFuse({ pool: false });
    storage = createZfs(fuse.config, createCommands());
  });
  afterEach(() => fuse.stop());

  it('allocates every block of its file', async () => {
    await storage.makePool(128 * mebi);
    assert.ok((await stat(file())).blocks * 512 >= 128 * mebi);
  });

  it('is refused where the file is there, and leaves it', async () => {
    await writeFile(file(), 'somebody’s');
    await rejects(storage.makePool(128 * mebi), 'pool-unusable');
    assert.equal(await readFile(file(), 'utf8'), 'somebody’s');
  });

  it('is refused where a pool of that name is there', async () => {
    const other = join(fuse.folder, 'other.zfs');
    await writeFile(other, bytes(1));
    execFileSync('truncate', ['-s', '128M', other]);
    await fuse.zpool('create', '-m', 'none', 'flock', other);
    await rejects(storage.makePool(128 * mebi), 'pool-unusable');
    await assert.rejects(access(file()), { code: 'ENOENT' });
  });

  it('leaves no file where it fails', async () => {
    await assert.rejects(storage.makePool(1 * mebi));
    await assert.rejects(access(file()), { code: 'ENOENT' });
    await storage.makePool(128 * mebi);
    assert.equal((await storage.pool()).state, 'online');
  });

  it('is finished when a crash came before its prefix was made', async () => {
    await storage.makePool(128 * mebi);
    await fuse.zfs('destroy', fuse.config.prefix);
    assert.equal((await storage.pool()).state, 'missing');
    await storage.makePool(128 * mebi);
    assert.equal((await storage.pool()).state, 'online');
  });

  it('makes only the prefix in a pool of the operator', async () => {
    const disk = join(fuse.folder, 'disk');
    execFileSync('truncate', ['-s', '128M', disk]);
    await fuse.zpool('create', '-m', 'none', 'tank', disk);
    const inTank = createZfs({ ...fuse.config, prefix: 'tank/docker/flock', poolFile: null }, createCommands());
    assert.equal((await inTank.pool()).state, 'missing');
    await inTank.makePool(0);
    assert.equal((await inTank.pool()).state, 'online');
    await rejects(inTank.makePool(0), 'pool-unusable');
  });

  it('a pool file that is not a pool says so', async () => {
    await storage.makePool(128 * mebi);
    await fuse.zpool('export', 'flock');
    await rm(file());
    await writeFile(file(), bytes(1000));
    const status = await createZfs(fuse.config, createCommands()).pool();
    assert.notEqual(status.state, 'online');
    assert.ok((status.state === 'missing' || status.state === 'unusable') && status.reason.includes(file()));
  });

  it('makes the folder of its file', async () => {
    const nested = join(fuse.folder, 'a', 'b', 'pool.zfs');
    await mkdir(join(fuse.folder, 'a'));
    await createZfs({ ...fuse.config, poolFile: nested }, createCommands()).makePool(128 * mebi);
    await access(nested);
  });
});
