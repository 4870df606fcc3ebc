import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import express from 'express';
import { copyEstimateView, copyRoundView, handoverView } from '../../controller/model/api.ts';
import { decodeVolume, keys } from '../../controller/model/cluster.ts';
import { parseNodeName, parseVolumeName } from '../../controller/model/names.ts';
import { answerProblems, noSuchCall } from '../../controller/server/problems.ts';
import type { Member } from '../../plugin/member.ts';
import type { Node } from '../../plugin/node.ts';
import { memberRoutes } from '../../plugin/server/member-api.ts';
import { log } from '../support/cluster-hosts.ts';
import { moveDoc, workload as workloadDoc } from '../support/move-documents.ts';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

let cluster: SmallCluster;
const servers: Server[] = [];
beforeEach(async () => {
  cluster = await startSmallCluster(['n1', 'n2', 'n3']);
});
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
  await cluster.dispose();
});

type Answer = { readonly status: number; readonly body: unknown };
type Ask = (method: string, path: string, body?: unknown) => Promise<Answer>;

/** The API of a node's own socket, or what its peers may ask. */
async function apiOf(name: string, isForwarded = false): Promise<Ask> {
  const { agent, context } = cluster.node(name);
  const node = { ready: async () => context } as Partial<Node> as Node;
  const identity = () => ({ name: parseNodeName(name) }) as ReturnType<Member['identity']>;
  const routes = memberRoutes(node, { agent: () => agent, identity }, isForwarded);
  const app = express().use(express.json({ limit: '2mb' }), routes, noSuchCall, answerProblems(log, 'api.failed'));
  const server = createServer(app).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  const at = server.address();
  assert.ok(typeof at === 'object' && at !== null);
  return async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${at.port}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    return { status: response.status, body: await response.json() };
  };
}

function refused({ status, body }: Answer, wanted: number, code: string, text: RegExp): void {
  const problem = body as { code: string; detail: string };
  assert.deepEqual([status, problem.code], [wanted, code], problem.detail);
  assert.match(problem.detail, text);
}

async function docOf(volume: string) {
  const id = (await cluster.client.get(keys.name(parseVolumeName(volume))))?.value;
  return decodeVolume((await cluster.client.get(`${keys.volumes}/${id}`))?.value ?? '');
}

const put = (key: string, value: string) => cluster.client.transact([{ kind: 'set', key, value }]);
const indexOf = async (key: string) => (await cluster.client.get(key))?.index ?? null;

