import assert from 'node:assert/strict';
import { conflicts, create, done, entryOf, type StoreContext, set, valuesOf } from './context.ts';

export function transactionContract({ here, there, prefix }: StoreContext): void {
  it('answers null and an empty list where nothing is', async () => {
    const at = prefix();
    assert.equal(await here().get(`${at}a`), null);
    assert.equal(await here().get(`${at}a`, { fresh: true }), null);
    assert.deepEqual(await here().list(at), []);
  });

  it('gives back any text as it was', async () => {
    const at = prefix();
    for (const value of [
      '',
      ' ',
      '{"a":[1]}\n',
      'Überraschung 🐑 \u0000 \u2028 ￿',
      '"ModifyIndex":12',
      'x'.repeat(100_000),
    ]) {
      await done(here().transact([set(`${at}a`, value)]));
      assert.equal((await entryOf(there(), `${at}a`)).value, value);
    }
  });

  it('lists what is below a prefix and nothing else, by key', async () => {
    const at = prefix();
    const beside = `${at.slice(0, -1)}0`;
    await done(here().transact(['b', 'a/z', 'a-b', 'B', 'a', 'a/b/c'].map((key) => set(at + key, key))));
    await done(here().transact([set(beside, ''), set(`${at.slice(0, -1)}-/a`, '')]));
    const keys = (await there().list(at, { fresh: true })).map(({ key }) => key.slice(at.length));
    assert.deepEqual(keys, ['B', 'a', 'a-b', 'a/b/c', 'a/z', 'b']);
    assert.deepEqual(valuesOf(await there().list(`${at}a/`, { fresh: true })), {
      [`${at}a/b/c`]: 'a/b/c',
      [`${at}a/z`]: 'a/z',
    });
    const all = (await here().list('', { fresh: true })).map(({ key }) => key);
    assert.ok(all.includes(beside) && all.includes(`${at}a/z`));
    assert.deepEqual(all, [...all].sort());
  });

  it('does all or nothing', async () => {
    const at = prefix();
    await done(here().transact([set(`${at}a`, '1'), set(`${at}b`, '1')]));
    const before = await here().list(at, { fresh: true });
    const operations = [set(`${at}a`, '2'), { kind: 'delete', key: `${at}b` } as const, set(`${at}c`, '2')];
    await conflicts(here().transact([...operations, create(`${at}a`, '3')]), 3);
    assert.deepEqual(await here().list(at, { fresh: true }), before);
    await done(here().transact(operations));
    assert.deepEqual(valuesOf(await here().list(at, { fresh: true })), { [`${at}a`]: '2', [`${at}c`]: '2' });
  });

  it('names the first operation that did not fit', async () => {
    const at = prefix();
    const index = (await done(here().transact([set(`${at}a`, '1')]))).get(`${at}a`) ?? '';
    const removal = { kind: 'compare-and-delete', key: `${at}a`, index } as const;
    await conflicts(here().transact([set(`${at}b`, ''), removal, removal, create(`${at}b`, '')]), 2);
    await conflicts(here().transact([removal, create(`${at}b`, ''), create(`${at}b`, '')]), 2);
  });

  it('lets an operation see what earlier ones did', async () => {
    const at = prefix();
    await done(here().transact([create(`${at}a`, '1'), { kind: 'delete', key: `${at}a` }, create(`${at}a`, '2')]));
    assert.equal((await entryOf(here(), `${at}a`)).value, '2');
    await conflicts(here().transact([set(`${at}b`, '1'), create(`${at}b`, '2')]), 1);
  });

  it('answers the index of every key that was written and is there', async () => {
    const at = prefix();
    await done(here().transact([set(`${at}gone`, '1'), set(`${at}same`, '1')]));
    const same = await entryOf(here(), `${at}same`);
    const indexes = await done(
      here().transact([
        { kind: 'check-index', key: same.key, index: same.index },
        set(`${at}a`, '1'),
        set(`${at}b`, '1'),
        set(`${at}b`, '2'),
        set(`${at}gone`, '2'),
        { kind: 'delete', key: `${at}gone` },
        set(`${at}same`, '1'),
      ]),
    );
    assert.deepEqual([...indexes.keys()].sort(), [`${at}a`, `${at}b`, `${at}same`]);
    for (const [key, index] of indexes) assert.equal((await entryOf(there(), key)).index, index);
  });

  it('gives every change an index of its own, also after a key was deleted', async () => {
    const at = prefix();
    const seen = new Set<string>();
    for (let round = 0; round < 5; round += 1) {
      for (const value of ['1', '2'])
        seen.add((await done(here().transact([set(`${at}a`, value)]))).get(`${at}a`) ?? '');
      await done(there().transact([{ kind: 'delete', key: `${at}a` }]));
      assert.equal(await here().get(`${at}a`, { fresh: true }), null);
    }
    assert.equal(seen.size, 10);
    const sorted = [...seen].map(BigInt);
    assert.ok(sorted.every((index, position) => position === 0 || index > (sorted[position - 1] ?? 0n)));
  });

  it('gives what is changed later a larger index, whatever the key and whoever changes it', async () => {
    const at = prefix();
    const seen: bigint[] = [];
    for (const [writer, key] of [[here(), 'c'] as const, [there(), 'b/x'] as const, [here(), 'a'] as const]) {
      await done(writer.transact([set(at + key, '1'), set(`${at}all`, key)]));
      seen.push(BigInt((await entryOf(here(), at + key)).index));
      assert.equal(BigInt((await entryOf(there(), `${at}all`)).index), seen.at(-1), 'one index for one transaction');
    }
    await done(there().transact([{ kind: 'delete', key: `${at}a` }]));
    seen.push(BigInt((await done(there().transact([set(`${at}d`, '1')]))).get(`${at}d`) ?? ''));
    assert.ok(
      seen.every((index, position) => position === 0 || index > (seen[position - 1] ?? 0n)),
      seen.join(),
    );
  });

  it('compares and sets', async () => {
    const at = prefix();
    const key = `${at}a`;
    const first = (await done(here().transact([create(key, '1')]))).get(key) ?? '';
    await conflicts(here().transact([create(key, '2')]));
    const second = (await done(here().transact([{ kind: 'compare-and-set', key, value: '2', index: first }]))).get(key);
    await conflicts(here().transact([{ kind: 'compare-and-set', key, value: '3', index: first }]));
    await done(here().transact([{ kind: 'delete', key }]));
    await conflicts(here().transact([{ kind: 'compare-and-set', key, value: '3', index: second ?? '' }]));
    assert.equal(await here().get(key, { fresh: true }), null);
  });

  it('compares and deletes, and conflicts where the key is missing', async () => {
    const key = `${prefix()}a`;
    const first = (await done(here().transact([set(key, '1')]))).get(key) ?? '';
    const second = (await done(here().transact([set(key, '2')]))).get(key) ?? '';
    await conflicts(here().transact([{ kind: 'compare-and-delete', key, index: first }]));
    await done(here().transact([{ kind: 'compare-and-delete', key, index: second }]));
    assert.equal(await here().get(key, { fresh: true }), null);
    await conflicts(here().transact([{ kind: 'compare-and-delete', key, index: second }]));
    await done(here().transact([{ kind: 'delete', key }]));
  });

  it('checks an index', async () => {
    const at = prefix();
    const key = `${at}a`;
    const index = (await done(here().transact([set(key, '1')]))).get(key) ?? '';
    await done(here().transact([{ kind: 'check-index', key, index }]));
    await done(here().transact([{ kind: 'check-index', key, index }, set(`${at}b`, '1')]));
    await done(here().transact([set(key, '2')]));
    await conflicts(here().transact([{ kind: 'check-index', key, index }]));
    await conflicts(here().transact([set(`${at}b`, '2'), { kind: 'check-index', key, index }]), 1);
    await conflicts(here().transact([{ kind: 'check-index', key: `${at}none`, index }]));
  });

  it('lets one of many win who make the same key', async () => {
    const key = `${prefix()}a`;
    const outcomes = await Promise.all(
      Array.from({ length: 40 }, (_, writer) =>
        (writer % 2 === 0 ? here() : there()).transact([create(key, String(writer))]),
      ),
    );
    const winners = outcomes.flatMap((outcome, writer) => (outcome.kind === 'done' ? [String(writer)] : []));
    assert.equal(winners.length, 1);
    assert.equal((await entryOf(here(), key)).value, winners[0]);
  });

  it('loses no update of many who count', async () => {
    const key = `${prefix()}a`;
    await done(here().transact([set(key, '0')]));
    const count = async (store: ReturnType<typeof here>) => {
      for (let counted = 0; counted < 10; ) {
        const { value, index } = await entryOf(store, key);
        const next = { kind: 'compare-and-set', key, value: String(Number(value) + 1), index } as const;
        if ((await store.transact([next])).kind === 'done') counted += 1;
      }
    };
    await Promise.all([here(), there(), here(), there()].map(count));
    assert.equal((await entryOf(here(), key)).value, '40');
  });

  it('reads fresh what anybody has written', async () => {
    const at = prefix();
    for (let round = 0; round < 30; round += 1) {
      await done(here().transact([set(`${at}a`, String(round)), set(`${at}b`, String(round))]));
      assert.equal((await there().get(`${at}a`, { fresh: true }))?.value, String(round));
      const values = Object.values(valuesOf(await there().list(at, { fresh: true })));
      assert.deepEqual(values, [String(round), String(round)]);
    }
  });
}
