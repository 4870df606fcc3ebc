import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir, open, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { createCommands } from '../../../plugin/exec.ts';
import { createZfs } from '../../../plugin/storage/zfs/zfs.ts';
import { type Bench, created, mebi, newId, openBench, options, snap, tag } from '../../contract/storage/context.ts';
import { received, sent } from '../../contract/storage/streams.ts';
import { storageContract } from '../../contract/storage.ts';
import { rejects } from '../../support/refuses.ts';
import { until } from '../../support/until.ts';
import { type ModulePool, openPool, run, zfs, zpool } from './pool.ts';

const timeoutMs = 300_000;

// Each command takes eight times as long as on a real machine, so the long list is a shorter one.
storageContract('zfs on OpenZFS', openPool, { timeoutMs, datasets: 30 });

describe('the zfs backend on OpenZFS', () => {
  let made: ModulePool;
  let bench: Bench;
  const pathOf = (id: string) => `${made.config.prefix}/${id}`;
  const poolName = () => made.config.prefix.split('/')[0] ?? '';

  before(async () => {
    made = await openPool();
    bench = await openBench(made, {});
  });
  after(() => bench?.dispose());

  it('is known to have bookmarks, resumable receives and compressed streams', async () => {
    const found = await bench.storage.capabilities();
    assert.deepEqual(
      [found.bookmarks, found.resumableReceive, found.compressedSend, found.clonesDependOnOrigin],
      [true, true, true, true],
    );
    assert.equal(found.recordSizeBytesMax, mebi);
    assert.equal(found.compression[0], 'lz4');
    assert.ok(found.compression.includes('zstd-19'), found.compression.join(' '));
  });

  it('gives datasets what containers need, and what was asked for', async () => {
    const id = await created(bench, {
      compression: 'zstd-3',
      recordSizeBytes: mebi,
      quotaBytes: 64 * mebi,
      properties: { logbias: 'throughput' },
    });
    const names = 'xattr,acltype,atime,mountpoint,canmount,compression,recordsize,refquota,logbias';
    const values = (await zfs('get', '-H', '-p', '-o', 'value', names, pathOf(id))).split('\n');
    const wanted = ['sa', 'posix', 'off', 'legacy', 'noauto', 'zstd-3', String(mebi), String(64 * mebi), 'throughput'];
    assert.deepEqual(values, wanted);
  });

  it('is mounted with extended attributes and ACLs', async () => {
    const id = await created(bench);
    const path = await bench.storage.mount(id);
    const mount = (await readFile('/proc/mounts', 'utf8')).split('\n').find((line) => line.includes(path));
    assert.match(mount ?? '', /\bxattr,.*\bposixacl\b/);
    await bench.storage.unmount(id);
  });

  it('sends blocks as they are compressed on the disk', async () => {
    const id = await created(bench, { compression: 'lz4' });
    const text = Buffer.alloc(8 * mebi, 'the same again and again\n');
    await bench.content.write(id, 'file', text);
    await bench.storage.snapshot(id, snap('one'));
    const stream = await sent(bench, id, snap('one'));
    assert.ok(stream.length < mebi, `${stream.length} bytes`);
    const replica = newId('replica');
    await received(bench, stream, { id: replica, to: snap('one') });
    assert.ok((await bench.content.read(replica, 'file'))?.equals(text));
    const used = Number(await zfs('get', '-H', '-p', '-o', 'value', 'referenced', pathOf(replica)));
    assert.ok(used < mebi, `${used} bytes are used`);
  });

  it('does not destroy what is mounted in another mount name space only', async () => {
    const id = await created(bench);
    await bench.storage.snapshot(id, snap('one'));
    await bench.storage.hold(id, snap('one'), tag('keep'));
    // Bound to another place, as a container has it: removing the mount point would take it away in every name space.
    const elsewhere = join(bench.directory, 'elsewhere');
    await mkdir(elsewhere);
    const script = 'mount --bind "$1" "$2" && echo ready && exec sleep 600';
    const args = ['--propagation', 'private', 'sh', '-c', script, 'sh', await bench.storage.mount(id), elsewhere];
    const other = spawn('unshare', ['--mount', ...args]);
    await new Promise((done) => other.stdout.once('data', done));
    await bench.storage.unmount(id);
    await rejects(bench.storage.destroy(id), 'volume-busy');
    await rejects(bench.storage.rollback(id, snap('one'), newId('aside'), options()), 'volume-busy');
    assert.deepEqual(
      (await bench.storage.snapshots(id)).map(({ holds }) => holds),
      [['keep']],
    );
    const ended = new Promise((done) => other.once('exit', done));
    other.kill('SIGKILL');
    await ended;
    await bench.storage.destroy(id);
    assert.equal(await bench.storage.exists(id), false);
  });

  it('imports its pool when somebody has exported it', async () => {
    const id = await created(bench);
    await bench.content.write(id, 'file', 'kept');
    await zpool('export', poolName());
    assert.equal((await bench.content.read(id, 'file'))?.toString(), 'kept');
    await zpool('export', poolName());
    assert.equal((await bench.storage.pool()).state, 'online');
  });

  it('reads a pool that was imported read-only and says what can’t be done', async () => {
    const id = await created(bench);
    const { poolFile } = made.config;
    await zpool('export', poolName());
    await zpool('import', '-o', 'readonly=on', '-d', join(poolFile ?? '', '..'), poolName());
    try {
      assert.equal((await bench.storage.pool()).state, 'read-only');
      assert.equal(await bench.storage.exists(id), true);
      await rejects(bench.storage.create(newId(), options()), 'pool-read-only');
      await rejects(bench.storage.snapshot(id, snap('one')), 'pool-read-only');
    } finally {
      await zpool('export', poolName());
    }
    assert.equal((await bench.storage.pool()).state, 'online');
  });

  it('has all that was synced before a power cut in the next snapshot, though nothing has mounted it since', async () => {
    const id = await created(bench);
    await bench.content.write(id, 'file', 'before');
    await bench.storage.snapshot(id, snap('one'));
    const folder = await bench.storage.mount(id);
    // From here on nothing reaches the pool but the intent log, as if the host lost its power before the next transaction group.
    await zpool('freeze', poolName());
    const file = await open(join(folder, 'file'), 'a');
    await file.write(' and what was synced');
    await file.sync();
    await file.close();
    await bench.storage.unmount(id);
    await zpool('export', poolName());
    // The plugin of the next boot.
    const next = createZfs(made.config, createCommands());
    await next.snapshot(id, snap('two'));
    const copy = newId();
    await next.clone({ id, snapshot: snap('two') }, copy, options());
    assert.equal((await bench.content.read(copy, 'file'))?.toString(), 'before and what was synced');
  });

  it('finishes the destruction that a crash cut off', async () => {
    const id = await created(bench);
    await bench.storage.snapshot(id, snap('one'));
    await zfs('rename', pathOf(id), `${pathOf(id)}:gone`);
    await bench.storage.destroy(id);
    assert.ok(!(await zfs('list', '-H', '-r', '-o', 'name', made.config.prefix)).includes(id));
  });

  it('allocates every block of its file', async () => {
    const { blocks, size } = await stat(made.config.poolFile ?? '');
    assert.ok(blocks * 512 >= size, `${blocks * 512} of ${size} bytes`);
  });
});

