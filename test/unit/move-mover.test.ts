import assert from 'node:assert/strict';
import type { CopyEstimateView } from '../../controller/model/api.ts';
import { keys, type VolumeDoc } from '../../controller/model/cluster.ts';
import { isOver, type MoveDoc, type MoveStep } from '../../controller/model/move.ts';
import { pauseMsOf, summaryOf } from '../../controller/model/move-summary.ts';
import type { WorkloadDoc } from '../../controller/model/workload.ts';
import { askToTurnBack } from '../../controller/moves/aborting.ts';
import { containerId, moveDoc, volumeDoc, workload } from '../support/move-documents.ts';
import { createMoveWorld, type Fault, type MoveWorld } from '../support/move-world.ts';
import { gibi } from '../support/placement-nodes.ts';

const minuteMs = 60_000;
const gibibytes = (size: number, free: number) => ({ sizeBytes: size * gibi, freeBytes: free * gibi });
const made = ({ move }: Case) =>
  move.members.map((member) => ({ ...member, targetId: containerId(`${member.name}-n2`) }));

type Case = {
  readonly workloads: readonly WorkloadDoc[];
  readonly volumes: readonly VolumeDoc[];
  readonly move: MoveDoc;
};

/** A database and what follows it, with a volume each and one that both have. */
function group(change: Partial<MoveDoc> = {}): Case {
  const workloads = [
    workload('db', 'n1', { volumes: ['tables', 'shared'] }),
    workload('web', 'n1', { volumes: ['data', 'shared'], after: ['db'] }),
  ];
  return caseOf(workloads, change);
}

function caseOf(workloads: readonly WorkloadDoc[], change: Partial<MoveDoc> = {}): Case {
  const volumes = [...new Map(workloads.flatMap((one) => one.volumes).map((one) => [one.id, one])).values()];
  const members = workloads.map(({ id, name, containerId }) => {
    return { workload: id, name, sourceId: containerId ?? '', targetId: null };
  });
  const services = workloads.filter(({ wanted }) => wanted === 'running').flatMap(({ service }) => service ?? []);
  return {
    workloads,
    volumes: volumes.map(({ name }) => volumeDoc(name, 'n1')),
    move: moveDoc({ service: 'web', members, volumes, services, ...change }),
  };
}

type Run = {
  readonly faults?: readonly Fault[];
  readonly prepare?: (world: MoveWorld) => void;
  /** When the hosts are there, before the controllers begin. */
  readonly begun?: (world: MoveWorld) => void;
};

async function run(of: Case, { faults = [], prepare, begun }: Run = {}) {
  const world = createMoveWorld(faults);
  prepare?.(world);
  await world.begin(of, () => begun?.(world));
  await world.until('the move is over', () => isOver(world.move() ?? of.move));
  // What it leaves behind ends by then: pauses, controllers that begin again, proxies that tell.
  await world.pass(60_000);
  await world.end();
  return world;
}

function describeRun(world: MoveWorld, faults: readonly Fault[]): string {
  const what = faults.map(({ at, how }) => `${how} at ${at} (${world.calls[at]?.node} ${world.calls[at]?.what})`);
  return `${what.join(', ')}: ${stepsOf(world).join(' ')}; ${world.move()?.failure?.reason ?? 'done'}`;
}

/** Each call of a run, with each of these things going wrong at it. */
async function eachFault(
  hows: readonly Fault['how'][],
  check: (world: MoveWorld, context: string, of: Case) => void,
  prepare?: (world: MoveWorld) => void,
): Promise<void> {
  const plain = group();
  const { calls } = await run(plain, prepare === undefined ? {} : { prepare });
  for (let at = 0; at < calls.length; at += 1) {
    for (const how of hows) {
      const of = group();
      const faults = [{ at, how }];
      const world = await run(of, { faults, ...(prepare === undefined ? {} : { prepare }) });
      const context = describeRun(world, faults);
      if (process.env['SHOW']) console.log(context);
      checkEnd(world, of, context);
      check(world, context, of);
    }
  }
}

const stepsOf = (world: MoveWorld): readonly MoveStep[] => world.move()?.history.map(({ step }) => step) ?? [];
const wayThere: readonly MoveStep[] = [
  ...(['preparing', 'copying', 'pausing', 'draining', 'stopping', 'committing'] as const),
  ...(['starting', 'releasing', 'cleaning'] as const),
];

