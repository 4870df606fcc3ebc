import assert from 'node:assert/strict';
import {
  assertText,
  bytes,
  type Context,
  created,
  datasetOf,
  mebi,
  namesOf,
  never,
  newId,
  readInSnapshot,
  rejectsWith,
  snap,
  snapshotOf,
} from './context.ts';
import { openPipe, received, replicated, sent } from './streams.ts';

export function replicationContract({ here, there, test }: Context): void {
  test('a complete stream makes the same dataset elsewhere, not mounted', async () => {
    const [id, replica] = [await created(here(), { mode: 0o700, uid: 999, gid: 998 }), newId('replica')];
    const data = bytes(3 * mebi);
    await here().content.write(id, 'data', data);
    await here().content.write(id, 'file', 'one');
    const original = await here().storage.snapshot(id, snap('s1'));
    await here().content.write(id, 'file', 'later');
    const stream = await sent(here(), id, snap('s1'));
    const copy = await received(there(), stream, { id: replica, to: snap('s1'), stamp: 'a "replica"' });

    assert.deepEqual([copy.name, copy.identity], ['s1', original.identity]);
    assert.deepEqual(await namesOf(there(), replica), ['s1']);
    assert.equal((await snapshotOf(there(), replica, snap('s1'))).identity, original.identity);
    assert.equal((await datasetOf(there(), replica)).stamp, 'a "replica"');
    const { storage, mountTable } = there();
    assert.ok(!(await mountTable()).some((entry) => storage.isMountOf(entry, replica)));
    await assertText(there(), replica, 'file', 'one');
    assert.equal((await there().content.read(replica, 'data'))?.equals(data), true);
    assert.deepEqual(await there().content.root(replica), { mode: 0o700, uid: 999, gid: 998 });
  });

  test('increments move the live content on', async () => {
    const { source, replica } = await replicated(here(), there());
    for (const [from, to] of [
      ['s1', 's2'],
      ['s2', 's3'],
    ] as const) {
      await here().content.write(source, 'file', to);
      const original = await here().storage.snapshot(source, snap(to));
      const stream = await sent(here(), source, snap(to), snap(from));
      const copy = await received(there(), stream, { id: replica, to: snap(to), from: snap(from), stamp: `at ${to}` });
      assert.deepEqual([copy.name, copy.identity], [to, original.identity]);
      assert.equal((await datasetOf(there(), replica)).stamp, `at ${to}`);
    }
    assert.deepEqual(await namesOf(there(), replica), ['s1', 's2', 's3']);
    assert.equal(await readInSnapshot(there(), replica, snap('s2'), 'file'), 's2');
    await assertText(there(), replica, 'file', 's3');
  });

  test('an increment may leave out snapshots between its ends', async () => {
    const { source, replica } = await replicated(here(), there());
    await here().storage.snapshot(source, snap('s2'));
    await here().content.write(source, 'file', 'three');
    await here().storage.snapshot(source, snap('s3'));
    const stream = await sent(here(), source, snap('s3'), snap('s1'));
    await received(there(), stream, { id: replica, to: snap('s3'), from: snap('s1') });
    assert.deepEqual(await namesOf(there(), replica), ['s1', 's3']);
    await assertText(there(), replica, 'file', 'three');
  });

  test('an increment without changes is received', async () => {
    const { source, replica } = await replicated(here(), there());
    await here().storage.snapshot(source, snap('s2'));
    const stream = await sent(here(), source, snap('s2'), snap('s1'));
    await received(there(), stream, { id: replica, to: snap('s2'), from: snap('s1') });
    assert.deepEqual(await namesOf(there(), replica), ['s1', 's2']);
    await assertText(there(), replica, 'file', 'one');
  });

  test('a replica can be sent on, with the same identities', async () => {
    const { source, replica } = await replicated(here(), there());
    const third = newId('third');
    await received(here(), await sent(there(), replica, snap('s1')), { id: third, to: snap('s1') });
    await here().content.write(source, 'file', 'two');
    const original = await here().storage.snapshot(source, snap('s2'));
    const range = [snap('s2'), snap('s1')] as const;
    const target = { to: snap('s2'), from: snap('s1') };
    await received(there(), await sent(here(), source, ...range), { id: replica, ...target });
    const copy = await received(here(), await sent(there(), replica, ...range), { id: third, ...target });
    assert.equal(copy.identity, original.identity);
    await assertText(here(), third, 'file', 'two');
  });

  test('after a promotion increments flow back to the old primary', async () => {
    const { source, replica } = await replicated(here(), there());
    await there().content.write(replica, 'file', 'two');
    const second = await there().storage.snapshot(replica, snap('s2'));
    const back = await sent(there(), replica, snap('s2'), snap('s1'));
    const copy = await received(here(), back, { id: source, to: snap('s2'), from: snap('s1') });
    assert.equal(copy.identity, second.identity);
    await here().content.write(source, 'file', 'three');
    const third = await here().storage.snapshot(source, snap('s3'));
    const forth = await sent(here(), source, snap('s3'), snap('s2'));
    const again = await received(there(), forth, { id: replica, to: snap('s3'), from: snap('s2') });
    assert.equal(again.identity, third.identity);
    await assertText(there(), replica, 'file', 'three');
    const identities = async (bench: ReturnType<typeof here>, id: typeof source) =>
      (await bench.storage.snapshots(id)).map(({ identity }) => identity);
    assert.deepEqual(await identities(here(), source), await identities(there(), replica));
  });

  test('a replica keeps receiving after older snapshots were destroyed on either side', async () => {
    const { source, replica } = await replicated(here(), there());
    for (const [from, to] of [
      ['s1', 's2'],
      ['s2', 's3'],
    ] as const) {
      await here().content.write(source, 'file', to);
      await here().storage.snapshot(source, snap(to));
      const stream = await sent(here(), source, snap(to), snap(from));
      await received(there(), stream, { id: replica, to: snap(to), from: snap(from) });
      await here().storage.destroySnapshot(source, snap(from));
      if (to === 's3') await there().storage.destroySnapshot(replica, snap('s1'));
    }
    assert.deepEqual(await namesOf(here(), source), ['s3']);
    assert.deepEqual(await namesOf(there(), replica), ['s2', 's3']);
    await assertText(there(), replica, 'file', 's3');
  });

  test('a stream goes through a pipe from one to the other', async () => {
    const [id, replica] = [await created(here()), newId('replica')];
    const data = bytes(2 * mebi);
    await here().content.write(id, 'data', data);
    await here().storage.snapshot(id, snap('s1'));
    const { reader, writer } = await openPipe(here());
    const sending = here()
      .storage.send({ id, to: snap('s1'), from: null }, writer.fd, never())
      .finally(() => writer.close());
    const request = { id: replica, to: snap('s1'), from: null, stamp: 'piped' };
    await Promise.all([sending, there().storage.receive(request, reader.fd, never())]);
    await reader.close();
    assert.equal((await there().content.read(replica, 'data'))?.equals(data), true);
  });

  test('a quota stays through increments', async () => {
    const { source, replica } = await replicated(here(), there());
    await there().storage.resize(replica, 32 * mebi);
    await here().storage.snapshot(source, snap('s2'));
    const stream = await sent(here(), source, snap('s2'), snap('s1'));
    await received(there(), stream, { id: replica, to: snap('s2'), from: snap('s1') });
    assert.equal((await datasetOf(there(), replica)).quotaBytes, 32 * mebi);
  });

  test('a snapshot that is not there is not sent', async () => {
    const id = await created(here());
    await here().storage.snapshot(id, snap('s1'));
    await rejectsWith(sent(here(), id, snap('never')), 'snapshot-not-found');
    await rejectsWith(sent(here(), id, snap('s1'), snap('never')), 'snapshot-not-found');
  });
}