describe('an operator’s pool on OpenZFS', () => {
  const device = '/dev/vdd1';
  let made: ModulePool;

  before(async () => {
    made = await openPool({ prefix: 'tank/docker/flock', poolFile: null });
  });
  after(() => made?.dispose());

  it('is missing until the operator makes it, and flock says how', async () => {
    const status = await made.storage.pool();
    assert.ok(status.state === 'missing' && /zpool create tank/.test(status.reason), JSON.stringify(status));
    await rejects(made.storage.makePool(0), 'pool-missing');
  });

  it('gets only the prefix from flock', async () => {
    await zpool('create', '-O', 'compression=lz4', '-m', 'none', 'tank', device);
    await zfs('create', 'tank/theirs');
    await made.storage.makePool(0);
    assert.equal((await made.storage.pool()).state, 'online');
    await rejects(made.storage.makePool(0), 'pool-unusable');
    const id = newId();
    await made.storage.create(id, options());
    assert.deepEqual(
      (await made.storage.list()).map((dataset) => dataset.id),
      [id],
    );
    assert.equal(await zfs('get', '-H', '-o', 'value', 'compression', `tank/docker/flock/${id}`), 'lz4');
    assert.equal(await zfs('list', '-H', '-o', 'name', 'tank/theirs'), 'tank/theirs');
  });

  it('is not imported by flock, and no volume is taken for absent meanwhile', async () => {
    const id = newId();
    await made.storage.create(id, options());
    await writeFile(join(await made.storage.mount(id), 'file'), 'kept');
    await made.storage.unmount(id);
    await zpool('export', 'tank');
    const error = await rejects(made.storage.exists(id), 'pool-missing');
    assert.match(error.message, /zpool import tank/);
    await rejects(made.storage.destroy(id), 'pool-missing');
    await run('zpool', ['import', '-N', '-d', device, 'tank']);
    const again = createZfs(made.config, createCommands());
    assert.equal(await readFile(join(await again.mount(id), 'file'), 'utf8'), 'kept');
    await again.unmount(id);
  });

  it('that has lost its disk says so, and goes on when it has one again', async () => {
    const id = newId();
    await made.storage.create(id, options());
    const file = join(await made.storage.mount(id), 'file');
    await writeFile(file, 'kept');
    await zpool('sync', 'tank');
    const [disk = '', part = ''] = [device.slice(0, -1), device.slice(-1)];
    const sectors = (await readFile(join('/sys/block', basename(disk), basename(device), 'size'), 'utf8')).trim();
    const writing = spawn('dd', ['if=/dev/zero', `of=${file}.new`, 'bs=1M', 'count=1', 'conv=fsync', 'status=none']);
    const written = new Promise((done) => writing.once('exit', done));
    // All beyond the first sectors is refused from here on, the labels too, and nothing of it is lost.
    await run('resizepart', [disk, part, '8']);
    try {
      const status = await until('the pool has failed', 120_000, async () => {
        const seen = await made.storage.pool();
        return seen.state === 'failed' ? seen : undefined;
      });
      assert.match('reason' in status ? status.reason : '', /tank is SUSPENDED/);
      await rejects(made.storage.snapshot(id, snap('late')), 'pool-unusable');
    } finally {
      await run('resizepart', [disk, part, sectors]);
      await zpool('clear', 'tank');
    }
    await until('the pool works', 120_000, async () =>
      (await made.storage.pool()).state === 'online' ? true : undefined,
    );
    await written;
    assert.equal(await readFile(file, 'utf8'), 'kept');
    await made.storage.unmount(id);
  });
});