/** What must hold at the end of every move, whatever went wrong in it. */
function checkEnd(world: MoveWorld, of: Case, context: string): void {
  const move = world.move();
  assert.ok(move !== null && isOver(move), context);
  assert.deepEqual(world.problems, [], context);
  assert.deepEqual(world.paused(), [], `${context}: what waited goes on`);
  for (const doc of world.workloads()) {
    assert.equal(doc.move, null, `${context}: nothing is left claimed`);
    const places = world.runs(doc.name);
    assert.ok(
      places.every((place) => place === doc.node),
      `${context}: ${doc.name} runs on ${places}, belongs to ${doc.node}`,
    );
    assert.ok(places.length <= 1, context);
    assert.ok(doc.node === move.from || doc.node === move.to, context);
  }
  const homes = new Set([...world.workloads().map(({ node }) => node), ...world.volumes().map(({ owner }) => owner)]);
  assert.equal(homes.size, 1, `${context}: all of it is on one node`);
  assert.equal(move.step === 'done', move.failure === null, context);
  if (move.failure !== null) assert.ok(move.failure.reason !== '', `${context}: says why`);
  assert.equal(move.members.length, of.workloads.length, context);
}

/** Where nothing stays broken, the service runs at the end, where the record says, and nothing lies about. */
function checkServes(world: MoveWorld, context: string): void {
  const move = world.move();
  const home = move?.step === 'done' ? move.to : move?.from;
  for (const doc of world.workloads()) {
    assert.deepEqual(world.runs(doc.name), doc.wanted === 'running' ? [home] : [], `${context}: ${doc.name}`);
    assert.equal(doc.node, home, context);
  }
}

