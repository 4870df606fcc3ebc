import assert from 'node:assert/strict';
import { formatDrained, isStuck } from '../../controller/cli/drain-commands.ts';
import { type DrainFacts, decideDrain, viewDrain } from '../../controller/model/drain.ts';
import { type MoveDoc, moveIdSchema } from '../../controller/model/move.ts';
import { limitsFor } from '../../controller/model/move-plan.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import type { WorkloadDoc } from '../../controller/model/workload.ts';
import { moveDoc, planNode, volumeDoc, workload } from '../support/move-documents.ts';

const n1 = parseNodeName('n1');
const nodes = [planNode('n1', { cordoned: true, draining: true }), planNode('n2'), planNode('n3')];

const factsOf = (change: Partial<DrainFacts> = {}): DrainFacts => ({
  workloads: [],
  volumes: [],
  nodes,
  routed: new Set(),
  moves: [],
  nowMs: 1_000_000,
  ...change,
});
const decided = (change: Partial<DrainFacts>) => {
  const { moves, volumes } = decideDrain(n1, factsOf(change));
  return {
    moves: moves.map(({ group, to }) => `${group.map(({ name }) => name).join('+')} to ${to}`),
    volumes: volumes.map(({ volume, to }) => `${volume.name} to ${to}`),
  };
};
const viewed = (change: Partial<DrainFacts>) => viewDrain(n1, factsOf(change), { startedAtMs: 5, problems: [] });

let number = 0;
function moveOf(of: WorkloadDoc, change: Partial<MoveDoc> = {}): MoveDoc {
  number += 1;
  const members = [{ workload: of.id, name: of.name, sourceId: of.containerId ?? '', targetId: null }];
  const id = moveIdSchema.parse(String(number).padStart(8, '0'));
  return moveDoc({ id, service: of.name, members, volumes: of.volumes, cause: 'drain', ...change });
}

