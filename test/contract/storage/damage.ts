import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DatasetId, SnapshotName } from '../../../controller/model/names.ts';
import {
  assertText,
  type Bench,
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
} from './context.ts';
import { openPipe, type Pair, received, replicated, sent } from './streams.ts';

/** What must not change when a stream is refused. */
async function stateOf(bench: Bench, id: DatasetId, newest: SnapshotName) {
  const snapshots = await bench.storage.snapshots(id);
  return {
    snapshots: snapshots.map(({ name, identity }) => [name, identity]),
    stamp: (await datasetOf(bench, id)).stamp,
    content: await readInSnapshot(bench, id, newest, 'file'),
    listed: (await bench.storage.list()).map((dataset) => dataset.id),
  };
}

export function damageContract({ here, there, test }: Context): void {
  /** A replica at s1, and the stream from s1 to s2 with 2 MiB in it. */
  async function withIncrement(): Promise<Pair & { readonly stream: Buffer }> {
    const pair = await replicated(here(), there());
    await here().content.write(pair.source, 'file', 'two');
    await here().content.write(pair.source, 'data', bytes(2 * mebi));
    await here().storage.snapshot(pair.source, snap('s2'));
    return { ...pair, stream: await sent(here(), pair.source, snap('s2'), snap('s1')) };
  }

  function flipped(stream: Buffer, at: number): Buffer {
    const copy = Buffer.from(stream);
    copy.writeUInt8(copy.readUInt8(at) ^ 0x41, at);
    return copy;
  }

  const damages: Readonly<Record<string, (stream: Buffer) => Buffer>> = {
    empty: () => Buffer.alloc(0),
    'cut in its head': (stream) => stream.subarray(0, 10),
    'cut in the middle': (stream) => stream.subarray(0, stream.length >> 1),
    'cut before its last byte': (stream) => stream.subarray(0, stream.length - 1),
    'changed in one byte': (stream) => flipped(stream, stream.length >> 1),
    'not a stream': () => bytes(5000),
  };
  for (const [kind, damage] of Object.entries(damages)) {
    test(`an increment that is ${kind} changes nothing, and the whole one is still taken`, async () => {
      const { replica, stream } = await withIncrement();
      const before = await stateOf(there(), replica, snap('s1'));
      const target = { id: replica, to: snap('s2'), from: snap('s1') };
      await rejectsWith(received(there(), damage(stream), { ...target, stamp: 'must not stay' }), 'stream-invalid');
      assert.deepEqual(await stateOf(there(), replica, snap('s1')), before);
      await received(there(), stream, target);
      assert.deepEqual(await namesOf(there(), replica), ['s1', 's2']);
      await assertText(there(), replica, 'file', 'two');
    });
  }

  for (const kind of ['cut in the middle', 'changed in one byte']) {
    test(`a complete stream that is ${kind} makes no dataset, and the whole one is still taken`, async () => {
      const [id, replica] = [await created(here()), newId('replica')];
      await here().content.write(id, 'data', bytes(2 * mebi));
      await here().content.write(id, 'file', 'one');
      await here().storage.snapshot(id, snap('s1'));
      const stream = await sent(here(), id, snap('s1'));
      const damaged = damages[kind]?.(stream) ?? Buffer.alloc(0);
      await rejectsWith(received(there(), damaged, { id: replica, to: snap('s1') }), 'stream-invalid');
      assert.equal(await there().storage.exists(replica), false);
      assert.ok(!(await there().storage.list()).some((dataset) => dataset.id === replica));
      await received(there(), stream, { id: replica, to: snap('s1') });
      await assertText(there(), replica, 'file', 'one');
    });
  }

  test('a complete stream for a dataset that is there is refused', async () => {
    const { source, replica } = await replicated(here(), there());
    const before = await stateOf(there(), replica, snap('s1'));
    const stream = await sent(here(), source, snap('s1'));
    await rejectsWith(received(there(), stream, { id: replica, to: snap('s1') }), 'storage-failed');
    assert.deepEqual(await stateOf(there(), replica, snap('s1')), before);
  });

  test('another snapshot in the stream than the one expected is refused', async () => {
    const { source, replica, stream } = await withIncrement();
    const before = await stateOf(there(), replica, snap('s1'));
    const other = { id: replica, to: snap('other'), from: snap('s1') };
    await rejectsWith(received(there(), stream, other), 'stream-invalid');
    assert.deepEqual(await stateOf(there(), replica, snap('s1')), before);
    const fresh = newId('replica');
    const complete = await sent(here(), source, snap('s1'));
    await rejectsWith(received(there(), complete, { id: fresh, to: snap('other') }), 'stream-invalid');
    assert.equal(await there().storage.exists(fresh), false);
  });

  test('an increment from a snapshot that is not the newest here is refused', async () => {
    const { source, replica } = await withIncrement();
    await here().storage.snapshot(source, snap('s3'));
    const stream = await sent(here(), source, snap('s3'), snap('s2'));
    const before = await stateOf(there(), replica, snap('s1'));
    const ahead = { id: replica, to: snap('s3'), from: snap('s2') };
    await rejectsWith(received(there(), stream, ahead), 'no-common-snapshot');
    // The request lies about where the stream starts.
    const lie = { id: replica, to: snap('s3'), from: snap('s1') };
    await rejectsWith(received(there(), stream, lie), 'no-common-snapshot', 'stream-invalid');
    assert.deepEqual(await stateOf(there(), replica, snap('s1')), before);
  });

  test('an increment is refused where a younger snapshot was made, or one of the same name', async () => {
    const { replica, stream } = await withIncrement();
    await there().storage.snapshot(replica, snap('own'));
    const target = { id: replica, to: snap('s2'), from: snap('s1') };
    await rejectsWith(received(there(), stream, target), 'no-common-snapshot');
    const stranger = await created(there());
    await there().storage.snapshot(stranger, snap('s1'));
    const before = await stateOf(there(), stranger, snap('s1'));
    await rejectsWith(received(there(), stream, { ...target, id: stranger }), 'no-common-snapshot');
    assert.deepEqual(await stateOf(there(), stranger, snap('s1')), before);
  });

  test('an increment for a dataset that is missing is refused', async () => {
    const { stream } = await withIncrement();
    const target = { id: newId('nobody'), to: snap('s2'), from: snap('s1') };
    await rejectsWith(received(there(), stream, target), 'dataset-missing');
    assert.equal(await there().storage.exists(target.id), false);
  });

  test('a receive that is aborted leaves what was there before', async () => {
    const { replica, stream } = await withIncrement();
    const before = await stateOf(there(), replica, snap('s1'));
    const { reader, writer } = await openPipe(there());
    const abort = new AbortController();
    const target = { id: replica, to: snap('s2'), from: snap('s1') };
    const receiving = there().storage.receive({ ...target, stamp: 'x' }, reader.fd, abort.signal);
    const rejected = assert.rejects(receiving);
    await writer.write(stream.subarray(0, 30_000));
    await sleep(300);
    abort.abort();
    await rejected;
    await writer.close();
    await reader.close();
    assert.deepEqual(await stateOf(there(), replica, snap('s1')), before);
    await received(there(), stream, target);
    await assertText(there(), replica, 'file', 'two');
  });

  test('a send that is aborted ends, and the snapshot can be sent again', async () => {
    const { source, replica, stream } = await withIncrement();
    const { reader, writer } = await openPipe(here());
    const abort = new AbortController();
    const sending = here().storage.send({ id: source, to: snap('s2'), from: snap('s1') }, writer.fd, abort.signal);
    const rejected = assert.rejects(sending);
    await sleep(300);
    abort.abort();
    await reader.close();
    await rejected;
    await writer.close();
    await rejectsWith(
      here().storage.send({ id: source, to: snap('never'), from: null }, 2, never()),
      'snapshot-not-found',
    );
    assert.ok((await sent(here(), source, snap('s2'), snap('s1'))).length > stream.length / 2);
    assert.deepEqual(await namesOf(there(), replica), ['s1']);
  });
}
