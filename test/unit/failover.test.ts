import assert from 'node:assert/strict';
import type { Copy } from '../../controller/model/copy-order.ts';
import {
  calmMs,
  decideFailover,
  type FailoverInput,
  isBraked,
  rankOf,
  silentMsMax,
  turnMs,
} from '../../controller/model/failover.ts';
import {
  datasetIdFor,
  type NodeName,
  parseNodeName,
  parseSnapshotName,
  parseVolumeName,
} from '../../controller/model/names.ts';
import { noOptions, type VolumeOptions } from '../../controller/model/options.ts';
import { snapshotName } from '../../controller/model/replication.ts';

const [n1, n2, n3, n4, n5] = ['n1', 'n2', 'n3', 'n4', 'n5'].map(parseNodeName) as [
  NodeName,
  NodeName,
  NodeName,
  NodeName,
  NodeName,
];
const name = parseVolumeName('db');
const id = datasetIdFor(name, '00000001');
const guardMs = 7_000;
const freeSinceMs = 100_000;
/** Right after the guard. */
const afterMs = freeSinceMs + guardMs;
/** With snapshots for replication (their times) and of people, the oldest first. */
const copyOf = (snapshots: readonly (number | string)[], asOfMs: number | null = null, epoch = 1): Copy => ({
  snapshots: snapshots.map((one) => ({
    name: typeof one === 'string' ? parseSnapshotName(one) : snapshotName(epoch, one),
    identity: typeof one === 'string' ? one : `${epoch} ${one}`,
  })),
  asOfMs,
});
const place = (timeMs: number, asOfMs: number | null = null, epoch = 1) => copyOf([timeMs], asOfMs, epoch);

type Case = Partial<Omit<FailoverInput, 'doc'>> & {
  readonly options?: Partial<VolumeOptions>;
  readonly replicas?: readonly NodeName[];
};

/** n1 owned it and is dead; n2 decides, n3 has a copy too. */
function decide({ options = {}, replicas = [n2, n3], ...input }: Case = {}) {
  return decideFailover({
    cause: 'automatic',
    force: false,
    me: n2,
    doc: { id, name, owner: n1, replicas, options: { ...noOptions, ...options } },
    guardMs,
    nowMs: afterMs,
    freeSinceMs,
    promisedUntilMs: Number.NEGATIVE_INFINITY,
    calmUntilMs: Number.NEGATIVE_INFINITY,
    nodes: nodesOf([n1]),
    mine: place(50),
    others: new Map([[n3, place(40)]]),
    ...input,
  });
}

const nodesOf = (dead: readonly NodeName[], all = [n1, n2, n3], deadSinceMs = freeSinceMs) =>
  all.map((node) => ({ name: node, deadSinceMs: dead.includes(node) ? deadSinceMs : null }));

const ruleOf = (input: Case) => {
  const decision = decide(input);
  return 'rule' in decision ? `${decision.kind} ${decision.rule}` : decision.kind;
};

