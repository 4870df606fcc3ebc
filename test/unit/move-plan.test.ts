import assert from 'node:assert/strict';
import { moveLimitsDefault } from '../../controller/model/move.ts';
import { drainMsOf, type PlanFacts, planMove, planWarnings } from '../../controller/model/move-plan.ts';
import { chooseTarget, chooseVolumeTarget } from '../../controller/model/move-target.ts';
import { containerId, facts, planNode, volumeDoc, workload } from '../support/move-documents.ts';
import { gibi } from '../support/placement-nodes.ts';
import { refuses } from '../support/refuses.ts';

const plan = (change: Partial<PlanFacts> = {}, service = 'web', to = 'n2', limits: object = {}) =>
  planMove({ service, to, limits: { ...moveLimitsDefault, ...limits } }, facts(change));
const namesOf = (of: ReturnType<typeof plan>) => of.workloads.map(({ name }) => name);
const obstaclesOf = (change: Partial<PlanFacts>, to = 'n2', limits: object = {}) =>
  plan(change, 'web', to, limits).obstacles;

const publishing = (inner: string, HostPort: string, HostIp = '') => ({
  create: { HostConfig: { PortBindings: { [inner]: [{ HostIp, HostPort }] } } },
});

describe('the plan of a move', () => {
  it('of one service with a volume has nothing in its way', () => {
    const found = plan();
    assert.deepEqual([found.from, found.to, namesOf(found), found.services], ['n1', 'n2', ['web'], ['web']]);
    assert.deepEqual(
      found.volumes.map(({ name }) => name),
      ['data'],
    );
    assert.deepEqual(found.obstacles, []);
  });

  it('finds a container by its name, its id, and the beginning of it', () => {
    const workloads = [workload('web-1', 'n1', { service: 'web' }), workload('web-2', 'n2', { service: 'web' })];
    assert.deepEqual(namesOf(plan({ workloads }, 'web-2', 'n3')), ['web-2']);
    assert.deepEqual(namesOf(plan({ workloads }, containerId('web-1-n1').slice(0, 12))), ['web-1']);
    assert.deepEqual(namesOf(plan({ workloads }, workloads[0]?.id)), ['web-1']);
    refuses(() => plan({ workloads }, containerId('web-1-n1').slice(0, 6)), 'service-not-found');
  });

  it('refuses names that mean nothing, and says what is near', () => {
    assert.match(refuses(() => plan({}, 'wbe'), 'service-not-found').message, /did you mean web\?/);
    assert.match(refuses(() => plan({}, 'shop'), 'service-not-found').message, /there are web$/);
    assert.match(refuses(() => plan({ workloads: [] }), 'service-not-found').message, /there is none/);
    assert.match(refuses(() => plan({}, 'web', 'n4'), 'node-not-found').message, /did you mean n1/);
  });

  it('moves like containers of one node together, and asks which where they are on several', () => {
    const two = [workload('web-1', 'n1', { service: 'web' }), workload('web-2', 'n1', { service: 'web' })];
    assert.deepEqual(namesOf(plan({ workloads: two })), ['web-1', 'web-2']);
    const apart = [workload('web-1', 'n1', { service: 'web' }), workload('web-2', 'n2', { service: 'web' })];
    const error = refuses(() => plan({ workloads: apart }, 'web', 'n3'), 'move-refused');
    assert.match(error.message, /web-1 \([0-9a-f]{12}\) on n1, web-2 \([0-9a-f]{12}\) on n2/);
    const stopped = [apart[0], { ...apart[1], wanted: 'stopped' }] as typeof apart;
    assert.deepEqual(namesOf(plan({ workloads: stopped })), ['web-1'], 'the one that runs is meant');
  });

  it('takes along what shares volumes or must run before or after, in the order of their start', () => {
    const workloads = [
      workload('sidecar', 'n1', { after: ['web'] }),
      workload('backup', 'n1', { volumes: ['dump', 'data'] }),
      workload('web', 'n1', { volumes: ['data'], after: ['db'] }),
      workload('db', 'n1', { volumes: ['tables'] }),
      workload('other', 'n1', { volumes: ['else'] }),
      workload('far', 'n2', { volumes: ['data'] }),
    ];
    const volumes = ['data', 'dump', 'tables', 'else'].map((name) => volumeDoc(name, 'n1'));
    const found = plan({ workloads, volumes, routed: new Set(['web', 'db', 'other']) });
    assert.deepEqual(namesOf(found), ['backup', 'db', 'web', 'sidecar']);
    assert.deepEqual(found.volumes.map(({ name }) => name).toSorted(), ['data', 'dump', 'tables']);
    assert.deepEqual(found.services, ['db', 'web']);
    assert.deepEqual(found.obstacles, []);
    assert.deepEqual(namesOf(plan({ workloads, volumes }, 'db')), namesOf(found), 'whichever of them is named');
  });

  it('orders a circle somehow', () => {
    const workloads = [workload('web', 'n1', { after: ['b'] }), workload('b', 'n1', { after: ['web'] })];
    assert.deepEqual(namesOf(plan({ workloads })).toSorted(), ['b', 'web']);
  });

  it('pauses what runs and has routes, nothing else', () => {
    const workloads = [
      workload('web', 'n1', { volumes: ['data'] }),
      workload('old', 'n1', { volumes: ['data'], wanted: 'stopped' }),
      workload('none', 'n1', { volumes: ['data'], service: null }),
    ];
    assert.deepEqual(plan({ workloads, routed: new Set(['web', 'old']) }).services, ['web']);
    assert.deepEqual(plan({ workloads, routed: new Set() }).services, []);
  });

  it('leaves out what only a stopped container has, and a drain has handed to another node', () => {
    const workloads = [
      workload('web', 'n1', { volumes: ['data'] }),
      workload('old', 'n1', { volumes: ['data', 'dump'], wanted: 'stopped' }),
    ];
    const volumes = [volumeDoc('data', 'n1'), volumeDoc('dump', 'n3')];
    const found = plan({ workloads, volumes });
    assert.deepEqual(namesOf(found).toSorted(), ['old', 'web']);
    assert.deepEqual(
      found.volumes.map(({ name }) => name),
      ['data'],
    );
    assert.deepEqual(found.obstacles, []);
    const running = workloads.map((one) => ({ ...one, wanted: 'running' as const }));
    assert.deepEqual(plan({ workloads: running, volumes }).obstacles, ['volume dump belongs to n3, not to n1']);
  });

  const named: readonly (readonly [string, Partial<PlanFacts>, RegExp, string?, object?])[] = [
    ['the same node', {}, /^it is on n1 already$/, 'n1'],
    [
      'a target without a controller',
      { nodes: [planNode('n1'), planNode('n2', { controller: false })] },
      /^the controller of n2 is not at work: "docker ps/,
    ],
    [
      'a source without a controller',
      { nodes: [planNode('n1', { controller: false }), planNode('n2')] },
      /^the controller of n1 is not at work/,
    ],
    ['a dead target', { nodes: [planNode('n1'), planNode('n2', { alive: false })] }, /^n2 is dead/],
    [
      'a dead source',
      { nodes: [planNode('n1', { alive: false }), planNode('n2')] },
      /n1, where it is, is dead.*failover/,
    ],
    ['a cordoned target', { nodes: [planNode('n1'), planNode('n2', { cordoned: true })] }, /cordoned.*uncordon n2/],
    [
      'a draining target',
      { nodes: [planNode('n1'), planNode('n2', { cordoned: true, draining: true })] },
      /being drained.*undrain n2/,
    ],
    ['another format', { nodes: [planNode('n1'), planNode('n2', { format: 'btrfs' })] }, /btrfs, n1 on zfs/],
    [
      'what keeps a container here',
      { workloads: [workload('web', 'n1', { obstacles: ['--device /dev/x'] })] },
      /^container web: --device/,
    ],
    ['another move', { workloads: [workload('web', 'n1', { move: '12345678' })] }, /moves show 12345678/],
    ['a volume of another node', { volumes: [volumeDoc('data', 'n3')] }, /^volume data belongs to n3, not to n1$/],
    [
      'a container that is not there yet',
      { workloads: [workload('web', 'n1', { containerId: null })] },
      /has still to be made on n1/,
    ],
    ['an unknown volume', { volumes: [] }, /does not know volume data/],
    [
      'a volume in the trash',
      { volumes: [volumeDoc('data', 'n1', { trashed: { removedAtMs: 1, expiresAtMs: 2 } })] },
      /in the trash/,
    ],
    ['the nodes of a volume', { volumes: [volumeDoc('data', 'n1', { options: { nodes: 'n1,n3' } })] }, /n1, n3 only/],
    [
      'the locality of a volume',
      { volumes: [volumeDoc('data', 'n1', { options: { locality: 'disk=ssd' } })] },
      /disk=ssd/,
    ],
    [
      'a slow stop',
      { workloads: [workload('web', 'n1', { spec: { stopSeconds: 40 } })] },
      /40s to stop.*30s: use --timeout 45s/,
    ],
    [
      'a stop that no pause bears',
      { workloads: [workload('web', 'n1', { spec: { stopSeconds: 120 } })] },
      /no pause is longer than 2m/,
    ],
    [
      'a name that is taken',
      { workloads: [workload('web', 'n1'), workload('web', 'n2', { service: 'x' })] },
      /another container web on n2/,
    ],
    [
      'a port of the host that is taken',
      {
        workloads: [
          workload('web', 'n1', { spec: publishing('80/tcp', '8080') }),
          workload('old', 'n2', { spec: publishing('8080/tcp', '8080') }),
        ],
      },
      /web publishes port 8080\/tcp, which container old has on n2/,
    ],
    [
      'too many at once',
      { workloads: Array.from({ length: 60 }, (_, index) => workload(`w${index}`, 'n1', { service: 'web' })) },
      /60 containers with 0 volumes hang together/,
    ],
  ];
  for (const [what, change, pattern, to, limits] of named) {
    it(`names ${what}`, () => {
      const obstacles = obstaclesOf(change, to, limits);
      assert.equal(obstacles.length, 1, obstacles.join('; '));
      assert.match(obstacles[0] ?? '', pattern);
    });
  }

  it('warns of a pause that is longer than a request waits', () => {
    const asked = (pauseMs: number) => planWarnings(plan({}, 'web', 'n2', { pauseMs }));
    assert.deepEqual(asked(30_000), []);
    assert.match(asked(60_000).join(), /may last 1m, but no request waits longer than 30s/);
    assert.deepEqual(planWarnings({ ...plan({}, 'web', 'n2', { pauseMs: 60_000 }), services: [] }), []);
  });

  it('has nothing against other ports, addresses and protocols, nor what does not run or may have any port', () => {
    const web = workload('web', 'n1', { spec: publishing('80/tcp', '8080', '10.0.0.1') });
    const others = [
      publishing('80/tcp', '8081'),
      publishing('80/udp', '8080'),
      publishing('80/tcp', ''),
      publishing('80/tcp', '8080', '10.0.0.2'),
      publishing('80/tcp', '8080', '::'),
      { create: { HostConfig: { ...publishing('80/tcp', '8080').create.HostConfig, NetworkMode: 'none' } } },
    ].map((spec, index) => workload(`other${index}`, 'n2', { spec }));
    const stopped = workload('stopped', 'n2', { wanted: 'stopped', spec: publishing('80/tcp', '8080') });
    assert.deepEqual(obstaclesOf({ workloads: [web, ...others, stopped] }), []);
  });

  it('has nothing against a slow stop of what does not run, nor against another format without volumes', () => {
    const workloads = [workload('web', 'n1', { wanted: 'stopped', spec: { stopSeconds: 400 } })];
    const nodes = [planNode('n1'), planNode('n2', { format: 'btrfs' })];
    assert.deepEqual(obstaclesOf({ workloads, nodes }), []);
  });

  it('names every obstacle at once', () => {
    const workloads = [workload('web', 'n1', { volumes: ['data'], obstacles: ['a', 'b'] })];
    assert.equal(obstaclesOf({ workloads, volumes: [] }).length, 3);
  });

  it('refuses times out of their range', () => {
    for (const limits of [{ pauseMs: 1_000 }, { pauseMs: 121_000 }, { drainMs: 31_000 }])
      refuses(() => plan({}, 'web', 'n2', limits), 'invalid-option');
    for (const ms of [0, -1_000, 999, 21 * 86_400_000, Number.NaN])
      for (const [name, option] of [['prepareMs', 'prepareMs'] as const, ['copyMs', '--copy-timeout'] as const])
        assert.match(
          refuses(() => plan({}, 'web', 'n2', { [name]: ms }), 'invalid-option').message,
          new RegExp(`can't be: use from 1s to 20d \\(${option}\\)$`),
        );
    for (const ms of [1_000, 20 * 86_400_000])
      assert.deepEqual(plan({}, 'web', 'n2', { prepareMs: ms, copyMs: ms }).obstacles, []);
  });

  it('leaves what the longest stop needs when it drains, half of the pause at most', () => {
    const limits = { ...moveLimitsDefault, pauseMs: 30_000, drainMs: 20_000 };
    const drainOf = (stopSeconds: number) => drainMsOf(limits, [workload('web', 'n1', { spec: { stopSeconds } })]);
    assert.deepEqual([drainOf(1), drainOf(20), drainOf(25)], [15_000, 5_000, 0]);
  });
});

