import assert from 'node:assert/strict';
import { chmod, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatasetId } from '../../../controller/model/names.ts';
import { type Bench, type Context, created, newId, options, snap } from './context.ts';
import { received, replicated, sent } from './streams.ts';

async function markOf({ storage }: Bench, id: DatasetId): Promise<string> {
  const mark = (await storage.contentMarks([id])).get(id);
  assert.ok(mark !== undefined, `${id} has a mark`);
  return mark;
}

let lastSnapshot = 0;

async function snapshotMark({ storage }: Bench, id: DatasetId): Promise<string> {
  lastSnapshot += 1;
  return (await storage.snapshot(id, snap(`at-${lastSnapshot}`))).mark;
}

/** What a replicating owner does until nothing is left to do; answers the mark at which it rests. */
async function atRest(bench: Bench, id: DatasetId): Promise<string> {
  let last = '';
  for (let snapshots = 0; snapshots <= 2; snapshots += 1) {
    if ((await markOf(bench, id)) === last) return last;
    last = await snapshotMark(bench, id);
  }
  throw assert.fail(`${id} is idle, but its mark changes with each snapshot`);
}

export function markContract({ here, there, test }: Context): void {
  test('an idle dataset comes to rest, mounted and read or not', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await content.write(id, 'file', 'text');
    const unmounted = await atRest(here(), id);
    assert.equal(await markOf(here(), id), unmounted);
    await storage.mount(id);
    await content.write(id, 'file', 'more text');
    const mark = await atRest(here(), id);
    for (let looks = 0; looks < 3; looks += 1) {
      await content.read(id, 'file');
      assert.equal(await markOf(here(), id), mark);
    }
    await storage.unmount(id);
  });

  test('every change since a snapshot shows, synced or not, of the same size or not', async () => {
    const { storage, content } = here();
    const id = await created(here());
    const path = await storage.mount(id);
    await content.write(id, 'file', 'text 0');
    const changes: (() => Promise<void>)[] = [
      () => content.write(id, 'file', 'text 1'),
      () => content.write(id, 'file', 'text 2'),
      () => content.write(id, 'other', ''),
      () => content.remove(id, 'other'),
    ];
    if (here().hasRealMounts) {
      changes.push(() => chmod(join(path, 'file'), 0o600));
      changes.push(() => chmod(join(path, 'file'), 0o644));
      changes.push(() => utimes(join(path, 'file'), 1, 1));
    }
    const marks = new Set([await atRest(here(), id)]);
    for (const change of changes) {
      await change();
      const mark = await markOf(here(), id);
      assert.ok(!marks.has(mark), `change ${marks.size} shows`);
      marks.add(mark);
    }
    for (const change of changes) {
      const before = await atRest(here(), id);
      await change();
      assert.notEqual(await markOf(here(), id), before);
    }
    await storage.unmount(id);
  });

  test('a change between a look and a snapshot, or right after a snapshot, is not missed', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await storage.mount(id);
    const first = await atRest(here(), id);
    await content.write(id, 'file', 'aaaa');
    await markOf(here(), id);
    await content.write(id, 'file', 'bbbb');
    const taken = await snapshotMark(here(), id);
    await content.write(id, 'file', 'cccc');
    const after = await markOf(here(), id);
    assert.equal(new Set([first, taken, after]).size, 3);
    await storage.unmount(id);
  });

  test('the marks of many datasets come at once, each with its own changes, those that are missing left out', async () => {
    const { storage, content } = here();
    const ids = await Promise.all(Array.from({ length: 5 }, () => created(here())));
    const [changed] = ids;
    assert.ok(changed !== undefined);
    const rest = new Map<DatasetId, string>();
    for (const id of ids) rest.set(id, await atRest(here(), id));
    const missing = newId('missing');
    await content.write(changed, 'file', 'text');
    const marks = await storage.contentMarks([...ids, missing]);
    assert.deepEqual([...marks.keys()].sort(), [...ids].sort());
    for (const id of ids) assert.equal(marks.get(id) === rest.get(id), id !== changed, id);
    assert.equal((await storage.contentMarks([missing])).size, 0);
    assert.equal((await storage.contentMarks([])).size, 0);
    const many = Array.from({ length: 150 }, () => newId('missing'));
    const again = await storage.contentMarks([...ids, ...many]);
    for (const id of ids.slice(1)) assert.equal(again.get(id), rest.get(id));
  });

  test('other content in the place of the old has another mark', async () => {
    const { storage, content } = here();
    const id = await created(here());
    await storage.snapshot(id, snap('s1'));
    await content.write(id, 'file', 'text');
    const before = await atRest(here(), id);
    await storage.rollback(id, snap('s1'), newId('aside'), options());
    assert.notEqual(await markOf(here(), id), before);

    const { source, replica } = await replicated(here(), there());
    const old = await markOf(there(), replica);
    await content.write(source, 'file', 'two');
    await storage.snapshot(source, snap('s2'));
    const stream = await sent(here(), source, snap('s2'), snap('s1'));
    await received(there(), stream, { id: replica, to: snap('s2'), from: snap('s1') });
    assert.notEqual(await markOf(there(), replica), old);
  });

  test('holds, quotas and stamps are no change of content', async () => {
    const { storage } = here();
    const id = await created(here());
    const mark = await atRest(here(), id);
    await storage.resize(id, 64 * 1024 * 1024);
    await storage.stamp(id, 'another stamp');
    assert.equal(await markOf(here(), id), mark);
  });
}
