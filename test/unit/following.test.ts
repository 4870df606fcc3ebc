import assert from 'node:assert/strict';
import { describeContainer } from '../../controller/model/container-spec.ts';
import {
  candidatesOf,
  type FollowFacts,
  followOf,
  imageNodesOf,
  isLeftOver,
  sharersOf,
  sharingWith,
} from '../../controller/model/following.ts';
import { lackingOn } from '../../controller/model/linking.ts';
import { type NodeName, parseDatasetId, parseNodeName, parseVolumeName } from '../../controller/model/names.ts';
import { placedOn, type WorkloadDoc, workloadIdFor } from '../../controller/model/workload.ts';
import { inspected } from '../support/inspected.ts';

const names = ['n1', 'n2', 'n3', 'n4'].map(parseNodeName);
const [n1, n2, n3, n4] = names as [NodeName, NodeName, NodeName, NodeName];
const volume = (name: string) => ({ id: parseDatasetId(`${name}.0a1b2c3d`), name: parseVolumeName(name) });
const noFacts = { networks: new Map(), hostName: 'n1', nameOf: String, isWorkload: () => false, linkedPorts: () => [] };

function workload(changes: Partial<WorkloadDoc> = {}): WorkloadDoc {
  return {
    ...describeContainer(inspected(), noFacts),
    id: workloadIdFor('ab'.repeat(32)),
    createdAtMs: 1,
    node: n1,
    epoch: 1,
    containerId: 'ab'.repeat(32),
    wanted: 'running',
    volumes: [],
    former: [],
    move: null,
    revision: 1,
    ...changes,
  };
}

function facts(
  me: NodeName,
  changes: Partial<FollowFacts> & { readonly owners?: Readonly<Record<string, NodeName>> } = {},
): FollowFacts {
  const { owners = {}, ...rest } = changes;
  return {
    me,
    nodes: new Map(names.map((name) => [name, { cordoned: false, draining: false }])),
    alive: new Set([n2, n3, n4]),
    deadSinceMs: new Map([[n1, 0]]),
    silentSinceMs: new Map(),
    workloadsOn: new Map(),
    sharers: sharersOf([]),
    nowMs: 100_000,
    guardMs: 7_000,
    volumes: new Map(
      Object.entries(owners).map(([name, owner]) => [volume(name).id, { owner, replicas: [n1, n4], trashed: null }]),
    ),
    ...rest,
  };
}

const kinds = (doc: WorkloadDoc, changes: Parameters<typeof facts>[1] = {}) =>
  names.map((me) => followOf(doc, facts(me, changes)).kind);

