import assert from 'node:assert/strict';
import { stampBytesMax } from '../../../plugin/storage/storage.ts';
import {
  assertText,
  bytes,
  type Context,
  created,
  datasetOf,
  eventually,
  mebi,
  namesOf,
  never,
  newId,
  options,
  rejectsWith,
  snap,
  tag,
} from './context.ts';

export function datasetContract({ here, test, traits }: Context): void {
  test('a created dataset exists and is listed with its stamp and no quota', async () => {
    const { storage } = here();
    const id = newId('web.data_1-x');
    assert.equal(await storage.exists(id), false);
    await storage.create(id, options({ stamp: 'owner' }));
    assert.equal(await storage.exists(id), true);
    const dataset = await datasetOf(here(), id);
    assert.equal(dataset.stamp, 'owner');
    assert.equal(dataset.quotaBytes, null);
    assert.deepEqual(await storage.snapshots(id), []);
  });

  test('create may be repeated and keeps the content', async () => {
    const { storage, content } = here();
    const id = newId();
    const wanted = options({ stamp: 'same', quotaBytes: 32 * mebi });
    await storage.create(id, wanted);
    await content.write(id, 'file', 'first');
    await storage.create(id, wanted);
    await assertText(here(), id, 'file', 'first');
    const dataset = await datasetOf(here(), id);
    assert.deepEqual([dataset.stamp, dataset.quotaBytes], ['same', 32 * mebi]);
  });

  test('one id that begins like another is another dataset', async () => {
    const { storage } = here();
    const [short, long] = [newId('a'), newId('a.b')];
    await storage.create(short, options());
    assert.equal(await storage.exists(long), false);
    await storage.create(long, options());
    await storage.destroy(short);
    assert.deepEqual([await storage.exists(short), await storage.exists(long)], [false, true]);
  });

  test('destroy removes a dataset with its snapshots, held or not', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await content.write(id, 'file', 'text');
    await storage.snapshot(id, snap('free'));
    await storage.snapshot(id, snap('held'));
    await storage.hold(id, snap('held'), tag('keep'));
    await storage.destroy(id);
    assert.equal(await storage.exists(id), false);
    assert.ok(!(await storage.list()).some((dataset) => dataset.id === id));
    await rejectsWith(storage.snapshots(id), 'dataset-missing');
  });

  test('destroying what is not there does nothing', async () => {
    const { storage } = here();
    const id = await created(here());
    await storage.destroy(id);
    await storage.destroy(id);
    await storage.destroy(newId());
  });

  test('a dataset that is created again after it was destroyed is empty', async () => {
    const { storage, content } = here();
    const id = await created(here(), { stamp: 'old' });
    await content.write(id, 'file', 'text');
    await storage.snapshot(id, snap('one'));
    await storage.hold(id, snap('one'), tag('keep'));
    await storage.destroy(id);
    await storage.create(id, options({ stamp: 'new' }));
    assert.deepEqual(await namesOf(here(), id), []);
    assert.equal((await datasetOf(here(), id)).stamp, 'new');
    await assertText(here(), id, 'file', null);
    assert.deepEqual((await storage.snapshot(id, snap('one'))).holds, []);
  });

  const stamps: Readonly<Record<string, string>> = {
    'with quotes': `{"a":"it's","b":"\\"x\\"","c":"$HOME \`id\` %s = @ , ; #"}`,
    'with unicode': 'Grüße, 世界, 🐑 – no',
    'with tabs and line ends': '\tone\ttwo\nthree\\n four\n',
    'of 1000 bytes': 'x'.repeat(stampBytesMax),
    'of 1000 bytes in three-byte characters': `a${'世'.repeat((stampBytesMax - 1) / 3)}`,
    'that looks like nothing': '-',
    'that looks encoded': '%00 %25 \\n \\u0000 &amp; =?',
    'of no characters': '',
  };
  for (const [kind, text] of Object.entries(stamps)) {
    test(`a stamp ${kind} comes back as it was`, async () => {
      const id = await created(here(), { stamp: text });
      assert.equal((await datasetOf(here(), id)).stamp, text);
      await here().storage.stamp(id, 'another');
      assert.equal((await datasetOf(here(), id)).stamp, 'another');
      await here().storage.stamp(id, text);
      assert.equal((await datasetOf(here(), id)).stamp, text);
    });
  }

  test('a stamp above the limit is refused, counted in bytes', async () => {
    const { storage } = here();
    const id = await created(here(), { stamp: 'before' });
    await rejectsWith(storage.stamp(id, 'é'.repeat(stampBytesMax / 2 + 1)), 'invalid-option');
    assert.equal((await datasetOf(here(), id)).stamp, 'before');
    const other = newId();
    await rejectsWith(storage.create(other, options({ stamp: 'x'.repeat(stampBytesMax + 1) })), 'invalid-option');
    assert.equal(await storage.exists(other), false);
  });

  test('used counts live data, total also what only snapshots hold', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await content.write(id, 'big', bytes(6 * mebi));
    const read = () => datasetOf(here(), id);
    const full = await eventually(read, ({ usedBytes }) => usedBytes >= 6 * mebi, 'written data is used');
    assert.ok(full.usedBytes < 12 * mebi, `used ${full.usedBytes}`);
    await storage.snapshot(id, snap('one'));
    await content.remove(id, 'big');
    const wanted = (dataset: typeof full) => dataset.usedBytes < 2 * mebi && dataset.totalBytes >= 6 * mebi;
    const after = await eventually(read, wanted, 'removed data is only in the total');
    assert.ok(after.totalBytes < 12 * mebi, `total ${after.totalBytes}`);
  });

  test('mode, owner and group are those of the root directory', async () => {
    const id = await created(here(), { mode: 0o2770, uid: 999, gid: 1234 });
    assert.deepEqual(await here().content.root(id), { mode: 0o2770, uid: 999, gid: 1234 });
    const plain = await created(here());
    assert.deepEqual(await here().content.root(plain), { mode: 0o755, uid: 0, gid: 0 });
  });

  test('every compression of the capabilities can be asked for', async () => {
    const { compression } = await here().storage.capabilities();
    for (const value of [...compression.slice(0, 2), 'on', 'off']) {
      const id = await created(here(), { compression: value });
      await here().content.write(id, 'zeros', Buffer.alloc(mebi));
      assert.equal((await here().content.read(id, 'zeros'))?.equals(Buffer.alloc(mebi)), true, value);
    }
  });

  test('an unknown compression or a record size that is not possible is refused and makes nothing', async () => {
    const { storage } = here();
    const id = newId();
    await rejectsWith(storage.create(id, options({ compression: 'brotli' })), 'invalid-option');
    const { recordSizeBytesMax } = await storage.capabilities();
    const tooLarge = options({ recordSizeBytes: recordSizeBytesMax === null ? 4096 : recordSizeBytesMax * 2 });
    await rejectsWith(storage.create(id, tooLarge), recordSizeBytesMax === null ? 'not-supported' : 'invalid-option');
    assert.equal(await storage.exists(id), false);
  });

  test('what needs a dataset says when it is missing', async () => {
    const { storage } = here();
    const id = newId('nobody');
    await rejectsWith(storage.mount(id), 'dataset-missing');
    await rejectsWith(storage.resize(id, 64 * mebi), 'dataset-missing');
    await rejectsWith(storage.stamp(id, 'x'), 'dataset-missing');
    await rejectsWith(storage.snapshot(id, snap('one')), 'dataset-missing');
    await rejectsWith(storage.snapshots(id), 'dataset-missing');
    await rejectsWith(storage.hold(id, snap('one'), tag('keep')), 'dataset-missing');
    await rejectsWith(storage.rollback(id, snap('one'), newId(), options()), 'dataset-missing');
    await rejectsWith(storage.clone({ id, snapshot: snap('one') }, newId(), options()), 'dataset-missing');
    await rejectsWith(storage.clone({ id, snapshot: null }, newId(), options()), 'dataset-missing');
    await rejectsWith(storage.promote(id), 'dataset-missing');
    await rejectsWith(storage.send({ id, to: snap('one'), from: null }, 2, never()), 'dataset-missing');
    await storage.unmount(id);
    await storage.destroySnapshot(id, snap('one'));
    await storage.release(id, snap('one'), tag('keep'));
    assert.equal(await storage.exists(id), false);
  });

  test('a long list is complete', async () => {
    const { storage } = here();
    const ids = Array.from({ length: traits.datasets ?? 100 }, () => newId('many'));
    for (const id of ids) await storage.create(id, options({ stamp: `stamp of ${id}` }));
    const stamps = new Map((await storage.list()).map((dataset) => [dataset.id, dataset.stamp]));
    for (const id of ids) assert.equal(stamps.get(id), `stamp of ${id}`);
    for (const id of ids) await storage.destroy(id);
    assert.ok(!(await storage.list()).some((dataset) => ids.includes(dataset.id)));
  });
}
