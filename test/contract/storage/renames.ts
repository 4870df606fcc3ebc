import assert from 'node:assert/strict';
import {
  assertText,
  type Context,
  datasetOf,
  mebi,
  namesOf,
  newId,
  options,
  readInSnapshot,
  rejectsWith,
  snap,
  snapshotOf,
  tag,
} from './context.ts';
import { history } from './rollback.ts';
import { received, replicated, sent } from './streams.ts';

export function renameContract({ here, there, test }: Context): void {
  test('a dataset with another id has everything that it had', async () => {
    const { storage } = here();
    const [id, other] = [await history(here()), newId('other')];
    await storage.hold(id, snap('s1'), tag('held'));
    const before = await storage.snapshots(id);
    await storage.rename(id, other);

    assert.equal(await storage.exists(id), false);
    const after = await storage.snapshots(other);
    assert.deepEqual(
      after.map(({ name, identity, holds }) => ({ name, identity, holds })),
      before.map(({ name, identity, holds }) => ({ name, identity, holds })),
    );
    assert.deepEqual((await snapshotOf(here(), other, snap('s1'))).holds, ['held']);
    const dataset = await datasetOf(here(), other);
    assert.deepEqual([dataset.stamp, dataset.quotaBytes], ['before', 64 * mebi]);
    assert.ok(!(await storage.list()).some((one) => one.id === id));
    await assertText(here(), other, 'file', '3');
    assert.equal(await readInSnapshot(here(), other, snap('s0'), 'file'), '0');
    await storage.release(other, snap('s1'), tag('held'));
    await storage.destroySnapshot(other, snap('s1'));
    assert.deepEqual(await namesOf(here(), other), ['s0', 's2']);
  });

  test('the old id is free for another dataset, and a repetition leaves that alone', async () => {
    const { storage, content } = here();
    const [id, other] = [await history(here()), newId('other')];
    const stream = await sent(here(), id, snap('s1'));
    await storage.rename(id, other);
    await storage.rename(id, other);
    await received(here(), stream, { id, to: snap('s1') });
    await storage.rename(id, other);
    assert.deepEqual(await namesOf(here(), id), ['s1']);
    assert.deepEqual(await namesOf(here(), other), ['s0', 's1', 's2']);
    await content.write(id, 'file', 'new');
    await storage.destroy(id);
    await assertText(here(), other, 'file', '3');
    await storage.destroy(other);
    assert.equal(await storage.exists(other), false);
  });

  test('clones of a dataset that gets another id stay as they are, in use or not', async () => {
    const { storage, content } = here();
    const [id, other, used, idle] = [await history(here()), newId('other'), newId('clone'), newId('clone')];
    await storage.clone({ id, snapshot: snap('s1') }, used, options());
    await storage.clone({ id, snapshot: null }, idle, options());
    await storage.mount(used);
    await storage.rename(id, other);
    await assertText(here(), used, 'file', '1');
    await content.write(used, 'more', 'x');
    await storage.unmount(used);
    assert.deepEqual(await namesOf(here(), other), ['s0', 's1', 's2']);
    assert.deepEqual([await namesOf(here(), used), await namesOf(here(), idle)], [[], []]);
    await storage.destroy(other);
    await assertText(here(), used, 'more', 'x');
    await assertText(here(), idle, 'file', '3');
  });

  test('a replica with another id goes on receiving', async () => {
    const { source, replica } = await replicated(here(), there());
    const { storage } = there();
    const other = newId('other');
    await storage.applyOptions(replica, { quotaBytes: null, compression: 'on', recordSizeBytes: null, properties: {} });
    await storage.rename(replica, other);
    await here().content.write(source, 'file', 'two');
    await here().storage.snapshot(source, snap('s2'));
    const stream = await sent(here(), source, snap('s2'), snap('s1'));
    await received(there(), stream, { id: other, to: snap('s2'), from: snap('s1') });
    await assertText(there(), other, 'file', 'two');
  });

  test('a mounted dataset gets no other id', async () => {
    const { storage } = here();
    const [id, other] = [await history(here()), newId('other')];
    await storage.mount(id);
    await rejectsWith(storage.rename(id, other), 'volume-busy');
    await assertText(here(), id, 'file', '3');
    await storage.unmount(id);
    assert.equal(await storage.exists(other), false);
    assert.deepEqual(await namesOf(here(), id), ['s0', 's1', 's2']);
  });

  test('where nothing is, nothing gets another id', async () => {
    const { storage } = here();
    const other = newId('other');
    await storage.rename(newId('never'), other);
    assert.equal(await storage.exists(other), false);
  });
}
