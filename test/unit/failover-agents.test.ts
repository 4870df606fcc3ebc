import assert from 'node:assert/strict';
import { parseVolumeName, type VolumeName } from '../../controller/model/names.ts';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const waitMs = 30_000;
const never = new AbortController().signal;
const [auto, manual, fixed] = ['auto', 'manual', 'fixed'].map(parseVolumeName) as [VolumeName, VolumeName, VolumeName];

describe('volumes whose owner is cut off', () => {
  let cluster: SmallCluster;

  beforeEach(async () => {
    cluster = await startSmallCluster(['n1', 'n2', 'n3']);
  });
  afterEach(async () => await cluster.dispose());

  const preview = (node: string, volume: VolumeName) => cluster.node(node).agent.previewFailover(volume, never);
  const docOf = (volume: VolumeName) => cluster.node('n2').agent.directory.byName(volume)?.doc;
  const toldOf = (kind: string) => cluster.told.filter((one) => one.kind === kind);
  const take = (volume: VolumeName, force = false) => cluster.node('n3').agent.takeOver(volume, { force }, never);

  it('go to a copy by themselves, on a person’s word, or by force, as their options say; and it is told', async function () {
    this.timeout(3 * waitMs);
    const n1 = cluster.node('n1');
    await n1.create(auto, { replicas: '2', 'max-loss': '30s' });
    await n1.create(manual, { replicas: '2', failover: 'manual' });
    await n1.create(fixed, { replicas: '2', failover: 'none' });
    const end = await n1.use(auto);
    await n1.write(auto, 'kept');
    await end();
    // Nobody writes any more, so the owner has to say that the old snapshot is everything.
    await until('all copies are there, and known to be complete where that matters', waitMs, async () => {
      const seen = await Promise.all([auto, manual, fixed].map((volume) => preview('n2', volume)));
      const areThere = seen.every(
        ({ copies }) => copies.length === 2 && copies.every(({ state }) => state === 'answers'),
      );
      const areComplete = seen[0]?.copies.every(({ lossMs }) => lossMs !== null && lossMs < 3_000);
      const inSync = n1.agent
        .copies(n1.context.state.byName(auto)?.id as never)
        .every(({ state }) => state === 'in-sync');
      return areThere && areComplete && inSync ? true : undefined;
    });
    const before = await preview('n2', auto);
    assert.deepEqual([before.owner, before.isOwnerAlive, before.isHeld, before.waitMs], ['n1', true, true, null]);
    assert.deepEqual([before.best, before.policy, before.maxLossMs], ['n2', 'auto', 30_000]);
    assert.match(before.reason, /n1 still holds/);
    await assert.rejects(take(auto, true), /node n1 still holds the volume.*try again/);

    cluster.cutOff('n1');
    const owner = await until('n2 or n3 owns it', waitMs, () => {
      const seen = docOf(auto)?.owner;
      return seen === 'n1' ? undefined : seen;
    });
    const stop = await cluster.node(owner).use(auto);
    assert.equal(await cluster.node(owner).read(auto), 'kept');
    await stop();
    assert.ok(Math.abs((docOf(auto)?.failedOverAtMs ?? 0) - Date.now()) < waitMs);

    const refused = await until(
      'it is told that nobody takes another one',
      waitMs,
      () => toldOf('failover-refused')[0],
    );
    assert.equal(refused.subject, manual);
    assert.match(refused.text, /n1 is dead, and n[23] does not take it: the volume has failover=manual/);
    const seen = await preview('n3', manual);
    assert.deepEqual([seen.owner, seen.isOwnerAlive, seen.isHeld, seen.waitMs], ['n1', false, false, 0]);
    await take(manual);
    await assert.rejects(take(fixed), /the volume has failover=none; use --force/);
    await take(fixed, true);
    assert.deepEqual(
      toldOf('failover').map(({ node, subject, text }) => `${node} ${subject} ${/from n1, ([^,]+)/.exec(text)?.[1]}`),
      [`${owner} auto by itself`, 'n3 manual on a person’s word', 'n3 fixed forced by a person'],
    );
    assert.equal(toldOf('failover-refused').length, 1);
  });

  it('go to a copy, too, when the owner lives on and its pool has failed; what nobody else has stays', async function () {
    this.timeout(3 * waitMs);
    const n1 = cluster.node('n1');
    await n1.create(auto, { replicas: '1' });
    await n1.create(fixed, { replicas: '0' });
    const ends = [await n1.use(auto), await n1.use(fixed)];
    await n1.write(auto, 'kept');
    const [id, fixedId] = [auto, fixed].map((volume) => n1.context.state.byName(volume)?.id as never) as [never, never];
    await until('the copy is there', waitMs, () =>
      n1.agent.copies(id).some(({ state }) => state === 'in-sync') ? true : undefined,
    );
    n1.disk.fault = 'failed';
    const owner = await until('another node owns it', waitMs, () => {
      const seen = docOf(auto)?.owner;
      return seen === 'n1' ? undefined : seen;
    });
    assert.equal(await cluster.node(owner).read(auto), 'kept');
    assert.deepEqual([n1.agent.isFrozen(id), n1.agent.isFrozen(fixedId)], [true, false]);
    const lost = toldOf('pool-lost');
    assert.deepEqual(
      lost.map(({ node, subject }) => [node, subject]),
      [['n1', 'n1']],
    );
    assert.match(lost[0]?.text ?? '', /^the memory pool has failed: volumes of this node/);
    assert.equal(docOf(fixed)?.owner, 'n1');

    // As the plugin would, if these were processes.
    for (const end of ends) await end();
    n1.disk.fault = null;
    await until('n1 has a copy of it', waitMs, () =>
      n1.context.state.byId(id)?.phase.kind === 'replica' ? true : undefined,
    );
    const back = await until('it is told', waitMs, () => toldOf('pool-back')[0]);
    assert.deepEqual([back.node, docOf(fixed)?.owner], ['n1', 'n1']);
    assert.equal(n1.context.state.byName(fixed)?.phase.kind, 'ready');
  });
});