describe('automatic failover', () => {
  it('takes the best copy of a dead owner’s volume when the guard is over', () => {
    assert.deepEqual(decide(), { kind: 'take', lossMs: null });
    const early = decide({ nowMs: afterMs - 1 });
    assert.deepEqual([early.kind, 'untilMs' in early && early.untilMs], ['wait', afterMs]);
  });

  it('leaves alone what somebody holds, whose owner lives, or what was never to be taken', () => {
    assert.equal(ruleOf({ freeSinceMs: null }), 'none locked');
    assert.equal(ruleOf({ nodes: nodesOf([]) }), 'none owner-lives');
    const poolLost = nodesOf([]).map((one) => ({ ...one, isPoolLost: one.name === n1 }));
    assert.equal(ruleOf({ nodes: poolLost }), 'take');
    assert.equal(ruleOf({ nodes: poolLost, freeSinceMs: null }), 'none locked');
    assert.equal(ruleOf({ options: { failover: 'none' } }), 'none policy');
    assert.equal(ruleOf({ mine: { snapshots: null, asOfMs: null } }), 'none no-copy');
  });

  it('takes what a removed node owned', () => {
    assert.equal(ruleOf({ nodes: nodesOf([], [n2, n3]) }), 'take');
  });

  it('waits for its own promise, and a minute after the last one', () => {
    const promised = decide({ promisedUntilMs: afterMs + 5 });
    assert.deepEqual(promised.kind === 'wait' && [promised.rule, promised.untilMs], ['promise', afterMs + 5]);
    const calm = decide({ calmUntilMs: afterMs + calmMs });
    assert.deepEqual(calm.kind === 'wait' && [calm.rule, calm.untilMs], ['calm', afterMs + calmMs]);
  });

  it('does nothing while more than a third of the nodes look dead, unless it is one', () => {
    const five = [n1, n2, n3, n4, n5];
    assert.equal(ruleOf({ nodes: nodesOf([n1], five) }), 'take');
    assert.equal(ruleOf({ nodes: nodesOf([n1, n4], five) }), 'refuse brake');
    assert.equal(ruleOf({ nodes: nodesOf([n1, n3], [n1, n2, n3]) }), 'refuse brake');
    assert.equal(ruleOf({ nodes: nodesOf([n1], [n1, n2]), replicas: [n2] }), 'take');
    assert.deepEqual(
      [isBraked(2, 6), isBraked(3, 8), isBraked(34, 100), isBraked(35, 100), isBraked(0, 0)],
      [false, true, false, true, false],
    );
  });

  it('asks the other nodes with copies, once nothing else stands against it', () => {
    assert.deepEqual(decide({ others: new Map() }), { kind: 'ask', nodes: [n3] });
    assert.equal(ruleOf({ others: new Map(), nowMs: afterMs - 1 }), 'wait guard');
    assert.equal(ruleOf({ others: new Map(), nodes: nodesOf([n1], [n1, n2]) }), 'take');
  });

  it('leaves it to a newer copy: by epoch first, then by the place in it', () => {
    const newer = decide({ others: new Map([[n3, place(60)]]) });
    assert.deepEqual(newer.kind === 'wait' && [newer.rule, newer.untilMs, newer.node], ['newer', null, n3]);
    assert.equal(ruleOf({ others: new Map([[n3, place(10, null, 2)]]) }), 'wait newer');
    assert.equal(ruleOf({ mine: place(10, null, 2) }), 'take');
    assert.equal(ruleOf({ others: new Map([[n3, { snapshots: null, asOfMs: null }]]) }), 'take');
  });

  it('leaves it to the one that has all of the other, where both catch up through snapshots that people made', () => {
    const behind = copyOf([40, 50, 'hourly-1', 'hourly-2', 'hourly-3']);
    const ahead = copyOf([40, 'hourly-1', 'hourly-2', 'hourly-3', 'hourly-4']);
    const left = decide({ mine: behind, others: new Map([[n3, ahead]]) });
    assert.deepEqual(left.kind === 'wait' && [left.rule, left.node], ['newer', n3]);
    assert.equal(ruleOf({ mine: ahead, others: new Map([[n3, behind]]) }), 'take');
    assert.equal(ruleOf({ cause: 'operator', mine: ahead, others: new Map([[n3, behind]]) }), 'take');
    const complete = copyOf([40, 'hourly-1', 'hourly-2', 'hourly-3', 'hourly-4', 60]);
    assert.equal(ruleOf({ mine: ahead, others: new Map([[n3, complete]]) }), 'wait newer');
    // An epoch more counts more.
    assert.equal(ruleOf({ mine: ahead, others: new Map([[n3, place(10, null, 2)]]) }), 'wait newer');
  });

  it('leaves it to people where the first copy has nothing but what people made', () => {
    const first = copyOf(['hourly-1', 'hourly-2']);
    const others = new Map([[n3, copyOf(['hourly-1'])]]);
    assert.equal(ruleOf({ mine: first, others }), 'refuse no-copy');
    assert.equal(ruleOf({ mine: first, others, cause: 'operator' }), 'take');
    assert.equal(
      ruleOf({ mine: first, others: new Map([[n3, copyOf(['hourly-1', 'hourly-2', 'hourly-3'])]]) }),
      'wait newer',
    );
    assert.equal(ruleOf({ mine: first, others: new Map([[n3, place(50)]]) }), 'wait newer');
    // What the other one could be taken with is there, too.
    assert.equal(ruleOf({ mine: first, others: new Map([[n3, copyOf([40, 'hourly-1'])]]) }), 'take');
  });

  it('does not wait for a node that is dead for longer than the guard', () => {
    const nodes = (deadSinceMs: number) => [
      ...nodesOf([n1], [n1, n2, n4, n5]),
      { name: n3, deadSinceMs },
      { name: parseNodeName('n6'), deadSinceMs: null },
    ];
    const just = decide({ nodes: nodes(afterMs - 1), others: new Map() });
    assert.deepEqual(just.kind === 'wait' && [just.rule, just.untilMs], ['silent', afterMs - 1 + guardMs]);
    assert.equal(ruleOf({ nodes: nodes(afterMs - guardMs), others: new Map() }), 'take');
  });

  it('waits for a living one that does not answer, but not for ever', () => {
    const others = new Map([[n3, 'silent' as const]]);
    const first = decide({ others });
    assert.deepEqual(first.kind === 'wait' && [first.rule, first.untilMs], ['silent', afterMs + silentMsMax]);
    assert.equal(ruleOf({ others, nowMs: afterMs + silentMsMax }), 'take');
  });

  it('has one of equal copies come first, another one for each volume, and the next after a while', () => {
    const others = new Map([[n3, place(50)]]);
    const otherId = (seed: number) => datasetIdFor(name, seed.toString(16).padStart(8, '0'));
    const first = Array.from({ length: 100 }, (_, seed) => otherId(seed)).filter((one) => rankOf(one, n2, [n3]) === 0);
    assert.ok(first.length > 25 && first.length < 75, `${first.length} of 100`);
    for (let seed = 0; seed < 50; seed += 1) {
      const ranks = [
        rankOf(otherId(seed), n2, [n3, n4]),
        rankOf(otherId(seed), n3, [n2, n4]),
        rankOf(otherId(seed), n4, [n2, n3]),
      ];
      assert.deepEqual(ranks.toSorted(), [0, 1, 2]);
    }
    const rank = rankOf(id, n2, [n3]);
    const second = rank === 0 ? { me: n3, replicas: [n2, n3], others: new Map([[n2, place(50)]]) } : { others };
    const decision = decide(second);
    assert.deepEqual(decision.kind === 'wait' && [decision.rule, decision.untilMs], ['turn', afterMs + turnMs]);
    assert.equal(ruleOf({ ...second, nowMs: afterMs + turnMs }), 'take');
  });

  it('waits for a person with failover=manual, and says so only where it would be taken', () => {
    const options = { failover: 'manual' } as const;
    assert.equal(ruleOf({ options }), 'refuse policy');
    assert.equal(ruleOf({ options, others: new Map([[n3, place(60)]]) }), 'wait newer');
  });

  it('keeps to max-loss, by when the copy was known to have everything', () => {
    const options = { maxLossMs: 10_000 };
    assert.equal(ruleOf({ options }), 'refuse max-loss');
    assert.deepEqual(decide({ options, mine: place(50, freeSinceMs - 10_000) }), { kind: 'take', lossMs: 10_000 });
    const late = decide({ options, mine: place(50, freeSinceMs - 10_001) });
    assert.match(late.kind === 'refuse' ? late.reason : '', /up to 11s .* max-loss is 10s/);
    // The owner has lived on without the store, and may have written until it had to stand.
    assert.deepEqual(decide({ options, mine: place(50, freeSinceMs + 5) }), { kind: 'take', lossMs: guardMs - 5 });
    const promised = { options, mine: place(50, freeSinceMs + 5), promisedUntilMs: freeSinceMs + 9_000 };
    assert.deepEqual(decide({ ...promised, nowMs: freeSinceMs + 9_000 }), { kind: 'take', lossMs: 8_995 });
    // It has begun another session and died before it had locked the volume again.
    const later = nodesOf([n1], [n1, n2, n3], freeSinceMs + 3_000);
    const lived = decide({ options, nodes: later, mine: place(50, freeSinceMs + 1_000) });
    assert.deepEqual(lived, { kind: 'take', lossMs: 2_000 });
    // A node with the same snapshot has heard from the owner later.
    const told = { options, mine: place(50, 0), others: new Map([[n3, place(50, freeSinceMs - 2_000)]]) };
    assert.deepEqual(decide({ ...told, nowMs: afterMs + turnMs }), { kind: 'take', lossMs: 2_000 });
    const older = { options, mine: place(50, 0), others: new Map([[n3, place(40, freeSinceMs - 2_000)]]) };
    assert.equal(ruleOf(older), 'refuse max-loss');
    // What a node with less of it has heard is true of all of it; of what may have less it is not.
    const less = { options, mine: copyOf([40, 50, 'a'], 0), others: new Map([[n3, place(50, freeSinceMs - 2_000)]]) };
    assert.deepEqual(decide(less), { kind: 'take', lossMs: 2_000 });
    const other = {
      options,
      mine: copyOf([50, 'a'], 0),
      others: new Map([[n3, copyOf([50, 'b'], freeSinceMs - 2_000)]]),
    };
    assert.equal(ruleOf({ ...other, nowMs: afterMs + turnMs }), 'refuse max-loss');
  });
});

