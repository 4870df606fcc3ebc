import assert from 'node:assert/strict';
import { FlockError } from '../../../controller/model/errors.ts';
import type { DatasetId } from '../../../controller/model/names.ts';
import {
  assertText,
  type Bench,
  bytes,
  type Context,
  created,
  datasetOf,
  mebi,
  namesOf,
  newId,
  options,
  rejectsWith,
  snap,
} from './context.ts';
import { received, replicated, sent } from './streams.ts';

type Place = { readonly bench: Bench; readonly id: DatasetId };

/** From the newest common snapshot to a new one with what is live now. */
async function replicate(from: Place, to: Place, common: string, name: string): Promise<void> {
  const { identity } = await from.bench.storage.snapshot(from.id, snap(name));
  const stream = await sent(from.bench, from.id, snap(name), snap(common));
  const copy = await received(to.bench, stream, { id: to.id, to: snap(name), from: snap(common) });
  assert.equal(copy.identity, identity);
}

async function assertModified(work: Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof FlockError, String(error));
    assert.deepEqual([error.code, error.facts['reason']], ['no-common-snapshot', 'modified'], String(error));
    return true;
  });
}

export function replicaLifeContract({ here, there, test }: Context): void {
  test('owner and replica change places several times', async () => {
    const { source, replica } = await replicated(here(), there());
    let [owner, other]: [Place, Place] = [
      { bench: here(), id: source },
      { bench: there(), id: replica },
    ];
    let common = 's1';
    for (const turn of [1, 2, 3]) {
      await owner.bench.storage.mount(owner.id);
      for (const step of [1, 2]) {
        const text = `turn ${turn} step ${step}`;
        await owner.bench.content.write(owner.id, 'file', text);
        await replicate(owner, other, common, `t${turn}-${step}`);
        common = `t${turn}-${step}`;
      }
      // As a handoff does: nothing is written after the last snapshot.
      await owner.bench.content.write(owner.id, `only-${turn}`, 'last words');
      await owner.bench.storage.unmount(owner.id);
      await replicate(owner, other, common, `t${turn}-last`);
      common = `t${turn}-last`;
      [owner, other] = [other, owner];
      await assertText(owner.bench, owner.id, 'file', `turn ${turn} step 2`);
    }
    for (const turn of [1, 2, 3]) await assertText(owner.bench, owner.id, `only-${turn}`, 'last words');
    assert.deepEqual(await namesOf(owner.bench, owner.id), await namesOf(other.bench, other.id));
  });

  for (const [title, hasSnapshots] of [
    ['wrote', false],
    ['wrote and made snapshots', true],
  ] as const) {
    test(`an old owner that ${title} after the last common snapshot stashes that and follows`, async () => {
      const { source, replica } = await replicated(here(), there());
      const { storage, content } = here();
      await content.write(source, 'file', 'lost');
      if (hasSnapshots) await storage.snapshot(source, snap('own'));
      await content.write(source, 'more', 'lost, too');
      await there().content.write(replica, 'file', 'two');
      await there().storage.snapshot(replica, snap('s2'));
      const stream = await sent(there(), replica, snap('s2'), snap('s1'));
      const target = { id: source, to: snap('s2'), from: snap('s1') };
      if (hasSnapshots) await rejectsWith(received(here(), stream, target), 'no-common-snapshot');
      else await assertModified(received(here(), stream, target));
      await assertText(here(), source, 'more', 'lost, too');

      const aside = newId('stash');
      await storage.rollback(source, snap('s1'), aside, options({ mode: 0o755, uid: 0, gid: 0, compression: 'on' }));
      await received(here(), stream, target);
      await assertText(here(), source, 'file', 'two');
      await assertText(here(), source, 'more', null);
      assert.deepEqual(await namesOf(here(), source), ['s1', 's2']);
      await storage.mount(aside);
      await assertText(here(), aside, 'file', 'lost');
      await assertText(here(), aside, 'more', 'lost, too');
      await storage.unmount(aside);
      assert.deepEqual(await namesOf(here(), aside), hasSnapshots ? ['own'] : []);
      await replicate({ bench: there(), id: replica }, { bench: here(), id: source }, 's2', 's3');
    });
  }

  test('a replica that was mounted by mistake and not written to still receives, but not while it is mounted', async () => {
    const { source, replica } = await replicated(here(), there());
    const { storage, content } = there();
    for (const [from, to] of [
      ['s1', 's2'],
      ['s2', 's3'],
    ] as const) {
      await storage.mount(replica);
      await content.read(replica, 'file');
      await here().content.write(source, 'file', to);
      await here().storage.snapshot(source, snap(to));
      const stream = await sent(here(), source, snap(to), snap(from));
      const target = { id: replica, to: snap(to), from: snap(from) };
      await rejectsWith(received(there(), stream, target), 'volume-busy');
      await storage.unmount(replica);
      await received(there(), stream, target);
      await assertText(there(), replica, 'file', to);
    }
  });

  test('a replica that was written to by mistake refuses until that is kept aside', async () => {
    const { source, replica } = await replicated(here(), there());
    await there().content.write(replica, 'mistake', 'x');
    await here().storage.snapshot(source, snap('s2'));
    const stream = await sent(here(), source, snap('s2'), snap('s1'));
    const target = { id: replica, to: snap('s2'), from: snap('s1') };
    await assertModified(received(there(), stream, target));
    await assertText(there(), replica, 'mistake', 'x');
    await there().storage.rollback(replica, snap('s1'), newId('stash'), options());
    await received(there(), stream, target);
    await assertText(there(), replica, 'mistake', null);
  });

  test('an increment that was received is refused the second time', async () => {
    const { source, replica } = await replicated(here(), there());
    await here().content.write(source, 'file', 'two');
    await here().storage.snapshot(source, snap('s2'));
    const stream = await sent(here(), source, snap('s2'), snap('s1'));
    const target = { id: replica, to: snap('s2'), from: snap('s1') };
    await received(there(), stream, target);
    await rejectsWith(received(there(), stream, target), 'no-common-snapshot');
    await replicate({ bench: here(), id: source }, { bench: there(), id: replica }, 's2', 's3');
    assert.deepEqual(await namesOf(there(), replica), ['s1', 's2', 's3']);
  });

  test('a replica has the options that it is received with, and keeps them', async () => {
    const source = await created(here(), { compression: 'on' });
    await here().content.write(source, 'data', bytes(2 * mebi));
    await here().storage.snapshot(source, snap('s1'));
    const stream = await sent(here(), source, snap('s1'));
    const { quotaBytes, compression, recordSizeBytes, properties } = options({
      quotaBytes: 32 * mebi,
      compression: 'off',
    });
    const wanted = { quotaBytes, compression, recordSizeBytes, properties };
    const [replica, small, refused] = [newId('replica'), newId('replica'), newId('replica')];
    await received(there(), stream, { id: replica, to: snap('s1'), options: wanted });
    assert.equal((await datasetOf(there(), replica)).quotaBytes, 32 * mebi);
    const places = [
      { bench: here(), id: source },
      { bench: there(), id: replica },
    ] as const;
    await replicate(...places, 's1', 's2');
    await replicate(...places, 's2', 's3');
    assert.equal((await datasetOf(there(), replica)).quotaBytes, 32 * mebi);

    await received(there(), stream, { id: small, to: snap('s1'), options: { ...wanted, quotaBytes: mebi } });
    assert.equal((await datasetOf(there(), small)).quotaBytes, null);
    const nonsense = { ...wanted, compression: 'nonsense' };
    await rejectsWith(received(there(), stream, { id: refused, to: snap('s1'), options: nonsense }), 'invalid-option');
    assert.equal(await there().storage.exists(refused), false);
  });

  test('options of a replica can be changed, and it goes on receiving', async () => {
    const { source, replica } = await replicated(here(), there());
    const places = [
      { bench: here(), id: source },
      { bench: there(), id: replica },
    ] as const;
    const { storage } = there();
    const plain = { quotaBytes: null, compression: null, recordSizeBytes: null, properties: {} };
    await storage.applyOptions(replica, { ...plain, quotaBytes: 48 * mebi, compression: 'on' });
    assert.equal((await datasetOf(there(), replica)).quotaBytes, 48 * mebi);
    await here().content.write(source, 'data', bytes(3 * mebi));
    await replicate(...places, 's1', 's2');
    await replicate(...places, 's2', 's3');
    assert.equal((await datasetOf(there(), replica)).quotaBytes, 48 * mebi);
    await rejectsWith(storage.applyOptions(replica, { ...plain, quotaBytes: mebi }), 'quota-below-usage');
    await rejectsWith(storage.applyOptions(replica, { ...plain, compression: 'nonsense' }), 'invalid-option');
    await storage.applyOptions(replica, plain);
    assert.equal((await datasetOf(there(), replica)).quotaBytes, null);
    await replicate(...places, 's3', 's4');
    await rejectsWith(storage.applyOptions(newId('nobody'), plain), 'dataset-missing');
  });
}
