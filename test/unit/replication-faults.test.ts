import assert from 'node:assert/strict';
import { FlockError } from '../../controller/model/errors.ts';
import { parseVolumeName } from '../../controller/model/names.ts';
import { never } from '../support/plugin-context.ts';
import { type SmallCluster, startSmallCluster } from '../support/small-cluster.ts';
import { until } from '../support/until.ts';

const waitMs = 30_000;

describe('replication of a volume', () => {
  let cluster: SmallCluster;
  beforeEach(async () => {
    cluster = await startSmallCluster(['n1', 'n2']);
  });
  afterEach(async () => await cluster.dispose());

  it('brings the last writes before an unmount also if the pool refuses a snapshot just then', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    const end = await n1.use('data');
    const arrived = (text: string) =>
      until(`the copy has ${text}`, waitMs, async () => {
        const [copy] = n1.agent.copies(id);
        const newest = (await n2.storage.snapshots(id).catch(() => [])).at(-1);
        if (copy?.state !== 'in-sync' || newest === undefined) return undefined;
        return (await n2.storage.content.read(id, 'file'))?.toString() === text ? true : undefined;
      });
    await n1.write('data', 'first');
    await arrived('first');
    const { snapshot } = n1.storage;
    let refused = 0;
    n1.storage.snapshot = async () => {
      refused += 1;
      throw new FlockError('pool-full', 'no room for a snapshot');
    };
    await n1.write('data', 'last');
    await end();
    await until('it was refused after the unmount', waitMs, () => (refused > 1 ? true : undefined));
    n1.storage.snapshot = snapshot;
    await arrived('last');
  });

  it('leaves a copy alone that an old request would have go back, and that has got more since', async function () {
    this.timeout(2 * waitMs);
    const [n1, n2] = [cluster.node('n1'), cluster.node('n2')];
    await n1.create('data', { replicas: '1' });
    const id = n1.context.state.byName(parseVolumeName('data'))?.id as never;
    await until('there is a copy', waitMs, () => (n1.agent.copies(id)[0]?.state === 'in-sync' ? true : undefined));
    const before = await n2.storage.snapshots(id);
    const ask = { id, epoch: 1, common: null, isCovered: true };
    const late = await n2.agent.answers['rewind-copy'](n1.name, { ...ask, head: 'of an hour ago' }, never);
    assert.deepEqual(
      late.snapshots?.map(({ identity }) => identity),
      before.map(({ identity }) => identity),
    );
    const head = before.at(-1)?.identity ?? null;
    assert.equal((await n2.agent.answers['rewind-copy'](n1.name, { ...ask, head }, never)).snapshots, null);
  });
});