describe('the target of a drain', () => {
  const workloads = [workload('web', 'n1', { volumes: ['data'] })];
  const choice = (change: Partial<PlanFacts>) =>
    chooseTarget(workloads, moveLimitsDefault, facts({ workloads, ...change }));
  const nodes = (...changes: readonly Parameters<typeof planNode>[1][]) => [
    planNode('n1', { cordoned: true, draining: true }),
    ...changes.map((change, index) => planNode(`n${index + 2}`, change)),
  ];
  const space = (freeBytes: number) => ({ space: { sizeBytes: 1000 * gibi, freeBytes } });

  it('has copies of all volumes where one has', () => {
    for (const owner of ['n2', 'n3'])
      assert.deepEqual(choice({ nodes: nodes({}, {}), volumes: [volumeDoc('data', 'n1', { replicas: [owner] })] }), {
        node: owner,
      });
  });

  it('has the most room otherwise, and is spread where rooms are alike', () => {
    const volumes = [volumeDoc('data', 'n1')];
    assert.deepEqual(choice({ nodes: nodes(space(300 * gibi), space(900 * gibi)), volumes }), { node: 'n3' });
    const several = Array.from({ length: 20 }, (_, index) => workload(`w${index}`, 'n1'));
    const chosen = several.map(
      (one) => chooseTarget([one], moveLimitsDefault, facts({ workloads: several, nodes: nodes({}, {}) })).node,
    );
    assert.deepEqual([...new Set(chosen)].toSorted(), ['n2', 'n3']);
  });

  it('has a pool that is not full, unless it has copies of all volumes', () => {
    const volumes = [volumeDoc('data', 'n1')];
    assert.deepEqual(choice({ nodes: nodes(space(45 * gibi), space(55 * gibi)), volumes }), { node: 'n3' });
    const full = nodes(space(45 * gibi), space(0));
    const none = choice({ nodes: full, volumes });
    assert.match(
      'reason' in none ? none.reason : '',
      /^n2 has no room: 45 GiB are free in its pool, which is more than 95 % full: free some.*; n3 has no room: 0 B/,
    );
    assert.match(JSON.stringify(chooseVolumeTarget(volumeDoc('data', 'n1'), full)), /n2 has no room/);
    assert.deepEqual(choice({ nodes: full, volumes: [volumeDoc('data', 'n1', { replicas: ['n3'] })] }), { node: 'n3' });
    assert.deepEqual(choice({ nodes: nodes({ space: null }, space(0)), volumes }), { node: 'n2' }, 'not known');
    const light = [workload('light', 'n1')];
    assert.notEqual(chooseTarget(light, moveLimitsDefault, facts({ workloads: light, nodes: full })).node, null);
  });

  it('lives, is open, has the format and meets the conditions of the volumes', () => {
    const volumes = [volumeDoc('data', 'n1', { replicas: ['n2'], options: { nodes: 'n1,n2,n3,n4,n5,n6' } })];
    const all = nodes(
      { alive: false },
      { cordoned: true },
      { draining: true, cordoned: true },
      { format: 'btrfs' },
      {},
      {},
    );
    assert.deepEqual(choice({ nodes: all, volumes }), { node: 'n6' });
    const none = choice({ nodes: all.slice(0, 5), volumes });
    assert.equal(none.node, null);
    assert.match('reason' in none ? none.reason : '', /^n2 is dead.*n3 is cordoned.*n4 is being drained/);
  });

  it('is found for a volume that nothing uses, too', () => {
    const volume = volumeDoc('data', 'n1', { replicas: ['n3'] });
    assert.deepEqual(chooseVolumeTarget(volume, nodes({}, {})), { node: 'n3' });
    assert.equal(chooseVolumeTarget(volume, nodes({ alive: false })).node, null);
  });
});
