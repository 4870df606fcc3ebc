import assert from 'node:assert/strict';
import {
  assertText,
  bytes,
  type Context,
  created,
  eventually,
  mebi,
  namesOf,
  readInSnapshot,
  rejectsWith,
  snap,
  snapshotOf,
  tag,
} from './context.ts';

export function snapshotContract({ here, test }: Context): void {
  test('snapshots come oldest first, each with an identity of its own', async () => {
    const { storage } = here();
    const [id, other] = [await created(here()), await created(here())];
    const made = [];
    for (const name of ['m', 'z:9', 'a', 'flock.r-1_x', 'b']) made.push(await storage.snapshot(id, snap(name)));
    const foreign = await storage.snapshot(other, snap('m'));
    const listed = await storage.snapshots(id);
    assert.deepEqual(await namesOf(here(), id), ['m', 'z:9', 'a', 'flock.r-1_x', 'b']);
    assert.deepEqual(
      listed.map(({ identity }) => identity),
      made.map(({ identity }) => identity),
    );
    assert.equal(new Set([...listed, foreign].map(({ identity }) => identity)).size, 6);
    for (const [index, { createdAtMs }] of listed.entries()) {
      assert.ok(Number.isFinite(createdAtMs) && createdAtMs > 0);
      assert.ok(createdAtMs >= (listed[index - 1]?.createdAtMs ?? 0), 'times do not go back');
    }
    assert.deepEqual(await namesOf(here(), other), ['m']);
  });

  test('a name that is taken is refused and the snapshot stays', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await content.write(id, 'file', 'old');
    const first = await storage.snapshot(id, snap('one'));
    await content.write(id, 'file', 'new');
    await rejectsWith(storage.snapshot(id, snap('one')), 'snapshot-exists');
    assert.equal((await snapshotOf(here(), id, snap('one'))).identity, first.identity);
    assert.equal(await readInSnapshot(here(), id, snap('one'), 'file'), 'old');
  });

  test('writes that were completed before are in the snapshot, later ones are not', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await storage.mount(id);
    await content.write(id, 'before', 'not synced');
    await storage.snapshot(id, snap('one'));
    await content.write(id, 'before', 'changed');
    await content.write(id, 'after', 'late');
    await storage.unmount(id);
    assert.equal(await readInSnapshot(here(), id, snap('one'), 'before'), 'not synced');
    assert.equal(await readInSnapshot(here(), id, snap('one'), 'after'), null);
    await assertText(here(), id, 'before', 'changed');
  });

  test('a destroyed snapshot is gone, its name is free, and destroying again does nothing', async () => {
    const { storage } = here();
    const id = await created(here());
    const first = await storage.snapshot(id, snap('one'));
    await storage.snapshot(id, snap('two'));
    await storage.destroySnapshot(id, snap('one'));
    await storage.destroySnapshot(id, snap('one'));
    await storage.destroySnapshot(id, snap('never'));
    assert.deepEqual(await namesOf(here(), id), ['two']);
    const again = await storage.snapshot(id, snap('one'));
    assert.notEqual(again.identity, first.identity);
    assert.deepEqual(await namesOf(here(), id), ['two', 'one']);
  });

  test('what only one snapshot holds is its own', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await content.write(id, 'big', bytes(6 * mebi));
    await storage.snapshot(id, snap('one'));
    await content.remove(id, 'big');
    const found = await eventually(
      () => snapshotOf(here(), id, snap('one')),
      ({ uniqueBytes }) => uniqueBytes >= 6 * mebi,
      'the snapshot alone holds the file',
    );
    assert.ok(found.uniqueBytes < 12 * mebi, `unique ${found.uniqueBytes}`);
  });

  test('holds are a set of tags', async () => {
    const { storage } = here();
    const id = await created(here());
    assert.deepEqual((await storage.snapshot(id, snap('one'))).holds, []);
    await storage.snapshot(id, snap('two'));
    await storage.hold(id, snap('one'), tag('flock.send:b'));
    await storage.hold(id, snap('one'), tag('a'));
    await storage.hold(id, snap('one'), tag('a'));
    const holds = async (name: string) => [...(await snapshotOf(here(), id, snap(name))).holds].sort();
    assert.deepEqual(await holds('one'), ['a', 'flock.send:b']);
    assert.deepEqual(await holds('two'), []);
    await storage.release(id, snap('one'), tag('a'));
    await storage.release(id, snap('one'), tag('a'));
    await storage.release(id, snap('one'), tag('other'));
    await storage.release(id, snap('never'), tag('a'));
    assert.deepEqual(await holds('one'), ['flock.send:b']);
    await rejectsWith(storage.hold(id, snap('never'), tag('a')), 'snapshot-not-found');
  });

  test('a held snapshot is not destroyed until its last hold is released', async () => {
    const { storage } = here();
    const id = await created(here());
    await storage.snapshot(id, snap('one'));
    await storage.hold(id, snap('one'), tag('a'));
    await storage.hold(id, snap('one'), tag('b'));
    await rejectsWith(storage.destroySnapshot(id, snap('one')), 'snapshot-held');
    await storage.release(id, snap('one'), tag('a'));
    await rejectsWith(storage.destroySnapshot(id, snap('one')), 'snapshot-held');
    assert.deepEqual(await namesOf(here(), id), ['one']);
    await storage.release(id, snap('one'), tag('b'));
    await storage.destroySnapshot(id, snap('one'));
    assert.deepEqual(await namesOf(here(), id), []);
  });
}
