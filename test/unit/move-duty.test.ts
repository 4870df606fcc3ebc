import assert from 'node:assert/strict';
import type { MoveStep } from '../../controller/model/move.ts';
import {
  dutyOfMove,
  interruptionOf,
  type NodesSeen,
  pauseLeftMs,
  stepLimitMs,
} from '../../controller/model/move-duty.ts';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { moveDoc } from '../support/move-documents.ts';

const [n1, n2, n3, n4] = ['n1', 'n2', 'n3', 'n4'].map(parseNodeName) as [NodeName, NodeName, NodeName, NodeName];
const all = [n1, n2, n3, n4];

function seen(dead: Readonly<Record<string, number>> = {}, change: Partial<NodesSeen> = {}): NodesSeen {
  const deadSinceMs = new Map(Object.entries(dead).map(([name, atMs]) => [parseNodeName(name), atMs]));
  return {
    nodes: new Map(all.map((name) => [name, {}])),
    alive: new Set(all.filter((name) => !deadSinceMs.has(name))),
    deadSinceMs,
    silentSinceMs: new Map(),
    guardMs: 7_000,
    nowBootMs: 100_000,
    ...change,
  };
}

describe('who does what about a move', () => {
  it('does not wait for a living node whose controller has been gone for fifteen seconds', () => {
    const copying = moveDoc({ step: 'copying' });
    const silent = (sinceMs: number) => seen({}, { silentSinceMs: new Map([[n1, sinceMs]]) });
    const kinds = (sinceMs: number) => all.map((me) => dutyOfMove(copying, me, silent(sinceMs)).kind);
    assert.deepEqual(kinds(90_000), ['work', 'wait', 'wait', 'wait']);
    assert.deepEqual(kinds(80_000), ['work', 'lost', 'lost', 'lost']);
    const duty = dutyOfMove(copying, n3, silent(0));
    assert.deepEqual(duty, { kind: 'lost', reason: 'the controller of n1 has gone' });
    const preparing = moveDoc({ step: 'preparing' });
    assert.equal(interruptionOf(preparing, n2, silent(90_000)), null);
    assert.equal(interruptionOf(preparing, n2, silent(80_000)), 'the controller of n1 has gone');
    const gone = seen({}, { silentSinceMs: new Map([[n2, 0]]) });
    assert.equal(interruptionOf(copying, n1, gone), null, 'copies are made without it');
    assert.equal(interruptionOf(moveDoc({ step: 'pausing' }), n1, gone), 'the controller of n2 has gone');
    assert.equal(interruptionOf(moveDoc({ step: 'starting' }), n2, silent(0)), null, 'too late to turn back');
  });

  it('does not wait for the word of a node whose controller has gone', () => {
    const copying = moveDoc({ step: 'copying' });
    const dead = seen({ n1: 92_900 });
    const waits = [n2, n3, n4].filter((me) => dutyOfMove(copying, me, dead).kind === 'wait');
    const first = [n2, n3, n4].find((me) => !waits.includes(me));
    assert.ok(first !== undefined && waits.length === 2);
    const silentSinceMs = new Map([[first, 0]]);
    const later = waits.map((me) => dutyOfMove(copying, me, { ...dead, silentSinceMs }).kind);
    assert.deepEqual(later.toSorted(), ['lost', 'wait']);
  });

  it('is the node whose turn it is, and nobody else while that lives', () => {
    const copying = moveDoc({ step: 'copying' });
    assert.deepEqual(
      all.map((me) => dutyOfMove(copying, me, seen()).kind),
      ['work', 'none', 'none', 'none'],
    );
    const starting = moveDoc({ step: 'starting' });
    assert.deepEqual(
      all.map((me) => dutyOfMove(starting, me, seen()).kind),
      ['none', 'work', 'none', 'none'],
    );
    for (const step of ['done', 'failed'] as const)
      assert.deepEqual(dutyOfMove(moveDoc({ step }), n1, seen({ n1: 0 })), { kind: 'none' });
  });

  it('is said to be lost when the guard is over, by one after the other', () => {
    const doc = moveDoc({ step: 'copying' });
    const dutiesAt = (nowBootMs: number) =>
      [n2, n3, n4].map((me) => dutyOfMove(doc, me, seen({ n1: 93_000 }, { nowBootMs })));
    assert.deepEqual(
      dutiesAt(99_999).map(({ kind }) => kind),
      ['wait', 'wait', 'wait'],
    );
    const at = dutiesAt(99_999).map((duty) => (duty.kind === 'wait' ? duty.untilBootMs : 0));
    assert.deepEqual(
      at.toSorted((a, b) => a - b),
      [100_000, 101_000, 102_000],
    );
    assert.equal(dutiesAt(100_000).filter(({ kind }) => kind === 'lost').length, 1);
    assert.deepEqual(
      dutiesAt(102_000).map(({ kind }) => kind),
      ['lost', 'lost', 'lost'],
    );
  });

  it('is lost at once with a node that has left the cluster, and not with one that nobody has seen die', () => {
    const doc = moveDoc({ step: 'copying' });
    const left = seen({}, { nodes: new Map([n2, n3].map((name) => [name, {}])), alive: new Set([n2, n3]) });
    assert.equal(dutyOfMove(doc, n3, left).kind, 'lost');
    const unseen = seen({}, { alive: new Set([n2, n3, n4]) });
    assert.equal(dutyOfMove(doc, n3, unseen).kind, 'none');
  });
});

