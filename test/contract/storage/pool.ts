import assert from 'node:assert/strict';
import { FlockError } from '../../../controller/model/errors.ts';
import { assertText, type Context, created, mebi, newId, rejectsWith } from './context.ts';

export function poolContract({ here, there, test, traits }: Context): void {
  const size = traits.poolBytes ?? 512 * mebi;

  test('a pool that was never made is missing, and says so without throwing', async () => {
    const { status, exists } = here().beforeMade;
    assert.equal(status.state, 'missing');
    assert.ok(exists instanceof FlockError, `a missing pool must not look like an empty one: ${String(exists)}`);
    assert.equal(exists.code, 'pool-missing');
  });

  test('a pool has a name, a size and free space', async () => {
    const status = await here().storage.pool();
    assert.equal(status.state, 'online');
    assert.notEqual(status.name, '');
    assert.ok(status.sizeBytes > size / 2 && status.sizeBytes <= size, `size ${status.sizeBytes}`);
    assert.ok(status.freeBytes > 0 && status.freeBytes <= status.sizeBytes, `free ${status.freeBytes}`);
    assert.equal(status.warning, null);
  });

  test('a new pool is empty', async () => {
    assert.deepEqual(await there().storage.list(), []);
  });

  test('making a pool over another is refused and does no harm', async () => {
    const id = await created(here());
    await here().content.write(id, 'file', 'still here');
    await rejectsWith(here().storage.makePool(size), 'pool-unusable');
    await assertText(here(), id, 'file', 'still here');
  });

  test('after close the pool is opened again when it is next needed', async () => {
    const id = await created(here());
    await here().content.write(id, 'file', 'kept');
    await here().storage.close();
    await here().storage.close();
    assert.equal(await here().storage.exists(id), true);
    await assertText(here(), id, 'file', 'kept');
  });

  test('close leaves the mounts of volumes', async () => {
    const { storage, mountTable } = here();
    const id = await created(here());
    await storage.mount(id);
    await storage.close();
    assert.ok((await mountTable()).some((entry) => storage.isMountOf(entry, id)));
    await assertText(here(), id, 'nothing', null);
    await storage.unmount(id);
    assert.ok(!(await mountTable()).some((entry) => storage.isMountOf(entry, id)));
  });

  test('capabilities are found once and stay the same', async () => {
    const { storage } = here();
    const capabilities = await storage.capabilities();
    assert.deepEqual(await storage.capabilities(), capabilities);
    assert.ok(capabilities.compression.length > 0);
    assert.ok(!capabilities.compression.some((value) => value === 'on' || value === 'off'));
    assert.ok(capabilities.recordSizeBytesMax === null || capabilities.recordSizeBytesMax >= 512);
  });

  test('calls for different datasets run in parallel', async () => {
    const { storage } = here();
    const ids = await Promise.all(Array.from({ length: 6 }, () => created(here())));
    await Promise.all(ids.map((id) => storage.stamp(id, `stamp of ${id}`)));
    const listed = await storage.list();
    for (const id of ids) assert.equal(listed.find((dataset) => dataset.id === id)?.stamp, `stamp of ${id}`);
    await Promise.all(ids.map((id) => storage.destroy(id)));
    for (const id of ids) assert.equal(await storage.exists(id), false);
    assert.equal(await storage.exists(newId()), false);
  });
}