describe('a workload of a dead node', () => {
  const withVolumes = workload({ volumes: [volume('data'), volume('app')] });

  it('follows the first of its volumes, by name', () => {
    assert.deepEqual(kinds(withVolumes, { owners: { data: n2, app: n3 } }), ['none', 'none', 'claim', 'none']);
    assert.deepEqual(
      kinds(withVolumes, { owners: { data: n2, app: n1 } }),
      ['none', 'none', 'none', 'none'],
      'not yet',
    );
    assert.deepEqual(kinds(withVolumes), ['none', 'none', 'none', 'none'], 'of unknown volumes');
  });

  it('goes to another node with a copy where for long no controller is at work at its volume', () => {
    const owners = { app: n2, data: n2 };
    const silent = (ms: number) => ({ owners, silentSinceMs: new Map([[n2, 100_000 - ms]]) });
    assert.deepEqual(kinds(withVolumes, silent(59_000)), ['none', 'claim', 'none', 'none']);
    assert.deepEqual(kinds(withVolumes, silent(61_000)), ['none', 'none', 'none', 'claim'], 'n4 has one, n1 is dead');
    const follow = followOf(withVolumes, facts(n4, silent(61_000)));
    assert.match('why' in follow ? follow.why : '', /volume app is on n2, whose controller is not at work$/);
    const away = { ...silent(61_000), alive: new Set([n3, n4]) };
    assert.deepEqual(kinds(withVolumes, away).slice(2), ['none', 'none'], 'its volume is the failover’s');
  });

  it('goes where something is to run that shares volumes with it, also by way of others', () => {
    const sharing = (letter: string, node: NodeName, ...letters: readonly string[]) =>
      workload({
        id: workloadIdFor(letter.repeat(64)),
        name: letter,
        node,
        volumes: letters.map((one) => volume(one + one)),
      });
    const [a, b, c] = [sharing('a', n1, 'v'), sharing('b', n1, 'v', 'w'), sharing('c', n1, 'w', 'x')];
    const owners = { vv: n2, ww: n3, xx: n4 };
    const takers = (...docs: readonly WorkloadDoc[]) => {
      const sharers = sharersOf(docs);
      return docs.map((doc) => names.filter((me) => followOf(doc, facts(me, { owners, sharers })).kind !== 'none'));
    };
    assert.deepEqual(takers(a, b, c), [[n2], [n2], [n3]], 'the first one decides');
    assert.deepEqual(takers(placedOn(a, n2, null, 'left'), b, c), [[], [n2], [n2]]);
    assert.deepEqual(takers(a, b, placedOn(c, n3, null, 'left')), [[n3], [n3], []]);
    assert.deepEqual(takers({ ...a, wanted: 'stopped', node: n4 }, b, c), [[], [n2], [n3]], 'needs nothing');
    assert.deepEqual(
      sharingWith(a, sharersOf([a, b, c, sharing('d', n1, 'y')])).map(({ name }) => name),
      ['b', 'c'],
    );
    const taken = { owners: { vv: n1, ww: n3, xx: n4 }, sharers: sharersOf([a, b, placedOn(c, n3, null, 'left')]) };
    assert.deepEqual(kinds(a, taken), ['none', 'none', 'claim', 'none'], 'its own volume has still to come');
    const back = { ...taken, alive: new Set(names) };
    assert.deepEqual(kinds(b, back), ['none', 'none', 'none', 'none'], 'needs what is kept on two nodes');
    const without = { ...back, sharers: sharersOf([b, placedOn(c, n3, null, 'left')]) };
    assert.deepEqual(kinds(b, without), ['none', 'none', 'claim', 'none'], 'its node is back, and one volume is kept');
    assert.deepEqual(kinds(b, { ...without, sharers: sharersOf([b]) }), ['none', 'none', 'none', 'none']);
    const follow = followOf(b, facts(n3, { owners, sharers: sharersOf([a, b, placedOn(c, n3, null, 'left')]) }));
    assert.match('why' in follow ? follow.why : '', /container c, which has to be on the same node, is here/);
  });

  const linked = (letter: string, node: NodeName, names: readonly string[], ...letters: readonly string[]) => {
    const doc = workload({
      id: workloadIdFor(letter.repeat(64)),
      name: letter,
      node,
      volumes: letters.map((one) => volume(one + one)),
    });
    const HostConfig = { ...(doc.spec.create['HostConfig'] as object), Links: names.map((name) => `${name}:alias`) };
    return { ...doc, spec: { ...doc.spec, create: { ...doc.spec.create, HostConfig } } };
  };

  it('is not made before what it is linked with is there, unless its network needs no such thing', () => {
    const inNetwork = (NetworkMode: string): WorkloadDoc => {
      const doc = linked('b', n2, ['a']);
      const HostConfig = { ...doc.spec.create.HostConfig, NetworkMode };
      return { ...doc, spec: { ...doc.spec, create: { ...doc.spec.create, HostConfig } } };
    };
    const a = { ...linked('a', n2, []), containerId: null };
    const made = { ...a, containerId: 'ab'.repeat(32) };
    assert.deepEqual(lackingOn(n2, inNetwork('default'), [a]), ['a']);
    assert.deepEqual(lackingOn(n2, inNetwork('bridge'), []), ['a']);
    assert.deepEqual(lackingOn(n2, inNetwork('bridge'), [made]), []);
    assert.deepEqual(lackingOn(n2, inNetwork('bridge'), [{ ...made, node: n3 }]), ['a']);
    assert.deepEqual(lackingOn(n2, inNetwork('mine'), [a]), []);
    // Another one of that name, from elsewhere, waits for the name there.
    const stranger = { ...placedOn(linked('a', n1, []), n2, null, 'left'), id: workloadIdFor('cd'.repeat(32)) };
    assert.deepEqual(lackingOn(n2, inNetwork('bridge'), [made, stranger]), []);
    // And the other way: the one that was there is the stranger.
    const moved = placedOn({ ...inNetwork('bridge'), node: n1 }, n2, null, 'left');
    assert.deepEqual(lackingOn(n2, moved, [made, stranger]), ['a']);
  });

  it('goes where what it is linked with is, also by way of others, and not to a stranger of that name', () => {
    const [a, b, c] = [linked('a', n1, [], 'v'), linked('b', n1, ['a'], 'w'), linked('c', n1, ['b'])];
    const owners = { vv: n2, ww: n3 };
    const takers = (docs: readonly WorkloadDoc[], changes: Parameters<typeof facts>[1] = {}) => {
      const sharers = sharersOf(docs);
      return docs.map((doc) =>
        names.filter((me) => followOf(doc, facts(me, { owners, sharers, nowMs: 10_000, ...changes })).kind === 'claim'),
      );
    };
    assert.deepEqual(takers([a, b, c]), [[n2], [n3], []], 'the first one decides; what has no volumes waits for that');
    assert.deepEqual(takers([placedOn(a, n2, null, 'left'), b, c]), [[], [n2], [n2]]);
    assert.deepEqual(takers([a, placedOn(b, n3, null, 'left'), c]), [[n3], [], [n3]]);
    assert.deepEqual(takers([{ ...a, node: n4 }, b, c])[1], [n3], 'another node has another a');
    assert.deepEqual(takers([a, c])[1]?.length, 1, 'its own is not there any more');
    const sharers = sharersOf([a, b, c]);
    const untaken = { owners: { vv: n1, ww: n1 }, sharers };
    assert.deepEqual(
      names.filter((me) => followOf(c, facts(me, { ...untaken, nowMs: 10_000 })).kind === 'wait').length,
      1,
    );
    const waiting = names.map((me) => followOf(c, facts(me, untaken))).find(({ kind }) => kind === 'refused');
    assert.match(
      waiting?.kind === 'refused' ? waiting.why : '',
      /no node has taken over container b, which it is linked/,
    );
    // What is only linked to does without the other one in the end.
    const [d, e] = [linked('d', n1, []), linked('e', n1, ['d'], 'v')];
    const alone = { owners: { vv: n1 }, sharers: sharersOf([d, e]) };
    const ofD = (nowMs: number) => names.map((me) => followOf(d, facts(me, { ...alone, nowMs })).kind);
    assert.deepEqual(
      ofD(36_000).filter((kind) => kind !== 'none'),
      ['wait'],
    );
    assert.deepEqual(
      ofD(38_000).filter((kind) => kind !== 'none'),
      ['claim'],
    );
    const nodes = new Map(names.map((name) => [name, { cordoned: false, draining: false, poolLost: name === n1 }]));
    const lost = { alive: new Set(names), nodes, deadSinceMs: new Map() };
    assert.deepEqual(takers([a, b, c], lost), [[n2], [n3], []]);
    assert.deepEqual(takers([a, placedOn(b, n3, null, 'left'), c], lost), [[n3], [], [n3]]);
    const copies = new Map(
      ['vv', 'ww'].map((name) => [volume(name).id, { owner: n1, replicas: [name === 'vv' ? n2 : n3] }]),
    );
    assert.deepEqual(
      imageNodesOf(c, { ...facts(n2, { sharers }), alive: new Set(names), volumes: copies }).toSorted(),
      [n2, n3],
    );
  });

  it('and of a living one whose pool has failed, unless it needs no pool', () => {
    const alive = new Set(names);
    const nodes = new Map(names.map((name) => [name, { cordoned: false, draining: false, poolLost: name === n1 }]));
    const owners = { data: n2, app: n3 };
    assert.deepEqual(kinds(withVolumes, { owners, alive, nodes }), ['none', 'none', 'claim', 'none']);
    assert.deepEqual(kinds(withVolumes, { owners, alive }), ['none', 'none', 'none', 'none']);
    assert.deepEqual(kinds(workload(), { alive, nodes, deadSinceMs: new Map() }), ['none', 'none', 'none', 'none']);
  });

  it('without volumes is made by exactly one node, after the guard', () => {
    const claims = kinds(workload()).filter((kind) => kind === 'claim');
    assert.equal(claims.length, 1);
    const early = kinds(workload(), { nowMs: 2_000 });
    assert.deepEqual(
      early.filter((kind) => kind !== 'none'),
      ['wait'],
    );
  });

  it('without volumes goes to a node that takes something', () => {
    const [first, second] = candidatesOf(workload(), facts(n2));
    assert.ok(first !== undefined && second !== undefined);
    const all = names.map((name) => [name, { cordoned: name === first, draining: false }] as const);
    assert.equal(followOf(workload(), facts(second, { nodes: new Map(all) })).kind, 'claim');
    assert.ok(!candidatesOf(workload(), facts(n2)).includes(n1));
  });

  it('without volumes goes to a node that has neither its name nor its ports, and to none if all have', () => {
    const published = (port: string) => ({
      spec: describeContainer(inspected({ hostConfig: { PortBindings: { '80/tcp': [{ HostPort: port }] } } }), noFacts)
        .spec,
    });
    const other = (node: NodeName, changes: Partial<WorkloadDoc> = {}) =>
      workload({ id: workloadIdFor(node.replace('n', 'a').repeat(32)), node, name: 'other', ...changes });
    const takers = (doc: WorkloadDoc, ...there: readonly WorkloadDoc[]) => {
      const workloadsOn = Map.groupBy([doc, ...there], ({ node }) => node);
      return names.flatMap((me) => {
        const follow = followOf(doc, facts(me, { workloadsOn }));
        return follow.kind === 'none' ? [] : [`${me} ${follow.kind}`];
      });
    };
    const doc = workload({ ...published('80') });
    const [first, second, third] = candidatesOf(doc, facts(n2)) as [NodeName, NodeName, NodeName];
    assert.deepEqual(takers(doc), [`${first} claim`]);
    const named = other(first, { name: doc.name });
    assert.deepEqual(takers(doc, named), [`${second} claim`]);
    const ported = other(second, published('80'));
    assert.deepEqual(takers(doc, named, ported), [`${third} claim`]);
    assert.deepEqual(takers(doc, named, { ...ported, wanted: 'stopped' }), [`${second} claim`]);
    assert.deepEqual(takers(doc, named, other(second, published('81'))), [`${second} claim`]);
    const all = [named, ported, other(third, published('80'))];
    assert.deepEqual(takers(doc, ...all), [`${first} refused`]);
    const refused = followOf(doc, facts(first, { workloadsOn: Map.groupBy(all, ({ node }) => node) }));
    assert.match('why' in refused ? refused.why : '', /no other node has room for it: there is another container/);
  });

  it('without volumes waits for people where the label says so, and while more than a third looks dead', () => {
    for (const failover of ['manual', 'none'] as const)
      assert.ok(kinds(workload({ failover })).every((kind) => kind === 'none'));
    const alive = new Set([n2, n3]);
    assert.ok(kinds(workload(), { alive }).every((kind) => kind === 'none'));
    const owned = kinds(withVolumes, { alive, owners: { app: n3, data: n3 } });
    assert.deepEqual(owned, ['none', 'none', 'claim', 'none'], 'the volume has decided');
  });

  it('stays where it is while its node lives, it is stopped, or it is part of a move', () => {
    const all = new Set(names);
    assert.ok(kinds(withVolumes, { alive: all, owners: { app: n3, data: n3 } }).every((kind) => kind === 'none'));
    for (const changes of [{ wanted: 'stopped' }, { move: '0badcafe' }] as const)
      assert.ok(
        kinds({ ...withVolumes, ...changes }, { owners: { app: n3, data: n3 } }).every((kind) => kind === 'none'),
      );
  });

  it('that can’t be made elsewhere says why, on the one node whose business it is', () => {
    const stuck = { ...withVolumes, obstacles: ['--device /dev/ttyUSB0: the device is this host’s'] };
    assert.deepEqual(kinds(stuck, { owners: { app: n3, data: n3 } }), ['none', 'none', 'refused', 'none']);
    const follow = followOf(stuck, facts(n3, { owners: { app: n3, data: n3 } }));
    assert.match('why' in follow ? follow.why : '', /n1 is dead.*--device/);
  });

  it('that was taken out of the cluster goes on elsewhere, or is forgotten', () => {
    const nodes = new Map([n2, n3, n4].map((name) => [name, { cordoned: false, draining: false }] as const));
    const gone = { nodes, deadSinceMs: new Map() };
    assert.equal(kinds(workload(), gone).filter((kind) => kind === 'claim').length, 1);
    const manual = workload({ failover: 'manual' });
    assert.equal(names.filter((me) => isLeftOver(manual, facts(me, gone))).length, 1);
    assert.equal(names.filter((me) => isLeftOver(workload(), facts(me, gone))).length, 0);
    assert.equal(names.filter((me) => isLeftOver(manual, facts(me))).length, 0, 'it may come back');
  });

  it('whose volume was given up is never started on an empty one, and is forgotten with the node', () => {
    const owners = { app: n3 };
    assert.ok(kinds(withVolumes, { owners }).every((kind) => kind === 'none'));
    const nodes = new Map([n2, n3, n4].map((name) => [name, { cordoned: false, draining: false }] as const));
    const gone = { nodes, deadSinceMs: new Map(), owners };
    assert.equal(names.filter((me) => isLeftOver(withVolumes, facts(me, gone))).length, 1);
    const both = { ...gone, owners: { app: n3, data: n3 } };
    assert.equal(names.filter((me) => isLeftOver(withVolumes, facts(me, both))).length, 0);
  });

  it('leaves its container behind to be put away, and takes up one that was', () => {
    const moved = placedOn(withVolumes, n3, null, 'left');
    assert.deepEqual(moved.former, [{ node: n1, containerId: withVolumes.containerId, why: 'left' }]);
    assert.deepEqual([moved.epoch, moved.node, moved.containerId], [2, n3, null]);
  });
});

describe('images of workloads', () => {
  it('are brought to where the volumes’ copies are', () => {
    const doc = workload({ volumes: [volume('data'), volume('app')] });
    const volumes = new Map([
      [volume('data').id, { owner: n1, replicas: [n2] }],
      [volume('app').id, { owner: n1, replicas: [n4, n2] }],
    ]);
    assert.deepEqual(imageNodesOf(doc, { ...facts(n2), volumes }), [n2, n4]);
    assert.deepEqual(imageNodesOf({ ...doc, obstacles: ['--gpus'] }, { ...facts(n2), volumes }), []);
  });

  it('of those without volumes, to the node that would make them', () => {
    const all = { ...facts(n2), alive: new Set(names), volumes: new Map() };
    assert.deepEqual(imageNodesOf(workload(), all), candidatesOf(workload(), all).slice(0, 1));
    assert.deepEqual(imageNodesOf(workload({ failover: 'none' }), all), []);
  });
});