describe('moving containers', () => {
  it('goes through all steps, and everything is on the other node', async () => {
    const of = group();
    const world = await run(of);
    assert.deepEqual(stepsOf(world), wayThere);
    checkEnd(world, of, 'plain');
    checkServes(world, 'plain');
    assert.deepEqual(world.containers().toSorted(), ['db on n2', 'web on n2']);
    assert.deepEqual(
      world.volumes().map(({ owner, epoch }) => [owner, epoch]),
      [
        ['n2', 2],
        ['n2', 2],
        ['n2', 2],
      ],
    );
    assert.deepEqual(
      world.workloads().map(({ node, epoch, former }) => [node, epoch, former[0]?.node, former[0]?.why]),
      [
        ['n2', 2, 'n1', 'moved'],
        ['n2', 2, 'n1', 'moved'],
      ],
    );
    const started = world.calls.filter(({ what }) => what === 'start');
    assert.deepEqual(
      started.map(({ node }) => node),
      ['n2', 'n2'],
    );
    assert.match(summaryOf(world.move() ?? of.move), /^web from n1 to n2: \d+(\.\d)? m?s pause, 30 B sent$/);
    assert.equal(world.events.length, 1);
  });

  it('moves what has no volumes by a transaction of its own, and what does not run without starting it', async () => {
    const plain = caseOf([workload('web', 'n1')]);
    const world = await run(plain);
    assert.deepEqual(stepsOf(world), wayThere);
    checkServes(world, 'no volumes');
    assert.ok(!world.calls.some(({ what }) => what === 'hand-over'));

    const stopped = caseOf([workload('web', 'n1', { wanted: 'stopped', volumes: ['data'] })]);
    const other = await run(stopped);
    assert.deepEqual(stepsOf(other), wayThere);
    checkEnd(other, stopped, 'stopped');
    checkServes(other, 'stopped');
    assert.ok(!other.calls.some(({ what }) => ['start', 'stop', 'pause'].includes(what)));
  });

  it('holds requests that a route leads to which was made while its volumes were copied', async () => {
    const of = caseOf([workload('web', 'n1', { volumes: ['data'] })], { services: [] });
    const route = { kind: 'set', key: 'proxy/routes/shop', value: '{"service":"web","targetPort":80}' } as const;
    const prepare = (world: MoveWorld) => {
      world.onCall = (at) => {
        if (world.calls[at]?.what === 'copy') void world.store.transact([route]);
      };
    };
    const world = await run(of, { prepare });
    checkServes(world, 'a new route');
    assert.deepEqual(world.move()?.services, ['web']);
    const order = world.calls.map(({ what }) => what).filter((what) => ['pause', 'stop', 'release'].includes(what));
    assert.deepEqual(order, ['pause', 'stop', 'release']);
  });

  it('survives every call that is refused, goes unanswered, or at which a controller crashes', async function () {
    this.timeout(minuteMs);
    const ends = new Set<string>();
    await eachFault(['refused', 'unanswered', 'crash-before', 'crash-after'], (world, context) => {
      checkServes(world, context);
      ends.add(world.move()?.step ?? '');
    });
    assert.deepEqual([...ends].toSorted(), ['done', 'failed'], 'both ends were seen');
  });

  it('comes back from a target where nothing starts, whatever else goes wrong', async function () {
    this.timeout(minuteMs);
    const breaks = (world: MoveWorld) => world.broken.set('n2 start', 'port 80 is taken');
    const steps = new Set<MoveStep>();
    await eachFault(
      ['refused', 'unanswered', 'crash-before', 'crash-after'],
      (world, context) => {
        const move = world.move();
        assert.equal(move?.step, 'failed', context);
        for (const step of stepsOf(world)) steps.add(step);
        // Where even the second handover failed, the target keeps everything and goes on trying: that is its controller's work.
        if (world.workloads().every(({ node }) => node === 'n1')) checkServes(world, context);
        else assert.equal(stepsOf(world).at(-1), 'returning', context);
      },
      breaks,
    );
    assert.ok(steps.has('returning') && steps.has('restoring') && steps.has('resuming') && steps.has('clearing'));
  });

  it('ends, with one place and a reason, wherever a host dies', async function () {
    this.timeout(minuteMs);
    const reasons = new Set<string>();
    await eachFault(['death-before', 'death-after'], (world, context) => {
      const move = world.move();
      if (move?.failure != null) reasons.add(move.failure.reason);
      const dead = [...world.hosts.values()].filter((host) => host.isDead());
      assert.equal(dead.length, 1, context);
      const home = world.workloads()[0]?.node;
      const isHomeDead = dead.some(({ node }) => node === home);
      for (const { name } of world.workloads()) {
        const places = world.runs(name);
        assert.ok(
          places.length === 0 ? isHomeDead : places.length === 1 && places[0] === home,
          `${context}: ${places} of ${home}`,
        );
      }
    });
    assert.deepEqual([...reasons].toSorted(), ['n1 is dead', 'n2 is dead']);
  });

  it('ends with a reason wherever a controller goes for good, and is never committed to a node that has none', async function () {
    this.timeout(minuteMs);
    const reasons = new Set<string>();
    await eachFault(['gone-before', 'gone-after'], (world, context, of) => {
      const { step, failure, history, from, to } = world.move() ?? of.move;
      const gone = failure?.reason.match(/^the controller of (n\d) has gone$/)?.[1];
      if (gone !== undefined) reasons.add(`${gone === from ? 'source' : 'target'}, ${failure?.step}`);
      else assert.equal(step, 'done', context);
      const isBeforeStop = !history.some((line) => line.step === 'stopping');
      if (failure !== null && isBeforeStop) checkServes(world, context);
      if (gone === to && failure?.step !== 'starting') assert.deepEqual(world.runs('web'), [from], context);
    });
    const expected = ['preparing', 'copying', 'pausing', 'draining', 'stopping', 'committing', 'starting'];
    assert.deepEqual(
      [...new Set([...reasons].map((text) => text.split(', ')[1] ?? ''))].toSorted(),
      expected.toSorted(),
    );
  });

  it('turns back whenever it is asked to before the commit, and not afterwards', async function () {
    this.timeout(minuteMs);
    const { calls } = await run(group());
    const failures = new Set<string>();
    for (let at = 0; at < calls.length; at += 1) {
      const of = group();
      let answer: Promise<unknown> = Promise.resolve();
      const world = await run(of, {
        prepare: (one) => {
          one.onCall = (number) => {
            if (number === at) answer = askToTurnBack(one.store, of.move.id, 'lunch').catch((error: unknown) => error);
          };
        },
      });
      const context = `abort at ${at} (${world.calls[at]?.node} ${world.calls[at]?.what}): ${stepsOf(world).join(' ')}`;
      checkEnd(world, of, context);
      checkServes(world, context);
      const { step, failure } = world.move() ?? of.move;
      const said = await answer;
      if (said instanceof Error) assert.equal(step, 'done', context);
      else if (step === 'failed') {
        assert.equal(failure?.reason, 'turned back: lunch', context);
        failures.add(failure.step);
      }
    }
    for (const step of ['preparing', 'copying', 'pausing', 'draining', 'stopping']) assert.ok(failures.has(step), step);
  });

  it('bears a store without a leader for twenty seconds, from any call on', async function () {
    this.timeout(minuteMs);
    const { calls } = await run(group());
    for (let at = 0; at < calls.length; at += 1) {
      const of = group();
      const world = await run(of, {
        prepare: (one) => {
          one.onCall = (number) => {
            if (number !== at) return;
            one.memory.loseLeader();
            one.scheduler.after(20_000, () => one.memory.electLeader());
          };
        },
      });
      const context = `no leader from ${at} (${world.calls[at]?.node} ${world.calls[at]?.what}) on: ${stepsOf(world).join(' ')}; ${world.move()?.failure?.reason ?? 'done'}`;
      if (process.env['SHOW']) console.log(context);
      checkEnd(world, of, context);
      checkServes(world, context);
    }
  });

  it('waits for the election of the store’s leader at the commit, as it has to before it could turn back', async () => {
    const { calls } = await run(group());
    const at = calls.findIndex(({ what }) => what === 'hand-over');
    const world = await run(group(), {
      prepare: (one) => {
        one.onCall = (number) => {
          if (number !== at) return;
          one.memory.loseLeader();
          one.scheduler.after(8_000, () => one.memory.electLeader());
        };
      },
    });
    assert.deepEqual([...stepsOf(world), world.move()?.step], [...wayThere, 'done'], world.move()?.failure?.reason);
    checkServes(world, 'elected');
  });

  it('comes back in time from a target that starts too slowly', async () => {
    for (const startMs of [31_000, 35_000, 200_000]) {
      for (const given of [group(), caseOf([workload('web', 'n1')])]) {
        const world = await run(given, { prepare: (one) => one.startMs.set('n2', startMs) });
        const context = `${startMs} ms: ${stepsOf(world).join(' ')}; ${world.move()?.failure?.reason}`;
        assert.equal(world.move()?.step, 'failed', context);
        checkEnd(world, given, context);
        checkServes(world, context);
        assert.equal(world.move()?.failure?.step, 'starting', context);
      }
    }
  });

  it('says what a target lacks', async () => {
    const of = group();
    const letThrough: string[] = [];
    const world = await run(of, {
      prepare: (one) => {
        one.broken.set('n2 reach', '');
        one.onCall = (at) => {
          const call = one.calls[at];
          const isServed = one.runs('web').length > 0 && one.runs('db').length > 0;
          if (call !== undefined && !isServed && one.paused().length < 2) letThrough.push(`${call.node} ${call.what}`);
        };
      },
    });
    assert.deepEqual(letThrough, [], 'nobody is let through before all run again');
    checkEnd(world, of, 'not ready');
    checkServes(world, 'not ready');
    const { failure } = world.move() ?? of.move;
    assert.equal(failure?.step, 'starting');
    assert.match(failure.reason, /container (db|web) is not ready in time: it takes no connections on port 80/);
    const pauseMs = pauseMsOf(world.move() ?? of.move) ?? 0;
    assert.ok(pauseMs < of.move.limits.pauseMs, `${pauseMs} ms`);
  });

  it('turns back before anything stands still where a person has changed a container meanwhile', async () => {
    const change = (world: MoveWorld) => {
      const containers = world.hosts.get('n1')?.containers;
      for (const [id, container] of containers ?? []) {
        const { spec } = container.workload;
        const create = { ...spec.create, HostConfig: { Memory: 1 } };
        if (container.name === 'db')
          containers?.set(id, { ...container, workload: { ...container.workload, spec: { ...spec, create } } });
      }
    };
    for (const [when, step] of [
      ['image', 'copying'],
      ['copy', 'pausing'],
    ] as const) {
      const of = group();
      const world = await run(of, {
        prepare(one) {
          one.onCall = (at) => void (one.calls[at]?.what === when && change(one));
        },
      });
      checkEnd(world, of, `changed at ${when}`);
      checkServes(world, `changed at ${when}`);
      assert.equal(world.move()?.failure?.step, step);
      assert.match(world.move()?.failure?.reason ?? '', /container db was changed meanwhile .* move it again/);
      assert.equal(world.move()?.pausedAtMs, null);
      assert.ok(!world.calls.some(({ what }) => what === 'pause' || what === 'stop'));
    }
  });

  it('waits for no port that took no connections before, unless none did', async () => {
    const odd = caseOf([workload('web', 'n1', { volumes: ['data'], spec: { ports: [80, 81] } })]);
    const moved = await run(odd, { prepare: (one) => one.broken.set('reach 81', '') });
    checkEnd(moved, odd, 'nothing listens at port 81');
    assert.equal(moved.move()?.step, 'done', moved.move()?.failure?.reason);
    assert.deepEqual(moved.move()?.members[0]?.closedPorts, [81]);
    const deaf = caseOf([workload('web', 'n1', { volumes: ['data'], spec: { ports: [81] } })]);
    const back = await run(deaf, { prepare: (one) => one.broken.set('reach 81', '') });
    checkEnd(back, deaf, 'nothing listens at all');
    assert.match(back.move()?.failure?.reason ?? '', /takes no connections on port 81/);
  });

  it('waits for no health check that had failed before, on neither side', async () => {
    for (const [closed, ports] of [
      [[], ''],
      [[80], 'reach 80'],
    ] as const) {
      const ill = caseOf([workload('web', 'n1', { volumes: ['data'], spec: { ports: [80] } })]);
      const moved = await run(ill, {
        prepare(one) {
          one.broken.set('check web', '');
          if (ports !== '') one.broken.set(ports, '');
        },
      });
      checkEnd(moved, ill, `the check had failed; ${ports}`);
      assert.equal(moved.move()?.step, 'done', moved.move()?.failure?.reason);
      const { closedPorts, isUnhealthy } = moved.move()?.members[0] ?? {};
      assert.deepEqual({ closedPorts, isUnhealthy }, { closedPorts: closed, isUnhealthy: true });
    }
    const of = caseOf([workload('web', 'n1', { volumes: ['data'], spec: { ports: [80] } })]);
    const back = await run(of, {
      prepare(one) {
        one.broken.set('check web', '');
        one.broken.set('n2 reach', '');
      },
    });
    checkEnd(back, of, 'the check had failed, and the target does not serve');
    checkServes(back, 'the check had failed, and the target does not serve');
    assert.match(back.move()?.failure?.reason ?? '', /takes no connections on port 80/);
    assert.match(stepsOf(back).join(' '), /restoring/);
    assert.ok(
      back.move()?.history.some(({ step, note }) => step === 'restoring' && /1 container ready/.test(note)),
      JSON.stringify(back.move()?.history),
    );
  });

  it('refuses what it finds only on the hosts before anything stands still', async () => {
    const published = { create: { HostConfig: { PortBindings: { '80/tcp': [{ HostIp: '', HostPort: '80' }] } } } };
    const of = caseOf([workload('web', 'n1', { volumes: ['data'], spec: published })]);
    const stranger = { ...workload('stranger', 'n2', { spec: published }), id: workload('x', 'n2').id };
    const cases = [
      {
        on: 'n2',
        container: { id: 'stranger', name: 'stranger', workload: stranger, running: true, exitCode: 0 },
        reason: /web publishes port 80\/tcp, which container stranger has on n2/,
      },
      {
        on: 'n1',
        container: {
          id: 'side',
          name: 'side',
          workload: workload('side', 'n1'),
          networkMode: `container:${of.workloads[0]?.containerId}`,
          running: true,
          exitCode: 0,
        },
        reason: /side is in the network of web/,
      },
    ];
    for (const { on, container, reason } of cases) {
      const world = await run(of, {
        begun: (one) => void one.host(on).containers.set(container.id, container),
      });
      assert.match(world.move()?.failure?.reason ?? '', reason);
      checkEnd(world, of, String(reason));
      checkServes(world, String(reason));
      assert.ok(!world.calls.some(({ what }) => what === 'stop' || what === 'pause'), 'nothing stood still');
    }
  });

  it('sends nothing to a target that has no room for it', async () => {
    const of = group();
    const space = { kind: 'set', key: keys.space(of.move.to), value: JSON.stringify(gibibytes(100, 25)) } as const;
    const begun = (one: MoveWorld) => void one.store.transact([space]);
    const coming = (estimate: CopyEstimateView) => ({
      begun,
      prepare(one: MoveWorld) {
        one.coming = estimate;
      },
    });
    // Three volumes.
    const full = await run(of, coming({ hasCopy: false, bytes: 7 * gibi }));
    checkEnd(full, of, 'no room');
    checkServes(full, 'no room');
    const { step, reason = '' } = full.move()?.failure ?? {};
    assert.equal(step, 'copying');
    assert.match(
      reason,
      /n2 has no room for the 21 GiB that come: 25 GiB are free in its pool, and 27.3 GiB are needed/,
    );
    assert.ok(!full.calls.some(({ what }) => what === 'copy'), 'nothing was sent');
    for (const estimate of [
      { hasCopy: false, bytes: 6 * gibi },
      { hasCopy: false, bytes: null },
      { hasCopy: true, bytes: 60 * gibi },
    ])
      assert.equal((await run(of, coming(estimate))).move()?.step, 'done', JSON.stringify(estimate));
    // Somebody had to go on with it: of what is free now, the beginning of this move has taken its part.
    const progress = { sentBytes: 14 * gibi, totalBytes: 21 * gibi, bytesPerSecond: 1 };
    const later = { ...of, move: { ...of.move, step: 'copying' as const, members: made(of), progress } };
    assert.doesNotMatch(
      (await run(later, coming({ hasCopy: false, bytes: 7 * gibi }))).move()?.failure?.reason ?? '',
      /room/,
    );
  });
});
