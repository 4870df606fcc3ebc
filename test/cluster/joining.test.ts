import assert from 'node:assert/strict';
import { type Cluster, startCluster } from '../support/cluster/cluster.ts';
import type { ClusterHost } from '../support/cluster/cluster-host.ts';
import { type Members, volumeOf } from '../support/cluster/members.ts';
import { acknowledged, checkRecords, readRecords, startWriter } from '../support/cluster/records.ts';
import { until } from '../support/until.ts';

describe('hosts that had volumes before they were a cluster', () => {
  let cluster: Cluster;
  let members: Members;
  let [n1, n2]: [ClusterHost, ClusterHost] = [] as never;
  let refusal = '';
  const writer = { container: 'writer', volume: 'busy' };

  before(async () => {
    cluster = await startCluster({ backend: 'btrfs', count: 2, join: false, labels: [{ dc: 'one' }, { dc: 'one' }] });
    [n1, n2] = [cluster.host(1), cluster.host(2)];
    members = { backend: 'btrfs', cluster, n: cluster.host };
    for (const host of cluster.hosts) {
      await host.sh(`of-${host.name}`, `echo ${host.name} > /data/x`);
      await host.sh('same', `echo ${host.name} > /data/x`);
    }
    await startWriter(n1, writer);
    refusal = await cluster.join().then(
      () => '',
      (error: Error) => error.message,
    );
    // As the refusal says.
    await n2.docker('volume', 'rm', 'same');
    await n2.flockctl('trash', 'restore', 'same', 'same-of-n2');
    await joinSecond();
  });
  after(async () => await cluster?.dispose());

  it('keep them, and everybody has them', async () => {
    for (const name of ['of-n1', 'of-n2', 'busy'])
      await until(`the cluster has ${name}`, 20_000, () => volumeOf(members, name).catch(() => undefined));
    for (const host of cluster.hosts)
      for (const owner of ['n1', 'n2']) assert.equal(await host.sh(`of-${owner}`, 'cat /data/x'), owner);
  });

  it('a container that was writing goes on without a loss', async () => {
    const { doc } = await volumeOf(members, writer.volume);
    assert.equal(doc.owner, 'n1');
    await n1.docker('stop', '-t', '0', writer.container);
    const entries = await acknowledged(n1, writer);
    assert.ok(entries.length > 50);
    const { faults, lost } = checkRecords(await readRecords(n2, writer), entries);
    assert.deepEqual({ faults, lost }, { faults: [], lost: [] });
  });

  it('are refused with the names that the cluster has already, and then come with others', async () => {
    assert.match(refusal, /volumes of these names already: same\b.*flockctl trash restore/s);
    assert.equal((await volumeOf(members, 'same')).doc.owner, 'n1');
    await until('the cluster has same-of-n2', 20_000, () => volumeOf(members, 'same-of-n2').catch(() => undefined));
    assert.equal(await n1.sh('same', 'cat /data/x'), 'n1');
    assert.equal(await n1.sh('same-of-n2', 'cat /data/x'), 'n2');
  });

  /** The first host is a member by now. */
  async function joinSecond(): Promise<void> {
    const { token } = (await n1.json('token', 'create')) as { readonly token: string };
    const self = ['--name', n2.name, '--address', n2.address, '--store', 'http://127.0.0.1:8500', '--label', 'dc=one'];
    await n2.flockctl('join', n1.address, token, ...self);
  }
});
