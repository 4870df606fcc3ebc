import assert from 'node:assert/strict';
import type { DatasetId } from '../../../controller/model/names.ts';
import {
  assertText,
  type Bench,
  type Context,
  created,
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

/** A dataset with the snapshots s0, s1, s2 of the texts 0, 1, 2 and the live text 3. */
export async function history(bench: Bench): Promise<DatasetId> {
  const id = await created(bench, { stamp: 'before', quotaBytes: 64 * mebi });
  for (const step of ['0', '1', '2']) {
    await bench.content.write(id, 'file', step);
    await bench.storage.snapshot(id, snap(`s${step}`));
  }
  await bench.content.write(id, 'file', '3');
  return id;
}

export function rollbackContract({ here, test }: Context): void {
  test('rollback makes a snapshot live and keeps everything that came after it', async () => {
    const { storage } = here();
    const [id, aside] = [await history(here()), newId('aside')];
    await storage.hold(id, snap('s1'), tag('stays'));
    await storage.hold(id, snap('s2'), tag('moves'));
    const before = await storage.snapshots(id);
    await storage.rollback(id, snap('s1'), aside, options({ stamp: 'after', quotaBytes: 32 * mebi }));

    assert.deepEqual(await namesOf(here(), id), ['s0', 's1']);
    assert.deepEqual(await namesOf(here(), aside), ['s2']);
    const identities = [...(await storage.snapshots(id)), ...(await storage.snapshots(aside))];
    assert.deepEqual(
      identities.map(({ identity }) => identity),
      before.map(({ identity }) => identity),
    );
    assert.deepEqual((await snapshotOf(here(), id, snap('s1'))).holds, ['stays']);
    assert.deepEqual((await snapshotOf(here(), aside, snap('s2'))).holds, ['moves']);
    const dataset = await datasetOf(here(), id);
    assert.deepEqual([dataset.stamp, dataset.quotaBytes], ['after', 32 * mebi]);
    assert.equal((await datasetOf(here(), aside)).stamp, 'before');
    await assertText(here(), id, 'file', '1');
    await assertText(here(), aside, 'file', '3');
    assert.equal(await readInSnapshot(here(), id, snap('s0'), 'file'), '0');
    assert.equal(await readInSnapshot(here(), aside, snap('s2'), 'file'), '2');
  });

  test('rollback may be repeated', async () => {
    const { storage } = here();
    const [id, aside] = [await history(here()), newId('aside')];
    const wanted = options({ stamp: 'after' });
    await storage.rollback(id, snap('s1'), aside, wanted);
    await storage.rollback(id, snap('s1'), aside, wanted);
    assert.deepEqual(await namesOf(here(), id), ['s0', 's1']);
    assert.deepEqual(await namesOf(here(), aside), ['s2']);
    await assertText(here(), id, 'file', '1');
    await assertText(here(), aside, 'file', '3');
  });

  test('both sides live on independently after a rollback', async () => {
    const { storage, content } = here();
    const [id, aside, second] = [await history(here()), newId('aside'), newId('aside')];
    await storage.rollback(id, snap('s2'), aside, options());
    await content.write(id, 'file', 'new');
    await storage.snapshot(id, snap('s3'));
    assert.deepEqual(await namesOf(here(), id), ['s0', 's1', 's2', 's3']);
    assert.deepEqual(await namesOf(here(), aside), []);
    await storage.rollback(id, snap('s0'), second, options());
    await assertText(here(), id, 'file', '0');
    await assertText(here(), aside, 'file', '3');
    await assertText(here(), second, 'file', 'new');
    assert.deepEqual(await namesOf(here(), second), ['s1', 's2', 's3']);
    await storage.destroy(aside);
    await storage.destroy(second);
    assert.deepEqual(await namesOf(here(), id), ['s0']);
    await assertText(here(), id, 'file', '0');
  });

  test('what was kept aside outlives the dataset', async () => {
    const { storage } = here();
    const [id, aside] = [await history(here()), newId('aside')];
    await storage.rollback(id, snap('s1'), aside, options());
    await storage.destroy(id);
    assert.equal(await storage.exists(id), false);
    assert.deepEqual(await namesOf(here(), aside), ['s2']);
    await assertText(here(), aside, 'file', '3');
  });

  test('the root directory keeps its owner through a rollback', async () => {
    const { storage, content } = here();
    const id = await created(here(), { mode: 0o700, uid: 999, gid: 998 });
    await storage.snapshot(id, snap('one'));
    await storage.rollback(id, snap('one'), newId('aside'), options());
    assert.deepEqual(await content.root(id), { mode: 0o700, uid: 999, gid: 998 });
  });

  test('a mounted dataset is not rolled back', async () => {
    const { storage } = here();
    const [id, aside] = [await history(here()), newId('aside')];
    await storage.mount(id);
    await rejectsWith(storage.rollback(id, snap('s1'), aside, options()), 'volume-busy');
    await assertText(here(), id, 'file', '3');
    await storage.unmount(id);
    assert.equal(await storage.exists(aside), false);
    assert.deepEqual(await namesOf(here(), id), ['s0', 's1', 's2']);
  });

  test('rollback to a snapshot that is not there changes nothing', async () => {
    const { storage } = here();
    const [id, aside] = [await history(here()), newId('aside')];
    await rejectsWith(storage.rollback(id, snap('never'), aside, options()), 'snapshot-not-found');
    assert.equal(await storage.exists(aside), false);
    assert.deepEqual(await namesOf(here(), id), ['s0', 's1', 's2']);
    await assertText(here(), id, 'file', '3');
  });
}
