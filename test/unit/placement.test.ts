import assert from 'node:assert/strict';
import { parseNodeName } from '../../controller/model/names.ts';
import { dead, gibi, minuteMs, node, nowMs, place, stepsOf, volume } from '../support/placement-nodes.ts';

/** Nodes that answer nothing to the brake: it looks at the share of dead ones. */
const others = (count: number) =>
  Array.from({ length: count }, (_, index) => node(`z${index}`, { labels: { dc: 'other' }, cordoned: true }));

describe('placement', () => {
  it('makes one local copy where nothing was asked for, and none for a volume that wants none', () => {
    const nodes = [node('a'), node('b')];
    const placement = place(nodes, volume({}));
    assert.deepEqual(placement.replicas, ['b']);
    assert.deepEqual(stepsOf(nodes, volume({})), ['add b']);
    assert.deepEqual(place(nodes, volume({}, ['b'])), { replicas: ['b'], steps: [], waiting: [], problems: [] });
    assert.deepEqual(stepsOf(nodes, volume({ replicas: '0' })), []);
  });

  it('prefers racks of their own, then other hosts', () => {
    const rack = (name: string, r: string) => node(name, { labels: { rack: r } });
    const nodes = [rack('a', 'r1'), rack('b', 'r1'), rack('c', 'r1'), rack('d', 'r2'), rack('e', 'r2')];
    const { replicas } = place(nodes, volume({ replicas: '2' }));
    assert.ok(['d', 'e'].includes(replicas[0] ?? ''), 'the first one is in the other rack');
    assert.equal(replicas.length, 2);
    const unlabelled = [rack('a', 'r1'), rack('b', 'r1'), node('c'), node('d')];
    assert.deepEqual(place(unlabelled, volume({ replicas: '2' })).replicas.toSorted(), ['c', 'd']);
  });

  it('puts remote copies into other data centers, each into another one first', () => {
    const at = (name: string, dc: string) => node(name, { labels: { dc } });
    const nodes = [node('a'), at('b', 'default'), ...['c', 'd', 'e'].map((n) => at(n, 'x')), at('f', 'y')];
    const { replicas } = place(nodes, volume({ 'remote-replicas': '2' }));
    assert.equal(replicas[0], 'b');
    assert.ok(replicas.includes(parseNodeName('f')), 'both data centers');
    assert.equal(place(nodes, volume({ replicas: '0', 'remote-replicas': '4' })).replicas.length, 4);
    assert.match(
      place([node('a'), node('b')], volume({ 'remote-replicas': '1' })).problems.join(),
      /1 of 1 remote copies has no place: no more nodes outside data center default/,
    );
  });

  it('says which rule kept which node out, and places what is possible', () => {
    const nodes = [
      node('a'),
      node('b', dead(1)),
      node('c', { cordoned: true }),
      node('d', { format: 'btrfs' }),
      node('e', { space: null }),
      node('f', { space: { sizeBytes: 100 * gibi, freeBytes: 12 * gibi } }),
      node('g', { space: { sizeBytes: 100 * gibi, freeBytes: 25 * gibi } }),
      node('h', { labels: { disk: 'hdd' } }),
      node('i', { labels: { disk: 'ssd' } }),
      node('j', { labels: { disk: 'ssd' } }),
    ].map((each) => (each.labels['disk'] === undefined ? { ...each, labels: { disk: 'ssd' } } : each));
    const placement = place(
      nodes,
      volume({ replicas: '3', locality: 'disk=ssd', nodes: 'b,c,d,e,f,g,h,i' }, [], 10 * gibi),
    );
    assert.deepEqual(placement.replicas, ['i']);
    assert.equal(
      placement.problems.join(),
      '2 of 3 local copies have no place: b is dead, c is cordoned, d keeps volumes on btrfs, the owner on zfs, e has not told its free space, f has 12 GiB free of the 13 GiB needed, g would be more than 80 % full, h does not have disk=ssd, j is not one of the nodes chosen',
    );
  });

  it('names a few nodes only where there are many', () => {
    const nodes = [node('a'), ...Array.from({ length: 30 }, (_, index) => node(`n${index}`, { cordoned: true }))];
    assert.match(place(nodes, volume({})).problems.join(), /and 22 more$/);
  });

  it('leaves copies where they are: better places, a cordon and a full pool are no reason to move', () => {
    const nodes = [
      node('a', { labels: { rack: 'r1' } }),
      node('b', { labels: { rack: 'r1' }, cordoned: true, space: { sizeBytes: gibi, freeBytes: 0 } }),
      node('c', { labels: { rack: 'r2' } }),
    ];
    assert.deepEqual(place(nodes, volume({}, ['b'])), { replicas: ['b'], steps: [], waiting: [], problems: [] });
  });

  it('replaces a copy that the conditions forbid: adds first, takes away when the new one is up to date', () => {
    const nodes = ['a', 'b', 'c'].map((name) => node(name));
    assert.deepEqual(stepsOf(nodes, volume({ nodes: 'c' }, ['b'])), ['add c']);
    assert.deepEqual(stepsOf(nodes, volume({ nodes: 'c' }, ['b', 'c?'])), []);
    assert.deepEqual(stepsOf(nodes, volume({ nodes: 'c' }, ['b', 'c'])), ['remove b']);
    const alone = place(nodes, volume({ nodes: 'd' }, ['b']));
    assert.deepEqual(alone.steps, [], 'the last copy stays');
    assert.equal(alone.problems.length, 1);
  });

  it('empties a draining node: makes the copies elsewhere, then takes them away', () => {
    const drained = (...names: string[]) =>
      ['a', 'b', 'c'].map((name) => node(name, { draining: names.includes(name), cordoned: names.includes(name) }));
    assert.deepEqual(stepsOf(drained('b'), volume({}, ['b'])), ['add c']);
    assert.deepEqual(stepsOf(drained('b'), volume({}, ['b', 'c?'])), []);
    assert.match(
      place(drained('b'), volume({}, ['b', 'c?']))
        .waiting.map(({ reason }) => reason)
        .join(),
      /the copy on b stays until the others are up to date/,
    );
    assert.deepEqual(place(drained('b'), volume({}, ['b', 'c'])).steps, [
      { kind: 'remove', node: 'b', reason: 'its node is being drained' },
    ]);
    assert.deepEqual(stepsOf(drained('a'), volume({}, ['b'])), [], 'the owner is drained, not the copies');
    const nowhere = place(drained('b', 'c'), volume({}, ['b']));
    assert.deepEqual(nowhere.steps, [], 'the last copy stays');
    assert.match(nowhere.problems.join(), /1 of 1 local copies has no place: c is being drained/);
  });

  it('puts no copy on a draining node, though it is not cordoned', () => {
    const nodes = [node('a'), node('b', { draining: true }), node('c')];
    assert.deepEqual(place(nodes, volume({})).replicas, ['c']);
  });

  it('changes one copy at a time', () => {
    const nodes = ['a', 'b', 'c', 'd'].map((name) => node(name));
    const of = (replicas: string[]) => place(nodes, volume({ replicas: '3' }, replicas));
    const first = of([]);
    assert.equal(first.steps.length, 1);
    assert.equal(first.replicas.length, 3);
    const [step] = first.steps;
    const second = of([`${step?.node}?`]);
    assert.deepEqual(second.steps, []);
    assert.match(second.waiting[0]?.reason ?? '', /not up to date yet/);
    assert.equal(of([`${step?.node}`]).steps.length, 1);
  });

  it('takes away what is too many only when all others are up to date', () => {
    const nodes = ['a', 'b', 'c', 'd'].map((name) => node(name));
    const one = (replicas: string[]) => stepsOf(nodes, volume({ replicas: '1' }, replicas));
    assert.deepEqual(one(['b', 'c?']), ['remove c']);
    assert.equal(one(['b', 'c']).length, 1);
    assert.deepEqual(stepsOf(nodes, volume({ replicas: '2' }, ['b', 'c?', 'd?'])), []);
    assert.deepEqual(stepsOf(nodes, volume({ replicas: '0' }, ['b?'])), ['remove b']);
    const cordoned = nodes.map((each) => (each.name === 'b' ? { ...each, cordoned: true } : each));
    assert.deepEqual(stepsOf(cordoned, volume({}, ['b', 'c'])), ['remove b']);
  });

  it('waits ten minutes for a dead node', () => {
    const nodes = (minutes: number) => [node('a'), node('b'), node('c', dead(minutes)), node('d'), ...others(3)];
    const early = place(nodes(9), volume({ replicas: '2' }, ['b', 'c']));
    assert.deepEqual(early.steps, []);
    assert.deepEqual(early.replicas, ['b', 'c']);
    assert.equal(early.waiting[0]?.untilMs, nowMs + minuteMs);
    const late = place(nodes(10), volume({ replicas: '2' }, ['b', 'c']));
    assert.deepEqual(stepsOf(nodes(10), volume({ replicas: '2' }, ['b', 'c'])), ['add d']);
    assert.deepEqual(late.replicas.toSorted(), ['b', 'd']);
    assert.deepEqual(stepsOf(nodes(12), volume({ replicas: '2' }, ['b', 'c', 'd?'])), []);
    assert.deepEqual(stepsOf(nodes(12), volume({ replicas: '2' }, ['b', 'c', 'd'])), ['remove c']);
  });

  it('keeps a dead node in the list while nothing can take its place', () => {
    const placement = place([node('a'), node('c', dead(60)), ...others(3)], volume({}, ['c']));
    assert.deepEqual(placement.replicas, ['c']);
    assert.deepEqual(placement.steps, []);
    assert.equal(placement.problems.length, 1);
  });

  it('does not wait when no living copy is up to date, and hurries once', () => {
    const nodes = [node('a'), node('b', dead(0)), node('c'), ...others(3)];
    assert.deepEqual(stepsOf(nodes, volume({}, ['b'])), ['add c']);
    assert.deepEqual(stepsOf(nodes, volume({}, ['b', 'c?'])), []);
    assert.deepEqual(stepsOf(nodes, volume({}, ['b', 'c'])), ['remove b']);
    const more = [...nodes, node('d')];
    assert.deepEqual(stepsOf(more, volume({ replicas: '2' }, ['b', 'c?'])), ['add d'], 'c is behind, b dead');
    assert.deepEqual(stepsOf(more, volume({ replicas: '2' }, ['b', 'c?', 'd?'])), []);
  });

  it('adds and takes away nothing while more than a third of the nodes look dead', () => {
    const nodes = [node('a'), node('b'), node('c', dead(60)), node('d', dead(60)), node('e')];
    const placement = place(nodes, volume({ replicas: '2' }, ['b', 'c']));
    assert.deepEqual(placement.steps, []);
    assert.match(placement.waiting[0]?.reason ?? '', /40 % of the nodes look dead/);
    assert.deepEqual(stepsOf(nodes, volume({}, ['b', 'e'])), []);
    assert.deepEqual(stepsOf([...nodes, ...others(1)], volume({ replicas: '2' }, ['b', 'c'])), ['add e']);
  });

  it('does nothing for a dead owner and without knowing the owner', () => {
    const nodes = [node('a', dead(60)), node('b'), node('c')];
    assert.deepEqual(stepsOf(nodes, volume({ replicas: '2' }, ['b'])), []);
    assert.match(place([node('b')], volume({}, ['b'])).problems.join(), /owner a is not a node/);
  });

  it('forgets nodes that have left, never the owner itself', () => {
    const nodes = [node('a'), node('b')];
    assert.deepEqual(stepsOf(nodes, volume({}, ['b', 'x'])), ['remove x']);
    assert.deepEqual(place(nodes, volume({}, ['a', 'b'])).steps, []);
    assert.deepEqual(place(nodes, volume({}, ['a', 'b'])).replicas, ['b']);
  });
});