describe('failover on a person’s word', () => {
  const cause = 'operator';

  it('is held up by the guard, promises and better copies only', () => {
    const options = { failover: 'manual', maxLossMs: 1 } as const;
    assert.deepEqual(decide({ cause, options }), { kind: 'take', lossMs: null });
    assert.equal(ruleOf({ cause, nodes: nodesOf([]) }), 'take');
    assert.equal(ruleOf({ cause, nodes: nodesOf([n1, n3]), calmUntilMs: afterMs + 1 }), 'take');
    assert.equal(ruleOf({ cause, nowMs: afterMs - 1 }), 'wait guard');
    assert.equal(ruleOf({ cause, promisedUntilMs: afterMs + 1 }), 'wait promise');
    assert.equal(ruleOf({ cause, freeSinceMs: null }), 'none locked');
    assert.equal(ruleOf({ cause, others: new Map([[n3, place(60)]]) }), 'wait newer');
    assert.equal(ruleOf({ cause, others: new Map([[n3, 'silent']]) }), 'wait silent');
    assert.equal(ruleOf({ cause, others: new Map([[n3, place(50)]]) }), 'take');
  });

  it('forced, is held up by the guard and promises only', () => {
    const forced = { cause, force: true, options: { failover: 'none' } } as const;
    assert.equal(ruleOf({ ...forced, force: false }), 'refuse policy');
    assert.equal(ruleOf({ ...forced, others: new Map([[n3, place(60)]]) }), 'take');
    assert.equal(ruleOf({ ...forced, others: new Map() }), 'take');
    assert.equal(ruleOf({ ...forced, nowMs: afterMs - 1 }), 'wait guard');
    assert.equal(ruleOf({ ...forced, promisedUntilMs: afterMs + 1 }), 'wait promise');
  });
});
