import assert from 'node:assert/strict';
import {
  assertText,
  type Context,
  created,
  datasetOf,
  mebi,
  namesOf,
  newId,
  options,
  rejectsWith,
  snap,
  snapshotOf,
  tag,
} from './context.ts';

export function cloneContract({ here, test }: Context): void {
  test('a clone of a snapshot has its content and nothing else of it', async () => {
    const { storage, content } = here();
    const [id, clone] = [await created(here(), { quotaBytes: 64 * mebi, stamp: 'origin' }), newId('clone')];
    await content.write(id, 'file', 'old');
    await storage.snapshot(id, snap('one'));
    await content.write(id, 'file', 'new');
    await storage.clone({ id, snapshot: snap('one') }, clone, options({ stamp: 'clone', quotaBytes: 32 * mebi }));
    await assertText(here(), clone, 'file', 'old');
    await assertText(here(), id, 'file', 'new');
    const dataset = await datasetOf(here(), clone);
    assert.deepEqual([dataset.stamp, dataset.quotaBytes], ['clone', 32 * mebi]);
    assert.deepEqual(await namesOf(here(), clone), []);
    assert.deepEqual(await namesOf(here(), id), ['one']);
    assert.equal((await datasetOf(here(), id)).stamp, 'origin');
  });

  test('a clone of live content has what was written before, also while the source is mounted', async () => {
    const { storage, content } = here();
    const [id, clone] = [await created(here()), newId('clone')];
    await storage.mount(id);
    await content.write(id, 'file', 'now');
    await storage.clone({ id, snapshot: null }, clone, options());
    await content.write(id, 'file', 'later');
    await assertText(here(), clone, 'file', 'now');
    assert.deepEqual(await namesOf(here(), clone), []);
    await assertText(here(), id, 'file', 'later');
    await storage.unmount(id);
  });

  test('clone may be repeated and keeps what was written', async () => {
    const { storage, content } = here();
    const [id, clone] = [await created(here()), newId('clone')];
    await content.write(id, 'file', 'origin');
    await storage.snapshot(id, snap('one'));
    const wanted = options({ stamp: 'clone' });
    await storage.clone({ id, snapshot: snap('one') }, clone, wanted);
    await content.write(clone, 'file', 'own');
    await storage.clone({ id, snapshot: snap('one') }, clone, wanted);
    await assertText(here(), clone, 'file', 'own');
    await assertText(here(), id, 'file', 'origin');
  });

  test('a clone lives on when its origin is destroyed, and gains no snapshots by it', async () => {
    const { storage, content } = here();
    const [id, first, second] = [await created(here()), newId('clone'), newId('clone')];
    await content.write(id, 'file', 'one');
    await storage.snapshot(id, snap('one'));
    await content.write(id, 'file', 'two');
    await storage.snapshot(id, snap('two'));
    await storage.hold(id, snap('two'), tag('keep'));
    await content.write(id, 'file', 'three');
    await storage.clone({ id, snapshot: snap('one') }, first, options());
    await storage.clone({ id, snapshot: null }, second, options());
    await storage.destroy(id);
    assert.equal(await storage.exists(id), false);
    await assertText(here(), first, 'file', 'one');
    await assertText(here(), second, 'file', 'three');
    assert.deepEqual(await namesOf(here(), first), []);
    assert.deepEqual(await namesOf(here(), second), []);
    await storage.snapshot(first, snap('one'));
    await storage.destroy(first);
    await storage.destroy(second);
    assert.ok(!(await storage.list()).some((dataset) => [id, first, second].includes(dataset.id)));
  });

  test('clones of clones survive in any order of destruction', async () => {
    const { storage, content } = here();
    const [a, b, c] = [await created(here()), newId('clone'), newId('clone')];
    await content.write(a, 'file', 'a');
    await storage.snapshot(a, snap('one'));
    await storage.clone({ id: a, snapshot: snap('one') }, b, options());
    await content.write(b, 'file', 'b');
    await storage.snapshot(b, snap('one'));
    await storage.clone({ id: b, snapshot: snap('one') }, c, options());
    await storage.destroy(b);
    await assertText(here(), c, 'file', 'b');
    assert.deepEqual(await namesOf(here(), c), []);
    await storage.destroy(a);
    await assertText(here(), c, 'file', 'b');
    assert.deepEqual(await namesOf(here(), c), []);
  });

  test('a snapshot with the name of the origin’s can be made in a clone', async () => {
    const { storage, content } = here();
    const [id, clone] = [await created(here()), newId('clone')];
    await storage.snapshot(id, snap('one'));
    await storage.clone({ id, snapshot: snap('one') }, clone, options());
    await content.write(clone, 'file', 'own');
    const own = await storage.snapshot(clone, snap('one'));
    assert.notEqual(own.identity, (await snapshotOf(here(), id, snap('one'))).identity);
    await storage.destroy(id);
    assert.deepEqual(
      (await storage.snapshots(clone)).map(({ name, identity }) => [name, identity]),
      [['one', own.identity]],
    );
  });

  test('the root directory of a clone is as in its origin unless told otherwise', async () => {
    const { storage, content } = here();
    const id = await created(here(), { mode: 0o700, uid: 999, gid: 998 });
    const [same, other] = [newId('clone'), newId('clone')];
    await storage.clone({ id, snapshot: null }, same, options());
    await storage.clone({ id, snapshot: null }, other, options({ mode: 0o750, uid: 5, gid: 6 }));
    assert.deepEqual(await content.root(same), { mode: 0o700, uid: 999, gid: 998 });
    assert.deepEqual(await content.root(other), { mode: 0o750, uid: 5, gid: 6 });
    assert.deepEqual(await content.root(id), { mode: 0o700, uid: 999, gid: 998 });
  });

  test('a promoted clone does not need its origin', async () => {
    const { storage, content } = here();
    const [id, clone] = [await created(here()), newId('clone')];
    await content.write(id, 'file', 'text');
    await storage.snapshot(id, snap('one'));
    await storage.clone({ id, snapshot: snap('one') }, clone, options());
    await storage.promote(clone);
    await storage.promote(clone);
    await storage.promote(id);
    await assertText(here(), id, 'file', 'text');
    await storage.destroy(id);
    await assertText(here(), clone, 'file', 'text');
    await storage.destroy(clone);
  });

  test('a clone of a snapshot that is not there makes nothing', async () => {
    const { storage } = here();
    const [id, clone] = [await created(here()), newId('clone')];
    await rejectsWith(storage.clone({ id, snapshot: snap('never') }, clone, options()), 'snapshot-not-found');
    assert.equal(await storage.exists(clone), false);
  });
}