describe('volumes that a controller hands over', () => {
  it('go together with the documents of the move, and everything in them', async () => {
    const [one, two] = [cluster.node('n1'), cluster.node('n2')];
    for (const name of ['v1', 'v2']) {
      await one.create(name);
      const end = await one.use(name);
      await one.write(name, `of ${name}`);
      await end();
    }
    await put('moves/00000001', 'committing');
    const ask = await apiOf('n1');
    const operations = [
      { key: 'moves/00000001', value: 'starting', index: await indexOf('moves/00000001') },
      { key: 'workloads/0000000000000001', value: 'there', index: null },
    ];
    const { status, body } = await ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v2', 'v1'], operations });
    assert.equal(status, 200, JSON.stringify(body));
    assert.deepEqual(handoverView.parse(body), {
      volumes: [
        { name: 'v2', epoch: 2 },
        { name: 'v1', epoch: 2 },
      ],
    });
    for (const name of ['v1', 'v2']) {
      const { owner, epoch, replicas } = await docOf(name);
      assert.deepEqual([owner, epoch, replicas.includes(one.name)], [two.name, 2, true]);
      const end = await two.use(name);
      assert.equal(await two.read(name), `of ${name}`);
      await end();
    }
    assert.equal((await cluster.client.get('moves/00000001'))?.value, 'starting');
    assert.equal((await cluster.client.get('workloads/0000000000000001'))?.value, 'there');
    refused(
      await ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1', 'v2'] }),
      409,
      'not-owner',
      /belongs to node n2/,
    );
  });

  it('stay, all of them, where one document is another by now, and the answer names it', async () => {
    const one = cluster.node('n1');
    await one.create('v1');
    await one.create('v2');
    await put('moves/00000001', 'committing');
    const stale = await indexOf('moves/00000001');
    await put('moves/00000001', 'aborted');
    const ask = await apiOf('n1');
    const operations = [{ key: 'moves/00000001', value: 'starting', index: stale }];
    const answer = await ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1', 'v2'], operations });
    refused(answer, 409, 'document-changed', /moves\/00000001 was changed meanwhile/);
    for (const name of ['v1', 'v2']) {
      assert.deepEqual([(await docOf(name)).owner, (await docOf(name)).epoch], [one.name, 1]);
      await (await one.use(name))();
    }
    assert.equal((await cluster.client.get('moves/00000001'))?.value, 'aborted');
  });

  it('stay, all of them, while one is used, and the answer names its user', async () => {
    const one = cluster.node('n1');
    await one.create('v1');
    await one.create('v2');
    const end = await one.use('v2');
    const ask = await apiOf('n1');
    refused(
      await ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1', 'v2'] }),
      409,
      'volume-in-use',
      /volume "v2" is in use by container/,
    );
    assert.equal((await docOf('v1')).owner, one.name);
    // Docker gives a volume back a moment after its container has ended: that is waited for.
    const asked = ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1', 'v2'] });
    await end();
    assert.equal((await asked).status, 200);
  });

  it('stay where the last difference can not be sent in time', async () => {
    const one = cluster.node('n1');
    await one.create('v1');
    await one.create('v2');
    cluster.onStream = () => new Promise(() => undefined);
    const ask = await apiOf('n1');
    refused(
      await ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1', 'v2'], deadlineMs: 1_000 }),
      500,
      'deadline-exceeded',
      /within 1 s; nothing was changed/,
    );
    cluster.onStream = () => undefined;
    for (const name of ['v1', 'v2']) await (await one.use(name))();
  });

  it('stay where something else is being sent there all the time', async () => {
    await cluster.node('n1').create('v1', { replicas: '0' });
    const ask = await apiOf('n1');
    cluster.onStream = () => new Promise(() => undefined);
    const copying = await ask('POST', '/v1/copies', { volume: 'v1', to: 'n2' });
    assert.equal(copyRoundView.parse(copying.body).state, 'running');
    const answer = await ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1'], deadlineMs: 1_000 });
    refused(answer, 500, 'deadline-exceeded', /nothing was changed/);
  });

  for (const [what, which, phase, owner] of [
    ['are kept, all of them, where the store was out of reach', 'both', 'ready', 'n1'],
    ['are followed, all of them, where the answer of the store was lost', 'answers', 'replica', 'n2'],
  ] as const) {
    it(what, async () => {
      const one = cluster.node('n1');
      await one.create('v1');
      await one.create('v2');
      const ids = [(await docOf('v1')).id, (await docOf('v2')).id];
      const phases = () => ids.map((id) => one.context.state.byId(id)?.phase.kind);
      cluster.onTransact = (from, operations) => {
        if (from === one.name && operations.some(({ kind }) => kind === 'unlock')) cluster.store.cut('n1', which);
      };
      const ask = await apiOf('n1');
      const hand = () => ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1', 'v2'] });
      refused(await hand(), 503, 'store-unavailable', /no answer/);
      assert.deepEqual(phases(), ['handing-over', 'handing-over'], 'nobody knows yet');
      cluster.onTransact = () => undefined;
      cluster.store.heal('n1');
      await until(`they are ${phase}`, 15_000, () => (phases().every((kind) => kind === phase) ? true : undefined));
      for (const name of ['v1', 'v2']) assert.equal((await docOf(name)).owner, owner);
      if (which === 'both') assert.equal((await hand()).status, 200);
    });
  }

  it('are refused where the target is no living other node', async () => {
    await cluster.node('n1').create('v1');
    const ask = await apiOf('n1');
    const to = (node: string) => ask('POST', '/v1/handovers', { to: node, volumes: ['v1'] });
    refused(await to('n9'), 404, 'node-not-found', /no node n9/);
    refused(await to('N 9'), 400, 'invalid-name', /N 9/);
    refused(await to('n1'), 400, 'invalid-request', /on node n1 already/);
    const alive = await cluster.client.get(keys.alive(parseNodeName('n3')));
    assert.ok(alive?.session);
    cluster.store.cut('n3');
    cluster.store.endSession(alive.session);
    await until('n1 sees n3 dead', 5_000, () =>
      cluster.node('n1').agent.directory.node(parseNodeName('n3'))?.alive === null ? true : undefined,
    );
    refused(await to('n3'), 503, 'node-unreachable', /node n3 does not answer/);
    refused(await ask('POST', '/v1/copies', { volume: 'v1', to: 'n3' }), 503, 'node-unreachable', /n3/);
  });

  it('are refused before anything happens where the request can not be one transaction', async () => {
    await cluster.node('n1').create('v1');
    const ask = await apiOf('n1');
    const hand = (change: object) => ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1'], ...change });
    const operation = (key: string, value = 'x') => ({ key, value, index: null });
    const operations = (count: number) => Array.from({ length: count }, (_, index) => operation(`moves/m${index}`));
    const volumes = (count: number) => Array.from({ length: count }, (_, index) => `v${index}`);
    const cases: readonly (readonly [object, RegExp])[] = [
      [{ volumes: [] }, /volumes/],
      [{ volumes: 'v1' }, /volumes/],
      [{ volumes: ['v1', 'v1'] }, /named twice/],
      [{ volumes: volumes(21) }, /21 volumes: at most 20/],
      [{ operations: operations(62) }, /1 volumes and 62 operations are 65 of the store's/],
      [{ volumes: volumes(16), operations: operations(17) }, /are 65 of the store's/],
      [{ operations: [operation('volumes/x.00000001')] }, /only what is below moves\/ and workloads\//],
      [{ operations: [operation('moves')] }, /only what is below/],
      [{ operations: [operation('moves/')] }, /is no key/],
      [{ operations: [{ ...operation('moves/a'), index: 'newest' }] }, /is no index/],
      [{ operations: [{ ...operation('moves/a'), kind: 'delete' }] }, /kind/],
      [{ operations: ['moves/a', 'moves/b', 'moves/c'].map((key) => operation(key, 'x'.repeat(100_000))) }, /bytes/],
      [{ deadlineMs: 5 }, /deadlineMs/],
      [{ force: true }, /force/],
    ];
    for (const [change, text] of cases) refused(await hand(change), 400, 'invalid-request', text);
    refused(await hand({ volumes: ['nothing'] }), 404, 'volume-not-found', /nothing/);
    refused(await hand({ volumes: ['v 1'] }), 400, 'invalid-name', /v 1/);
    assert.equal((await docOf('v1')).epoch, 1);
  });

  it('are not handed over for other nodes’ sake', async () => {
    const ask = await apiOf('n1', true);
    for (const [method, path] of [
      ['POST', '/v1/handovers'],
      ['POST', '/v1/copies'],
      ['GET', '/v1/copies/estimate?volume=v1&to=n2'],
    ] as const)
      refused(await ask(method, path, method === 'POST' ? {} : undefined), 400, 'invalid-request', /there is no/);
  });
});

describe('copies for a move', () => {
  it('come while the volume is used, round by round, to a node that is not to hold any', async () => {
    const one = cluster.node('n1');
    await one.create('v1', { replicas: '0' });
    const end = await one.use('v1');
    await one.write('v1', 'first');
    const ask = await apiOf('n1');
    const estimate = async () => copyEstimateView.parse((await ask('GET', '/v1/copies/estimate?volume=v1&to=n2')).body);
    const before = await estimate();
    assert.equal(before.hasCopy, false);
    let release: () => void = () => undefined;
    cluster.onStream = () => new Promise<void>((resolve) => (release = resolve));
    const round = async () => copyRoundView.parse((await ask('POST', '/v1/copies', { volume: 'v1', to: 'n2' })).body);
    const first = await round();
    assert.deepEqual([first.state, first.roundMs], ['running', null]);
    cluster.onStream = () => undefined;
    release();
    const done = await until('the round is done', 10_000, async () => {
      const answer = await round();
      return answer.state === 'done' ? answer : undefined;
    });
    assert.ok(done.roundMs !== null);
    assert.ok(done.sentBytes > 0);
    assert.equal((await estimate()).hasCopy, true);
    await one.write('v1', 'second');
    cluster.onStream = () => new Promise<void>((resolve) => (release = resolve));
    await round();
    await until('it is known what the difference is', 10_000, async () =>
      ((await estimate()).bytes ?? 0) > 0 ? true : undefined,
    );
    cluster.onStream = () => undefined;
    release();
    await until('another round is done', 10_000, async () => ((await round()).state === 'done' ? true : undefined));
    const { id } = await docOf('v1');
    assert.equal((await cluster.node('n2').storage.content.read(id, 'file'))?.toString(), 'second');
    assert.deepEqual((await docOf('v1')).replicas, []);
    // What has come is kept, though no document says so, and used.
    await end();
    const handed = await ask('POST', '/v1/handovers', { to: 'n2', volumes: ['v1'] });
    assert.equal(handed.status, 200, JSON.stringify(handed.body));
    assert.equal((await docOf('v1')).owner, 'n2');
  });

  it('say why they fail, and begin anew', async () => {
    await cluster.node('n1').create('v1', { replicas: '0' });
    const ask = await apiOf('n1');
    cluster.onStream = () => {
      throw new Error('no way there');
    };
    await until('the round fails', 10_000, async () => {
      const { status, body } = await ask('POST', '/v1/copies', { volume: 'v1', to: 'n2' });
      return status === 500 && /no way there/.test(JSON.stringify(body)) ? true : undefined;
    });
    cluster.onStream = () => undefined;
    await until('a round is done', 10_000, async () => {
      const { body } = await ask('POST', '/v1/copies', { volume: 'v1', to: 'n2' });
      return copyRoundView.safeParse(body).data?.state === 'done' ? true : undefined;
    });
  });

  it('are refused where there is nothing to copy or nowhere to copy it to', async () => {
    await cluster.node('n2').create('v2');
    await cluster.node('n1').create('v1');
    const ask = await apiOf('n1');
    const copy = (body: object) => ask('POST', '/v1/copies', body);
    refused(await copy({}), 400, 'invalid-request', /volume/);
    refused(await copy({ volume: 'v1', to: 'n2', from: 'n1' }), 400, 'invalid-request', /from/);
    refused(await copy({ volume: 'v1', to: 'n1' }), 400, 'invalid-request', /on node n1 already/);
    refused(await copy({ volume: 'v1', to: 'n9' }), 404, 'node-not-found', /n9/);
    refused(await copy({ volume: 'v9', to: 'n2' }), 404, 'volume-not-found', /v9/);
    await until(
      'n1 sees v2',
      5_000,
      () => cluster.node('n1').agent.directory.byName(parseVolumeName('v2')) ?? undefined,
    );
    refused(await copy({ volume: 'v2', to: 'n3' }), 409, 'not-owner', /belongs to node n2/);
    refused(await ask('GET', '/v1/copies/estimate?volume=v1'), 400, 'invalid-request', /to=NODE/);
  });
});

describe('a volume that is kept for its container', () => {
  it('is given to nobody who mounts it elsewhere while that is to run, and is given as soon as a person stops it', async () => {
    const [one, two] = [cluster.node('n1'), cluster.node('n2')];
    await one.create('v1');
    const { id, name } = await docOf('v1');
    const workload = { ...workloadDoc('web', 'n1'), volumes: [{ id, name }] };
    await put(`workloads/${workload.id}`, JSON.stringify(workload));
    await put('workloads/00000000000000ff', `not readable, but of ${id}`);
    const mount = () => two.use('v1');
    await assert.rejects(mount(), /kept for the container "web", which is to run on node n1: "docker stop web"/);
    await put(`workloads/${workload.id}`, JSON.stringify({ ...workload, wanted: 'stopped' }));
    await (await mount())();
    assert.equal((await docOf('v1')).owner, two.name);
  });

  it('is given to no third node while it is moved, though its container is stopped', async () => {
    const [one, three] = [cluster.node('n1'), cluster.node('n3')];
    await one.create('v1');
    const { id, name } = await docOf('v1');
    const move = moveDoc({ step: 'stopping' });
    const stopped = workloadDoc('web', 'n1', { wanted: 'stopped', move: move.id });
    const workload = { ...stopped, volumes: [{ id, name }] };
    await put(`workloads/${workload.id}`, JSON.stringify(workload));
    await put(`moves/${move.id}`, JSON.stringify(move));
    await assert.rejects(three.use('v1'), /is being moved with the container "web"/);
    await put(`moves/${move.id}`, JSON.stringify({ ...move, step: 'failed' }));
    await (await three.use('v1'))();
    assert.equal((await docOf('v1')).owner, three.name);
  });
});
