import assert from 'node:assert/strict';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const waitMs = 30_000;

describe('an owner that has nothing but a complete stream of the epoch before', () => {
  let cluster: SmallCluster;
  beforeEach(async () => {
    cluster = await startSmallCluster(['n1', 'n2', 'n3']);
  });
  afterEach(async () => await cluster.dispose());

  it('makes no stash of an older copy, as the document says that its history has all of that', async function () {
    this.timeout(3 * waitMs);
    const n1 = cluster.node('n1');
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName('data' as never)?.id ?? '';
    const second = await until('a copy is there', waitMs, () => {
      const [copy] = n1.agent.copies(id as never);
      return copy?.state === 'in-sync' ? copy.node : undefined;
    });
    const third = second === 'n2' ? 'n3' : 'n2';
    const end = await n1.use('data');
    await n1.write('data', 'first');
    await end();
    const stop = await cluster.node(second).use('data');
    // From here on n1 gets nothing, and so has no snapshot of this epoch.
    const free = Promise.withResolvers<void>();
    cluster.onStream = (_from, to) => (to === 'n1' ? free.promise : undefined);
    await cluster.node(second).write('data', 'second');
    await stop();
    const done = await cluster.node(third).use('data');
    free.resolve();
    await cluster.node(third).write('data', 'third');
    await done();

    const doc = () => cluster.node(third).agent.directory.byName('data' as never)?.doc;
    assert.deepEqual([doc()?.owner, doc()?.epoch], [third, 3]);
    assert.deepEqual(
      doc()?.reached?.map(({ epoch }) => epoch),
      [1, 2],
    );
    const epochsOn = async (name: string) => {
      const { context, storage } = cluster.node(name);
      const record = context.state.byId(id as never);
      if (record === undefined || !(await storage.exists(id as never))) return null;
      return new Set((await storage.snapshots(id as never)).map(({ name: one }) => one.split('.')[2]));
    };
    assert.deepEqual(await epochsOn('n1'), new Set(['1']), 'n1 has nothing in common with the owner yet');
    await until('n1 follows, or has given up what it had', waitMs, async () => {
      const epochs = await epochsOn('n1');
      return epochs === null || epochs.has('3') ? true : undefined;
    });
    assert.deepEqual(
      cluster.told.filter(({ kind }) => kind === 'stashed'),
      [],
    );
    const phases = [...n1.context.state.all()].map(({ phase }) => phase.kind);
    assert.ok(!phases.includes('stashed'), phases.join());
  });
});
