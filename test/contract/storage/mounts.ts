import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { assertText, type Context, created, newId, rejectsWith, snap } from './context.ts';

export function mountContract({ here, there, test }: Context): void {
  test('what was written is there after a new mount, at the same path', async () => {
    const { storage, content } = here();
    const id = await created(here());
    const path = await storage.mount(id);
    assert.equal(path, storage.mountPath(id));
    await content.write(id, 'file', 'text');
    await storage.unmount(id);
    assert.equal(await storage.mount(id), path);
    await assertText(here(), id, 'file', 'text');
    await storage.unmount(id);
  });

  test('mounting twice mounts once', async () => {
    const { storage, content, mountTable } = here();
    const id = await created(here());
    await storage.mount(id);
    await content.write(id, 'file', 'text');
    assert.equal(await storage.mount(id), storage.mountPath(id));
    assert.equal((await mountTable()).filter((entry) => storage.isMountOf(entry, id)).length, 1);
    await assertText(here(), id, 'file', 'text');
    await storage.unmount(id);
    assert.equal((await mountTable()).filter((entry) => storage.isMountOf(entry, id)).length, 0);
  });

  test('unmounting twice is no error, and the mount point is gone', async () => {
    const { storage, hasRealMounts } = here();
    const id = await created(here());
    const path = await storage.mount(id);
    await storage.unmount(id);
    await storage.unmount(id);
    if (hasRealMounts) await assert.rejects(access(path), { code: 'ENOENT' });
  });

  test('creating a dataset does not mount it', async () => {
    const { storage, mountTable, hasRealMounts } = here();
    const id = await created(here());
    assert.ok(!(await mountTable()).some((entry) => storage.isMountOf(entry, id)));
    if (hasRealMounts) await assert.rejects(access(storage.mountPath(id)), { code: 'ENOENT' });
  });

  test('each dataset has its own path', async () => {
    const { storage } = here();
    assert.notEqual(storage.mountPath(newId('a')), storage.mountPath(newId('a')));
    const id = newId();
    assert.equal(storage.mountPath(id), storage.mountPath(id));
  });

  test('the mount table tells which dataset a mount shows, and that it is writable', async () => {
    const { storage, mountTable } = here();
    const [one, two] = [await created(here()), await created(here())];
    await storage.mount(one);
    await storage.mount(two);
    const table = await mountTable();
    for (const id of [one, two]) {
      const entries = table.filter((entry) => storage.isMountOf(entry, id));
      assert.deepEqual(
        entries.map((entry) => [entry.mountPoint, entry.readOnly]),
        [[storage.mountPath(id), false]],
      );
    }
    assert.ok(!table.some((entry) => there().storage.isMountOf(entry, newId())));
    await storage.unmount(one);
    await storage.unmount(two);
  });

  test('a mounted dataset is not destroyed', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await storage.mount(id);
    await content.write(id, 'file', 'text');
    await storage.snapshot(id, snap('one'));
    await rejectsWith(storage.destroy(id), 'volume-busy');
    await assertText(here(), id, 'file', 'text');
    assert.equal((await storage.snapshots(id)).length, 1);
    await storage.unmount(id);
    await storage.destroy(id);
    assert.equal(await storage.exists(id), false);
  });
}