describe('a step that runs', () => {
  const reasonOf = (step: MoveStep, change: object, me = n1, nodes = seen()) =>
    interruptionOf(moveDoc({ step, ...change }), me, nodes);

  it('ends when somebody asks for it, up to the commit', () => {
    assert.equal(reasonOf('copying', {}), null);
    assert.equal(reasonOf('copying', { abort: 'lunch' }), 'turned back: lunch');
    assert.equal(reasonOf('starting', { abort: 'lunch' }), null);
    assert.equal(reasonOf('restoring', { abort: 'lunch', failure: { step: 'stopping', reason: '' } }), null);
  });

  it('ends when the other node is dead, up to the commit', () => {
    assert.equal(reasonOf('copying', {}, n1, seen({ n2: 93_001 })), null, 'the guard is not over');
    assert.equal(reasonOf('copying', {}, n1, seen({ n2: 93_000 })), 'n2 is dead');
    assert.equal(reasonOf('preparing', {}, n2, seen({ n1: 90_000 })), 'n1 is dead');
    assert.equal(reasonOf('starting', {}, n2, seen({ n1: 90_000 })), null);
  });

  it('has a limit: what is left of its own time, or of the pause', () => {
    const limits = { prepareMs: 600_000, copyMs: 1_000_000, pauseMs: 30_000, drainMs: 10_000 };
    const at = (step: MoveStep, nowMs: number) =>
      stepLimitMs(moveDoc({ step, limits, stepSinceMs: 20_000, pausedAtMs: 10_000 }), nowMs);
    assert.equal(pauseLeftMs(moveDoc({ limits, pausedAtMs: 10_000 }), 15_000), 25_000);
    assert.equal(pauseLeftMs(moveDoc({ limits, stepSinceMs: 20_000 }), 25_000), 25_000, 'nothing waits');
    assert.deepEqual([at('preparing', 30_000), at('preparing', 700_000)], [590_000, -80_000]);
    assert.equal(at('copying', 30_000), 990_000);
    assert.deepEqual(
      [at('draining', 20_000), at('stopping', 35_000), at('committing', 41_000)],
      [16_000, 5_000, -1_000],
    );
    assert.deepEqual([at('starting', 25_000), at('starting', 90_000)], [7_000, 5_000], 'it is tried at least');
    for (const step of ['returning', 'restoring', 'resuming', 'clearing', 'cleaning', 'releasing'] as const)
      assert.ok(at(step, 900_000) >= 8_000, step);
  });
});
