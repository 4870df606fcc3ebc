import assert from 'node:assert/strict';
import { type MoveDoc, type MoveId, type MoveStep, moveIdSchema } from '../../controller/model/move.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { createTurns } from '../../controller/moves/turns.ts';
import { moveDoc } from '../support/move-documents.ts';

const never = new AbortController().signal;
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('the turns of moves that leave a node', () => {
  let nowMs = 0;
  beforeEach(() => {
    nowMs = 1_000_000;
  });
  const ids = ['00000001', '00000002', '00000003', '00000004'].map((text) => moveIdSchema.parse(text));
  const docs = ids.map((id) => moveDoc({ id, step: 'copying', stepSinceMs: 1_000_000 }));
  const at = (steps: readonly MoveStep[], from = 'n1'): ReadonlyMap<MoveId, MoveDoc> =>
    new Map(
      steps.map((step, index) => {
        const doc: MoveDoc = { ...(docs[index] as MoveDoc), step, from: parseNodeName(from) };
        return [doc.id, doc] as const;
      }),
    );
  function asked(atOnce: number, signals: readonly AbortSignal[] = []) {
    const turns = createTurns(parseNodeName('n1'), atOnce, () => nowMs);
    const went: number[] = [];
    const ask = (index: number) =>
      turns.wait(docs[index] as MoveDoc, signals[index] ?? never).then(
        () => void went.push(index),
        () => void went.push(-index),
      );
    return { turns, went, ask };
  }

  it('come in the order of asking, so many at once', async () => {
    const { turns, went, ask } = asked(2);
    turns.seen(at(['copying', 'copying', 'copying', 'copying']));
    for (const index of [0, 1, 2, 3]) void ask(index);
    await settled();
    assert.deepEqual(went, [0, 1]);
    turns.seen(at(['pausing', 'copying', 'copying', 'copying']));
    await settled();
    assert.deepEqual(went, [0, 1], 'the second has not gone on yet, and counts all the same');
    turns.seen(at(['cleaning', 'committing', 'copying', 'copying']));
    await settled();
    assert.deepEqual(went, [0, 1, 2]);
    turns.seen(at(['done', 'restoring', 'releasing', 'copying']));
    await settled();
    assert.deepEqual(went, [0, 1, 2], 'a way back holds services, too');
    turns.seen(at(['done', 'failed', 'releasing', 'copying']));
    await settled();
    assert.deepEqual(went, [0, 1, 2, 3]);
  });

  it('do not count moves that leave other nodes', async () => {
    const { turns, went, ask } = asked(1);
    turns.seen(at(['pausing', 'starting'], 'n2'));
    void ask(2);
    await settled();
    assert.deepEqual(went, [2]);
  });

  it('do not wait for a move that stands still', async () => {
    const { turns, went, ask } = asked(1);
    turns.seen(at(['starting', 'copying']));
    void ask(1);
    nowMs += 100_000;
    turns.seen(at(['starting', 'copying']));
    await settled();
    assert.deepEqual(went, []);
    nowMs += 100_000;
    turns.seen(at(['starting', 'copying']));
    await settled();
    assert.deepEqual(went, [1]);
  });

  it('pass on what was turned back while it waited, and what failed right after', async () => {
    const back = new AbortController();
    const { turns, went, ask } = asked(1, [never, back.signal]);
    turns.seen(at(['copying', 'copying', 'copying']));
    for (const index of [0, 1, 2]) void ask(index);
    await settled();
    back.abort(new Error('turned back'));
    await settled();
    assert.deepEqual(went, [0, -1]);
    turns.seen(at(['clearing', 'clearing', 'copying']));
    await settled();
    assert.deepEqual(went, [0, -1, 2]);
  });
});
