import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, open, readdir, readFile, rename, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createCommands } from '../../plugin/exec.ts';
import { mountedAt, readMountTable } from '../../plugin/mount-table.ts';
import { createBtrfs } from '../../plugin/storage/btrfs/btrfs.ts';
import { isCountLost } from '../../plugin/storage/btrfs/sysfs.ts';
import { bytes, mebi, newId, options, snap } from '../contract/storage/context.ts';
import { type BtrfsPool, command, openBtrfsPool } from '../support/btrfs-pool.ts';
import { rejects } from '../support/refuses.ts';
import { until } from '../support/until.ts';

const size = 256 * mebi;

describe('a btrfs pool', function () {
  this.timeout(60_000);
  let pool: BtrfsPool;
  beforeEach(async () => {
    pool = await openBtrfsPool();
  });
  afterEach(() => pool.dispose());

  const attach = (path: string) => command('losetup', '--find', '--show', path);

  it('has every block of its file allocated, and keeps them when data is removed', async () => {
    const { storage, config } = pool;
    await storage.makePool(size);
    const blocks = async () => (await stat(config.path)).blocks * 512;
    assert.ok((await blocks()) >= size);
    const id = newId();
    await storage.create(id, options());
    const path = await storage.mount(id);
    await writeFile(join(path, 'big'), bytes(20 * mebi));
    await storage.unmount(id);
    await storage.destroy(id);
    await storage.close();
    assert.ok((await blocks()) >= size, `${await blocks()} of ${size} bytes are allocated`);
  });

  it('never gets a second loop device', async () => {
    const { storage, config, again, folder } = pool;
    await storage.makePool(size);
    const attached = await attach(config.path);
    const id = newId();
    await storage.create(id, options());
    assert.equal(mountedAt(await readMountTable(), config.topMount)?.source, attached);
    const other = createBtrfs({ ...config, path: join(folder, 'link') }, createCommands());
    await symlink(config.path, join(folder, 'link'));
    assert.equal(await other.exists(id), true);
    assert.equal(await again().exists(id), true);
    assert.deepEqual((await command('losetup', '-j', config.path)).split('\n').length, 1);
  });

  it('that somebody attached twice is not mounted', async () => {
    const { storage, config } = pool;
    await storage.makePool(size);
    const devices = [await attach(config.path), await attach(config.path)];
    const error = await rejects(storage.list(), 'pool-unusable');
    for (const device of devices) assert.match(error.message, new RegExp(device));
    assert.equal((await storage.pool()).state, 'unusable');
    await command('losetup', '-d', devices[0] ?? '');
    assert.deepEqual(await storage.list(), []);
  });

  it('has no loop device left after close', async () => {
    const { storage, config } = pool;
    await storage.makePool(size);
    await storage.list();
    await storage.close();
    await until('the loop device is gone', 5000, async () =>
      (await command('losetup', '-j', config.path)) === '' ? true : undefined,
    );
  });

  it('that was being made when the plugin died leaves no loop device when it is made anew', async () => {
    const { storage, config } = pool;
    const unfinished = `${config.path}.new`;
    await writeFile(unfinished, bytes(mebi));
    const device = await attach(unfinished);
    await storage.makePool(size);
    const attached = await command('losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE');
    assert.doesNotMatch(attached, new RegExp(`${device}\\s.*\\.new`));
    assert.deepEqual(await storage.list(), []);
  });

  it('is missing while its file is away and there again with it', async () => {
    const { storage, config } = pool;
    await storage.makePool(size);
    const id = newId();
    await storage.create(id, options());
    await rename(config.path, `${config.path}.away`);
    await rejects(storage.list(), 'pool-missing');
    // What is mounted works on: no reason to give anything up.
    assert.equal((await storage.pool()).state, 'unusable');
    await rename(`${config.path}.away`, config.path);
    assert.equal(await storage.exists(id), true);
    await storage.close();
    await rename(config.path, `${config.path}.away`);
    assert.equal((await storage.pool()).state, 'missing');
    await rejects(storage.exists(id), 'pool-missing');
    await rejects(storage.mount(id), 'pool-missing');
  });

  it('is not made over anything, and what is no pool of flock is not touched', async () => {
    const { storage, config } = pool;
    await writeFile(config.path, 'precious');
    await rejects(storage.makePool(size), 'pool-unusable');
    await rejects(storage.list(), 'pool-unusable');
    for (const mkfs of ['mkfs.ext4', 'mkfs.btrfs']) {
      await truncate(config.path, 0);
      await truncate(config.path, size);
      await command(mkfs, '-q', config.path);
      await rejects(storage.makePool(size), 'pool-unusable');
      await rejects(storage.list(), 'pool-unusable');
      assert.equal((await storage.pool()).state, 'unusable');
      assert.equal(mountedAt(await readMountTable(), config.topMount), null);
    }
  });

  it('is not larger than the host has room for, and leaves nothing behind then', async () => {
    const { storage, config } = pool;
    await rejects(storage.makePool(2 ** 50), 'pool-unusable');
    await rejects(storage.makePool(10 * mebi), 'pool-unusable');
    await assert.rejects(access(`${config.path}.new`));
    await assert.rejects(access(config.path));
    // What a crash in the middle left.
    await writeFile(`${config.path}.new`, bytes(mebi));
    await storage.makePool(size);
    assert.deepEqual(await storage.list(), []);
  });

  it('may be a block device, unless something is on it', async () => {
    const { config, folder } = pool;
    const backing = join(folder, 'disk');
    await writeFile(backing, '');
    await truncate(backing, size);
    await command('mkfs.ext4', '-q', backing);
    const device = await attach(backing);
    const storage = createBtrfs({ ...config, path: device }, createCommands());
    await rejects(storage.makePool(size), 'pool-unusable');
    await rejects(storage.list(), 'pool-unusable');
    await command('wipefs', '-aq', device);
    await rejects(storage.list(), 'pool-unusable');
    await storage.makePool(size);
    const id = newId();
    await storage.create(id, options());
    await storage.mount(id);
    await storage.unmount(id);
    await rejects(storage.makePool(size), 'pool-unusable');
    assert.equal(await storage.exists(id), true);
    await storage.close();
  });

  it('is not opened where something else is mounted', async () => {
    const { storage, config } = pool;
    await storage.makePool(size);
    await mkdir(config.topMount, { recursive: true });
    await command('mount', '-t', 'tmpfs', 'stranger', config.topMount);
    await rejects(storage.list(), 'pool-unusable');
    await command('umount', config.topMount);
    assert.deepEqual(await storage.list(), []);
  });

  it('that the kernel made read-only says so, and can still be read', async () => {
    const { storage, config } = pool;
    await storage.makePool(size);
    const id = newId();
    await storage.create(id, options({ stamp: 'x' }));
    const path = await storage.mount(id);
    await writeFile(join(path, 'file'), 'text');
    await storage.snapshot(id, snap('one'));
    await command('mount', '-o', 'remount,ro', config.topMount);
    assert.equal((await storage.pool()).state, 'read-only');
    await rejects(storage.create(newId(), options()), 'pool-read-only');
    await rejects(storage.snapshot(id, snap('two')), 'pool-read-only');
    await rejects(storage.destroySnapshot(id, snap('one')), 'pool-read-only');
    await rejects(storage.stamp(id, 'y'), 'pool-read-only');
    await rejects(storage.resize(id, 32 * mebi), 'pool-read-only');
    assert.deepEqual([(await storage.list())[0]?.stamp, (await storage.snapshots(id)).length], ['x', 1]);
    await storage.unmount(id);
    await command('mount', '-o', 'remount,rw', config.topMount);
    await storage.create(newId(), options());
  });

  it('that is full can still be cleaned up', async () => {
    const { storage } = pool;
    await storage.makePool(size);
    const [full, other] = [newId(), newId()];
    await storage.create(full, options());
    await storage.create(other, options());
    const path = await storage.mount(full);
    await assert.rejects(writeFile(join(path, 'big'), bytes(size)), { code: 'ENOSPC' });
    for (let file = 0; ; file += 1) {
      const failed = await writeFile(join(path, `small-${file}`), bytes(4000)).then(
        () => false,
        () => true,
      );
      if (failed) break;
    }
    await storage.snapshot(full, snap('one'));
    await storage.stamp(other, 'changed');
    await storage.unmount(full);
    assert.equal((await storage.list()).length, 2);
    await storage.destroy(full);
    const status = await until('the space is free again', 20_000, async () => {
      const now = await storage.pool();
      return 'freeBytes' in now && now.freeBytes > size / 4 ? now : undefined;
    });
    assert.equal(status.state, 'online');
    await writeFile(join(await storage.mount(other), 'file'), bytes(10 * mebi));
    await storage.unmount(other);
  });

  it('does not destroy or roll back what is mounted in another mount namespace', async () => {
    const { storage } = pool;
    await storage.makePool(size);
    const id = newId();
    await storage.create(id, options());
    await storage.snapshot(id, snap('one'));
    // A mount of its own, as Docker makes it: a mere copy goes away with the mount point.
    const script = `mount --bind ${await storage.mount(id)} ${pool.folder}/inside; echo ready; exec sleep 60`;
    await mkdir(join(pool.folder, 'inside'));
    const container = spawn('unshare', ['--mount', 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(container.stdout, 'data');
    await storage.unmount(id);
    await rejects(storage.destroy(id), 'volume-busy');
    await rejects(storage.rollback(id, snap('one'), newId(), options()), 'volume-busy');
    container.kill();
    await once(container, 'exit');
    await storage.destroy(id);
  });

  it('forgets the quota groups of what was destroyed', async () => {
    const { storage, config } = pool;
    await storage.makePool(size);
    for (let round = 0; round < 3; round += 1) {
      const id = newId();
      await storage.create(id, options({ quotaBytes: 32 * mebi }));
      await storage.snapshot(id, snap('one'));
      await storage.destroy(id);
    }
    await command('btrfs', 'subvolume', 'sync', config.topMount);
    await until('only the top level is left', 10_000, async () => {
      await storage.list();
      const groups = await command('btrfs', 'qgroup', 'show', config.topMount);
      return groups.split('\n').filter((line) => line.startsWith('0/')).length === 1 ? true : undefined;
    });
  });

  it('counts usage again when the kernel has lost count', async () => {
    const { storage, config } = pool;
    await storage.makePool(size);
    const id = newId();
    await storage.create(id, options());
    await writeFile(join(await storage.mount(id), 'file'), bytes(8 * mebi));
    await storage.unmount(id);
    // Shared data can't be added to a group without looking at all of it.
    await storage.snapshot(id, snap('one'));
    await command('btrfs', 'qgroup', 'create', '1/1', config.topMount);
    const subvolume = await command('btrfs', 'inspect-internal', 'rootid', join(config.topMount, 'volumes', id));
    await command('btrfs', 'qgroup', 'assign', '--no-rescan', `0/${subvolume}`, '1/1', config.topMount);
    const device = mountedAt(await readMountTable(), config.topMount)?.source ?? '';
    assert.equal(await isCountLost(device), true);
    await storage.list();
    await until('the count is right', 10_000, async () => ((await isCountLost(device)) ? undefined : true));
    assert.ok(((await storage.list())[0]?.usedBytes ?? 0) >= 8 * mebi);
  });

  it('is listed as it is when a container gives a subvolume a deceitful name', async () => {
    const { storage } = pool;
    await storage.makePool(size);
    const id = newId();
    await storage.create(id, options());
    const path = await storage.mount(id);
    const uuid = '00000000-0000-0000-0000-000000000000';
    const line = (shown: string) =>
      `ID 999 gen 1 cgen 1 top level 5 parent_uuid - received_uuid - uuid ${uuid} path ${shown}`;
    // No name has a slash, so each part is a directory or subvolume of its own.
    let folder = path;
    for (const part of `x\n${line(`snapshots/${id}/fake/fake`)}\n${line(`volumes/${newId('fake')}`)}`.split('/')) {
      folder = join(folder, part);
      await command('btrfs', 'subvolume', 'create', folder);
    }
    assert.deepEqual(
      (await storage.list()).map((dataset) => dataset.id),
      [id],
    );
    assert.deepEqual(await storage.snapshots(id), []);
    await storage.snapshot(id, snap('one'));
    assert.equal((await storage.snapshots(id)).length, 1);
    await storage.unmount(id);
    await storage.destroy(id);
    assert.deepEqual(await storage.list(), []);
  });

  it('keeps subvolumes that a container has made, which no snapshot has, when a stream replaces them', async () => {
    const other = await openBtrfsPool();
    const none = new AbortController().signal;
    const id = newId();
    const [one, two] = [snap('one'), snap('two')];
    const stream = join(other.folder, 'stream');
    async function pass(from: BtrfsPool, to: BtrfsPool, name: typeof one, base: typeof one | null) {
      await using sink = await open(stream, 'w');
      await from.storage.send({ id, to: name, from: base }, sink.fd, none);
      await using source = await open(stream, 'r');
      await to.storage.receive({ id, to: name, from: base, stamp: 'test' }, source.fd, none);
    }
    try {
      for (const { storage } of [pool, other]) await storage.makePool(size);
      await pool.storage.create(id, options());
      const nested = join(await pool.storage.mount(id), 'nested');
      await command('btrfs', 'subvolume', 'create', nested);
      await writeFile(join(nested, 'only'), 'here');
      await pool.storage.unmount(id);
      await pool.storage.snapshot(id, one);
      // As when the volume goes to another node, which writes.
      await pass(pool, other, one, null);
      await writeFile(join(await other.storage.mount(id), 'more'), 'there');
      await other.storage.unmount(id);
      await other.storage.snapshot(id, two);
      await pass(other, pool, two, one);
      const kept = join(pool.config.topMount, 'kept');
      const [name = ''] = await readdir(kept);
      assert.equal(await readFile(join(kept, name, 'nested', 'only'), 'utf8'), 'here');
      await pool.storage.close();
      assert.equal((await pool.storage.list()).length, 1);
      assert.deepEqual(await readdir(join(pool.config.topMount, 'incoming')), []);
    } finally {
      await other.dispose();
    }
  });
});