describe('draining a node', () => {
  const web = workload('web', 'n1', { volumes: ['data'] });
  const db = workload('db', 'n1', { volumes: ['tables'] });
  const log = workload('log', 'n1');
  const volumes = [volumeDoc('data', 'n1', { replicas: ['n2'] }), volumeDoc('tables', 'n1', { replicas: ['n3'] })];

  it('moves groups to where their copies are, two at once', () => {
    const beside = workload('beside', 'n1', { volumes: ['data'] });
    const workloads = [web, db, log, beside, workload('else', 'n2')];
    assert.deepEqual(decided({ workloads, volumes }).moves, ['web+beside to n2', 'db to n3']);
    const moving = [moveOf(db, { to: parseNodeName('n3') })];
    assert.deepEqual(decided({ workloads, volumes, moves: moving }).moves, ['web+beside to n2']);
    const both = [...moving, moveOf(log)];
    assert.deepEqual(decided({ workloads, volumes, moves: both }), { moves: [], volumes: [] });
  });

  it('waits a minute after a failure, and then tries another node first', () => {
    const failure = { step: 'starting', reason: 'port 80 is taken' } as const;
    const at = (ago: number) => [moveOf(web, { step: 'failed', failure, stepSinceMs: 1_000_000 - ago })];
    assert.deepEqual(decided({ workloads: [web], volumes, moves: at(30_000) }).moves, []);
    assert.match(
      viewed({ workloads: [web], volumes, moves: at(30_000) }).containers[0]?.state ?? '',
      /^waiting: tried again in a minute, move \d+ has failed: port 80 is taken$/,
    );
    assert.deepEqual(decided({ workloads: [web], volumes, moves: at(61_000) }).moves, ['web to n3']);
    const alone = nodes.slice(0, 2);
    assert.deepEqual(decided({ workloads: [web], volumes, nodes: alone, moves: at(61_000) }).moves, ['web to n2']);
  });

  it('stops no service again and again where it can’t run', () => {
    const failure = { step: 'starting', reason: 'port 80 is taken' } as const;
    const stopping = { step: 'stopping', node: n1, startedAtMs: 1, ms: 1, note: '' } as const;
    const failed = (to: string, ago: number) =>
      moveOf(web, {
        ...{ step: 'failed', failure, history: [stopping] },
        ...{ to: parseNodeName(to), stepSinceMs: 1_000_000 - ago },
      });
    const facts = (moves: readonly MoveDoc[]) => ({ workloads: [web], volumes, moves });
    assert.deepEqual(decided(facts([failed('n2', 61_000)])).moves, ['web to n3'], 'it may run there');
    const both = facts([failed('n2', 130_000), failed('n3', 61_000)]);
    assert.deepEqual(decided(both).moves, []);
    const { containers, problems } = viewed(both);
    assert.match(
      containers[0]?.state ?? '',
      /^blocked: move \d+ to n3 has stopped it and failed: port 80 is taken; tried again 10m after/,
    );
    assert.equal(problems.length, 1);
    assert.ok(isStuck(viewed({ ...both, volumes: volumes.slice(0, 1) })), 'people have to look at it');
    assert.deepEqual(decided(facts([failed('n2', 601_000), failed('n3', 61_000)])).moves, ['web to n2']);
  });

  it('gives a long stop its time', () => {
    const slow = workload('slow', 'n1', { spec: { stopSeconds: 60 } });
    assert.deepEqual(decided({ workloads: [slow] }).moves.length, 1);
    assert.equal(limitsFor([slow]).pauseMs, 78_000, 'and requests that run theirs');
    assert.equal(limitsFor([slow, web]).pauseMs, 88_000);
    assert.equal(limitsFor([web]).pauseMs, 30_000);
    const never = workload('never', 'n1', { spec: { stopSeconds: 86_400 } });
    assert.match(
      viewed({ workloads: [never] }).containers[0]?.state ?? '',
      /^blocked: .*it needs a shorter --stop-timeout/,
    );
  });

  it('hands over what nothing uses when no move is left, and leaves stopped containers', () => {
    const stopped = { ...db, wanted: 'stopped' as const };
    const all = [...volumes, volumeDoc('idle', 'n1', { replicas: ['n3'] }), volumeDoc('other', 'n2')];
    assert.deepEqual(decided({ workloads: [web, stopped], volumes: all }).volumes, []);
    assert.deepEqual(decided({ workloads: [stopped], volumes: all }).volumes, [
      'data to n2',
      'tables to n3',
      'idle to n3',
    ]);
    const { containers, done } = viewed({ workloads: [stopped], volumes: [] });
    assert.deepEqual(containers, [{ name: 'db', state: 'stopped, stays' }]);
    assert.ok(done, 'it may be rebooted');
  });

  it('hands a volume over to another node where that has failed lately, as long as there is one', () => {
    const all = [volumeDoc('idle', 'n1', { replicas: ['n3'] })];
    const failed = (...names: readonly string[]) =>
      decided({
        workloads: [],
        volumes: all,
        failedTargets: new Map(all.map(({ id }) => [id, new Set(names.map(parseNodeName))])),
      }).volumes;
    assert.deepEqual(failed(), ['idle to n3']);
    assert.deepEqual(failed('n3'), ['idle to n2']);
    assert.deepEqual(failed('n2', 'n3'), ['idle to n3']);
  });

  it('goes on with volumes where containers can’t go, and says why they can’t', () => {
    const tied = { ...web, obstacles: ['--device /dev/x: the device is this host’s'] };
    const all = [...volumes, volumeDoc('idle', 'n1', { replicas: ['n3'] })];
    assert.deepEqual(decided({ workloads: [tied], volumes: all }), {
      moves: [],
      volumes: ['tables to n3', 'idle to n3'],
    });
    const { containers, volumes: shown, problems, done } = viewed({ workloads: [tied], volumes: all });
    assert.match(containers[0]?.state ?? '', /^blocked: .*--device/);
    assert.deepEqual(
      shown.map(({ name, state }) => `${name} ${state}`),
      ['data goes with its container', 'tables goes to n3', 'idle goes to n3'],
    );
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', /^web: container web: --device/);
    assert.ok(!done);
  });

  it('says why copies stay', () => {
    const dc = (name: string, where: string) => planNode(name, { labels: { dc: where } });
    const copied = ['data', 'log'].map((name) => volumeDoc(name, 'n2', { replicas: ['n1'] }));
    const view = viewed({
      nodes: [{ ...dc('n1', 'east'), cordoned: true, draining: true }, dc('n2', 'east'), dc('n3', 'west')],
      volumes: copied,
    });
    assert.equal(view.problems.length, 1);
    assert.match(
      view.problems[0] ?? '',
      /^the copies of data, log stay: 1 of 1 local copies has no place: no more nodes in data center east/,
    );
    assert.deepEqual(viewed({ volumes: copied }).problems, [], 'n3 gets them');
    assert.ok(!view.done);
  });

  it('is over when nothing is left: no container, volume or copy', () => {
    const copied = viewed({ volumes: [volumeDoc('data', 'n2', { replicas: ['n1'] })] });
    assert.deepEqual([copied.copies, copied.done], [['data'], false]);
    const trashed = volumeDoc('old', 'n1', { trashed: { removedAtMs: 1, expiresAtMs: 2 } });
    const empty = viewed({ volumes: [trashed, volumeDoc('data', 'n2', { replicas: ['n3'] })] });
    assert.ok(empty.done);
    assert.deepEqual([empty.problems, empty.stays], [[], ['1 removed volume in its trash']]);
    const rested = viewed({ workloads: [workload('old', 'n1', { wanted: 'stopped' })] });
    assert.deepEqual([rested.done, rested.stays], [true, ['container old, which is stopped']]);
    assert.match(formatDrained({ ...empty, stays: [] }), /may be rebooted or removed/);
    const said = formatDrained({ ...empty, stays: Array.from({ length: 25 }, (_, index) => `stash ${index} of db`) });
    assert.match(
      said,
      /may be rebooted\.[\s\S]*Before "flockctl node rm", or it is gone[\s\S]*stash 19 of db\n {2}and 5 more/,
    );
    assert.equal(
      viewed({ workloads: [web], volumes, moves: [moveOf(web)] }).containers[0]?.state,
      'moving: to n2, preparing',
    );
  });

  it('is stuck when only people can help, and not while anything is on its way', () => {
    const tied = workload('tied', 'n1', { obstacles: ['--device /dev/x'] });
    assert.equal(isStuck(viewed({ workloads: [tied] })), true);
    assert.equal(isStuck(viewed({ workloads: [tied, web], volumes })), false);
    const copies = [volumeDoc('far', 'n2', { replicas: ['n1'] })];
    assert.equal(isStuck(viewed({ workloads: [tied], volumes: copies })), false);
    assert.equal(isStuck(viewed({})), false);
    const few = nodes.slice(0, 2);
    assert.equal(isStuck(viewed({ volumes: copies, nodes: few })), true, 'there is no other place for the copy');
    assert.equal(isStuck(viewed({ volumes: [...copies, ...volumes], nodes: few, workloads: [web] })), false);
  });
});
