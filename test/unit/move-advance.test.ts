import assert from 'node:assert/strict';
import {
  advance,
  canAbort,
  decodeMove,
  isCommitted,
  isOver,
  type MoveDoc,
  type MoveStep,
  moveSteps,
  type StepOutcome,
  turnOf,
} from '../../controller/model/move.ts';
import { createRandom } from '../simulation/random.ts';
import { advanced, done, failed, lost, moveDoc } from '../support/move-documents.ts';

/** docs/design.md, section 9: whose turn, and what follows: done, failed, lost. */
const table: Readonly<Record<Exclude<MoveStep, 'done' | 'failed'>, readonly [string, MoveStep, MoveStep, MoveStep]>> = {
  preparing: ['n2', 'copying', 'clearing', 'failed'],
  copying: ['n1', 'pausing', 'clearing', 'clearing'],
  pausing: ['n1', 'draining', 'resuming', 'clearing'],
  draining: ['n1', 'stopping', 'resuming', 'clearing'],
  stopping: ['n1', 'committing', 'restoring', 'clearing'],
  committing: ['n1', 'starting', 'restoring', 'clearing'],
  starting: ['n2', 'releasing', 'returning', 'failed'],
  releasing: ['n2', 'cleaning', 'cleaning', 'cleaning'],
  cleaning: ['n1', 'done', 'done', 'done'],
  returning: ['n2', 'restoring', 'failed', 'failed'],
  restoring: ['n1', 'resuming', 'resuming', 'clearing'],
  resuming: ['n1', 'clearing', 'clearing', 'clearing'],
  clearing: ['n2', 'failed', 'failed', 'failed'],
};
const open = Object.keys(table) as readonly (keyof typeof table)[];
/** Failures of these are as good as done, so they are no reason to turn back. */
const harmless: readonly MoveStep[] = ['releasing', 'cleaning', 'resuming', 'clearing'];

describe('the steps of a move', () => {
  for (const step of open) {
    it(`${step}: whose turn it is and what follows`, () => {
      const [turn, next, ifFailed, ifLost] = table[step];
      const doc = moveDoc({ step, stepSinceMs: 5_000 });
      assert.equal(turnOf(doc), turn);
      assert.equal(advanced(doc, done()).step, next);
      assert.equal(advanced(doc, done()).failure, null);
      assert.equal(advanced(doc, failed()).step, ifFailed);
      assert.deepEqual(advanced(doc, failed()).failure, harmless.includes(step) ? null : { step, reason: 'broken' });
      assert.equal(advanced(doc, lost()).step, ifLost);
      const [line] = advance(doc, done('a note'), 5_250).history;
      assert.deepEqual(line, { step, node: turn, startedAtMs: 5_000, ms: 250, note: 'a note' });
    });
  }

  it('end: what is over stays as it is', () => {
    for (const step of ['done', 'failed'] as const) {
      const doc = moveDoc({ step });
      assert.equal(turnOf(doc), null);
      assert.equal(advanced(doc, failed()), doc);
    }
  });

  it('remember the first failure, not what came of it', () => {
    const doc = advanced(moveDoc({ step: 'starting' }), failed('no port'), failed('no store'));
    assert.equal(doc.step, 'failed');
    assert.deepEqual(doc.failure, { step: 'starting', reason: 'no port' });
  });

  it('carry the ids of what was made, and the time of the pause, on', () => {
    const doc = moveDoc();
    const members = doc.members.map((member) => ({ ...member, targetId: 'made' }));
    const prepared = advance(doc, { kind: 'done', note: '', members }, 2_000);
    assert.equal(prepared.members[0]?.targetId, 'made');
    const paused = advanced(prepared, done(), { kind: 'done', note: '', pausedAtMs: 3_000 });
    assert.equal(paused.pausedAtMs, 3_000);
    assert.equal(advanced(paused, done(), done(), failed()).pausedAtMs, 3_000);
    const released = advance(
      moveDoc({ step: 'releasing', pausedAtMs: 3_000 }),
      { kind: 'done', note: '', pausedAtMs: null },
      4_000,
    );
    assert.equal(released.pausedAtMs, null);
  });

  it('can be turned back until the commit, and not once they turn back', () => {
    const abortable = open.filter((step) => canAbort(moveDoc({ step })));
    assert.deepEqual(abortable, ['preparing', 'copying', 'pausing', 'draining', 'stopping', 'committing']);
    assert.ok(!canAbort(moveDoc({ step: 'copying', failure: { step: 'copying', reason: '' } })));
    assert.deepEqual(
      moveSteps.filter((step) => isCommitted(moveDoc({ step }))),
      ['starting', 'releasing', 'cleaning', 'done'],
    );
  });

  it('keep what was sent for the end', () => {
    const progress = { sentBytes: 5, totalBytes: 5, bytesPerSecond: 1 };
    const doc = advanced(
      moveDoc({ step: 'copying', progress }),
      done(),
      done(),
      done(),
      done(),
      done(),
      done(),
      done(),
      done(),
    );
    assert.deepEqual([doc.step, doc.progress], ['done', progress]);
  });

  it('every way ends, after few steps, with its members and as the table says', () => {
    const random = createRandom(7);
    const outcomes: readonly (() => StepOutcome)[] = [done, done, failed, lost];
    const ends = new Set<string>();
    for (let run = 0; run < 3_000; run += 1) {
      let doc: MoveDoc = moveDoc();
      const { members } = doc;
      const seen: MoveStep[] = [];
      while (!isOver(doc)) {
        const { step } = doc;
        seen.push(step);
        const outcome = random.pick(outcomes)();
        doc = decodeMove(JSON.stringify(advance(doc, outcome, doc.stepSinceMs + 10)));
        const ways = step === 'done' || step === 'failed' ? [] : table[step].slice(1);
        assert.ok(ways.includes(doc.step), `${step} -> ${doc.step}`);
        assert.deepEqual(doc.members, members);
        assert.ok(seen.length < moveSteps.length, seen.join(' '));
        assert.equal(doc.revision, seen.length + 1);
      }
      assert.equal(new Set(seen).size, seen.length, `a step twice: ${seen.join(' ')}`);
      assert.equal(doc.history.length, seen.length);
      // Who reaches the end without turning back is done; all others say why.
      assert.equal(doc.step === 'failed', doc.failure !== null);
      ends.add(doc.step);
    }
    assert.deepEqual([...ends].toSorted(), ['done', 'failed']);
  });
});
