import assert from 'node:assert/strict';
import { constants } from 'node:os';
import type { DatasetId } from '../../../controller/model/names.ts';
import {
  type Bench,
  bytes,
  type Context,
  created,
  datasetOf,
  eventually,
  mebi,
  newId,
  options,
  rejectsWith,
  snap,
} from './context.ts';

const chunkBytes = mebi;

/** Writes files of 1 MiB until one fails with EDQUOT or ENOSPC; answers how many went in. */
async function fill(bench: Bench, id: DatasetId, filesMax: number, name = 'fill'): Promise<number> {
  for (let files = 0; files < filesMax; files += 1) {
    try {
      await bench.content.write(id, `${name}-${files}`, bytes(chunkBytes));
    } catch (error) {
      assert.ok(error instanceof Error && isNoRoom(error), String(error));
      return files;
    }
  }
  return filesMax;
}

/** Node has no name for EDQUOT: its `code` is "Unknown system error -122". */
function isNoRoom(error: Error & { readonly code?: unknown; readonly errno?: unknown }): boolean {
  return error.code === 'EDQUOT' || error.code === 'ENOSPC' || error.errno === -constants.errno.EDQUOT;
}

export function quotaContract({ here, test }: Context): void {
  test('a writer meets the quota', async () => {
    const { storage } = here();
    const id = await created(here(), { quotaBytes: 16 * mebi });
    await storage.mount(id);
    const files = await fill(here(), id, 128);
    await storage.unmount(id);
    assert.ok(files >= 8 && files <= 64, `${files} MiB fitted into 16`);
    assert.equal((await datasetOf(here(), id)).quotaBytes, 16 * mebi);
  });

  test('a larger quota lets a writer go on, and lifting it lets him go further', async () => {
    const { storage } = here();
    const id = await created(here(), { quotaBytes: 16 * mebi });
    await storage.mount(id);
    await fill(here(), id, 128);
    await storage.resize(id, 48 * mebi);
    assert.equal((await datasetOf(here(), id)).quotaBytes, 48 * mebi);
    assert.equal(await fill(here(), id, 8, 'more'), 8);
    await storage.resize(id, null);
    assert.equal((await datasetOf(here(), id)).quotaBytes, null);
    assert.equal(await fill(here(), id, 48, 'most'), 48);
    await storage.unmount(id);
    await storage.destroy(id);
  });

  test('a quota set later is met, and may shrink down to what is used but not below', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await content.write(id, 'base', bytes(12 * mebi));
    await storage.resize(id, 64 * mebi);
    await storage.resize(id, 20 * mebi);
    await rejectsWith(storage.resize(id, 4 * mebi), 'quota-below-usage');
    assert.equal((await datasetOf(here(), id)).quotaBytes, 20 * mebi);
    await storage.mount(id);
    assert.ok((await fill(here(), id, 64)) < 48);
    await storage.unmount(id);
  });

  test('whoever has filled his quota can always be given more', async () => {
    const { storage } = here();
    const id = await created(here(), { quotaBytes: 16 * mebi });
    await storage.mount(id);
    await fill(here(), id, 48);
    await storage.resize(id, 17 * mebi);
    await fill(here(), id, 48, 'more');
    await storage.resize(id, null);
    assert.equal(await fill(here(), id, 8, 'most'), 8);
    await storage.unmount(id);
    await storage.destroy(id);
  });

  test('a clone or a rollback that does not fit its quota is refused and changes nothing', async () => {
    const { storage, content } = here();
    const id = await created(here(), { quotaBytes: 64 * mebi });
    await content.write(id, 'base', bytes(12 * mebi));
    await storage.snapshot(id, snap('one'));
    const [clone, aside] = [newId('clone'), newId('aside')];
    const small = options({ quotaBytes: 4 * mebi });
    for (const snapshot of [snap('one'), null])
      await rejectsWith(storage.clone({ id, snapshot }, clone, small), 'quota-below-usage');
    await rejectsWith(storage.rollback(id, snap('one'), aside, small), 'quota-below-usage');
    assert.deepEqual([await storage.exists(clone), await storage.exists(aside)], [false, false]);
    assert.deepEqual(
      (await storage.snapshots(id)).map(({ name }) => name),
      ['one'],
    );
    await storage.rollback(id, snap('one'), aside, options({ quotaBytes: 64 * mebi }));
    assert.equal(await storage.exists(aside), true);
    await storage.destroy(id);
    await storage.destroy(aside);
  });

  test('data written just before counts against a smaller quota', async () => {
    const { storage, content } = here();
    const id = await created(here(), { quotaBytes: 64 * mebi });
    await storage.mount(id);
    await content.write(id, 'fresh', bytes(10 * mebi));
    await rejectsWith(storage.resize(id, 4 * mebi), 'quota-below-usage');
    await storage.unmount(id);
  });

  test('snapshots do not count against the quota', async () => {
    const { storage, content } = here();
    const id = await created(here(), { quotaBytes: 16 * mebi });
    await content.write(id, 'first', bytes(10 * mebi));
    await storage.snapshot(id, snap('one'));
    await content.remove(id, 'first');
    await eventually(
      () => datasetOf(here(), id),
      ({ usedBytes }) => usedBytes < 4 * mebi,
      'removed data is free again',
    );
    await content.write(id, 'second', bytes(10 * mebi));
    await eventually(
      () => datasetOf(here(), id),
      ({ totalBytes }) => totalBytes >= 20 * mebi,
      'the total counts snapshots',
    );
    await storage.resize(id, 14 * mebi);
    await storage.destroy(id);
  });
}
