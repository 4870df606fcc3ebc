import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import {
  acknowledgedAfter,
  copiesOf,
  copyOf,
  createVolume,
  fill,
  joinAnew,
  type Members,
  nodesOf,
  settled,
  startReplicatedWriter,
  sumOf,
  volumeOf,
} from '../../support/cluster/members.ts';
import { bootSeconds } from '../../support/cluster/probes.ts';
import { acknowledged, checkRecords, readRecords } from '../../support/cluster/records.ts';
import { until } from '../../support/until.ts';

const mebibyte = 1024 ** 2;

/** Copies on other nodes: where they are, how far behind, and that each goes its own way. */
export function replicas(members: () => Members): void {
  const n = (number: number): ClusterHost => members().n(number);
  const placed = (volume: string, wanted: readonly string[], msMax = 20_000) =>
    until(`${volume} has copies on ${wanted.join(', ')}`, msMax, async () => {
      const { doc } = await volumeOf(members(), volume);
      return JSON.stringify([...doc.replicas].sort()) === JSON.stringify(wanted) ? true : undefined;
    });

  /** The largest lag of a copy within a time, in ms. */
  async function lagMsMaxOf(volume: string, node: string, ms: number): Promise<number> {
    let largest = 0;
    for (const end = performance.now() + ms; performance.now() < end; await sleep(200)) {
      const copy = await copyOf(n(1), volume, node);
      largest = Math.max(largest, copy?.lagMs ?? Number.POSITIVE_INFINITY);
    }
    return largest;
  }

  describe('copies on other nodes', () => {
    it('are where options, labels and cordons put them', async () => {
      await createVolume(n(1), 'both', ['replicas=1', 'remote-replicas=1']);
      await createVolume(n(3), 'west', ['replicas=0', 'remote-replicas=1']);
      await createVolume(n(1), 'named', ['replicas=0', 'remote-replicas=1', 'nodes=n3']);
      await createVolume(n(1), 'labelled', ['replicas=1', 'locality=disk=fast']);
      await n(1).flockctl('node', 'cordon', 'n2');
      await createVolume(n(1), 'later', ['replicas=1']);
      await placed('named', ['n3']);
      assert.deepEqual((await volumeOf(members(), 'later')).doc.replicas, []);
      await n(3).flockctl('node', 'uncordon', 'n2');
      await placed('both', ['n2', 'n3']);
      await placed('later', ['n2']);
      assert.deepEqual((await volumeOf(members(), 'labelled')).doc.replicas, []);
      await n(1).flockctl('node', 'label', 'n2', 'disk=fast');
      await placed('labelled', ['n2']);
      // The only copy stays although it is in the wrong place now, until there is a better one.
      await n(1).flockctl('node', 'label', 'n2', 'disk-');
      await sleep(1_000);
      assert.deepEqual((await volumeOf(members(), 'labelled')).doc.replicas, ['n2']);
      const [west] = (await volumeOf(members(), 'west')).doc.replicas;
      assert.ok(west === 'n1' || west === 'n2');
      await n(1).flockctl('volume', 'rm', 'labelled');
      await settled(members());
    });

    it('a node that is not reached, or dead, holds back no other, and catches up by a difference', async () => {
      const writer = { container: 'writer', volume: 'apart' };
      await createVolume(n(1), 'apart', ['replicas=1', 'remote-replicas=1']);
      await fill(n(1), 'apart', 60);
      await startReplicatedWriter(n(1), writer);
      // Or n1 would lose the store with n3, and stand still without a promise from there.
      await members().cluster.leadElsewhere([3]);
      await settled(members());

      const undo = await members().cluster.network.partition([1], [3]);
      await sleep(3_000);
      const near = await lagMsMaxOf('apart', 'n2', 5_000);
      assert.ok(near < 4_000, `the copy that is reached was ${near} ms behind`);
      const far = await copyOf(n(1), 'apart', 'n3');
      assert.ok(far !== null && (far.lagMs ?? 0) > 5_000, JSON.stringify(far));
      assert.match(far.problem ?? '', /not reached|stream .* broke|no answer/);
      await undo();
      await settled(members());

      const before = await copyOf(n(1), 'apart', 'n3');
      await n(3).kill();
      await acknowledgedAfter(n(1), writer, (await bootSeconds()) + 2);
      assert.ok((await lagMsMaxOf('apart', 'n2', 3_000)) < 4_000);
      await n(3).boot();
      let sent = 0;
      await until('the copy on n3 is back', 60_000, async () => {
        const copy = await copyOf(n(1), 'apart', 'n3');
        sent = Math.max(sent, copy?.sentBytes ?? 0);
        const isNew = copy?.snapshot !== null && copy?.snapshot !== before?.snapshot;
        return copy?.problem === null && isNew ? true : undefined;
      });
      assert.ok(sent < 20 * mebibyte, `${sent} bytes were sent for a few records`);

      await n(1).docker('stop', '-t', '0', writer.container);
      const entries = await acknowledged(n(1), writer);
      const sum = await sumOf(n(1), 'apart');
      for (const host of [n(3), n(2)]) {
        const { faults, lost } = checkRecords(await readRecords(host, writer), entries);
        assert.deepEqual({ faults, lost }, { faults: [], lost: [] });
        assert.equal(await sumOf(host, 'apart'), sum);
      }
    });

    it('a copy whose node has no room says so, holds back no other, and goes on when there is some', async () => {
      const writer = { container: 'writer', volume: 'tight' };
      await startReplicatedWriter(n(1), writer);
      await createVolume(n(2), 'filler', ['replicas=0']);
      await n(2).sh('filler', 'dd if=/dev/zero of=/data/x bs=1M count=2000; sync; true');
      await fill(n(1), 'tight', 60);
      const full = await until('the copy on n2 has a problem', 40_000, async () => {
        const copy = await copyOf(n(1), 'tight', 'n2');
        return copy !== null && copy.problem !== null ? copy : undefined;
      });
      assert.match(full.problem ?? '', /node n2.*(full|no (space|room)|free)/i);
      await until('the other copy has everything', 40_000, async () => {
        const copy = await copyOf(n(1), 'tight', 'n3');
        return copy?.problem === null && (copy.lagMs ?? 9_999) < 3_000 ? true : undefined;
      });
      await n(2).flockctl('volume', 'rm', 'filler');
      await n(2).flockctl('trash', 'purge', '--all');
      await settled(members());
      await n(1).docker('stop', '-t', '0', writer.container);
      const sum = await sumOf(n(1), 'tight');
      assert.equal(await sumOf(n(2), 'tight'), sum);
    });

    it('a node that is removed gets no copies any more, and is a node again when it joins anew', async () => {
      await createVolume(n(1), 'moved', ['replicas=0', 'remote-replicas=1']);
      await placed('moved', ['n3']);
      await n(1).sh('moved', 'echo kept > /data/x');
      await settled(members());
      await n(3).kill();
      // It may have been Consul's leader, too.
      await members().cluster.waitForLeader();
      await until('n3 is seen dead', 30_000, async () => {
        const nodes = await nodesOf(n(1)).catch(() => []);
        return nodes.some(({ name, alive }) => name === 'n3' && !alive) ? true : undefined;
      });
      await assert.rejects(n(1).flockctl('node', 'rm', 'n3'), /--force/);
      await n(1).flockctl('node', 'rm', '--force', 'n3');
      try {
        await placed('moved', []);
        await until('the copy is not listed any more', 10_000, async () =>
          (await copiesOf(n(1))).length === 0 ? true : undefined,
        );
      } finally {
        await n(3).boot();
        await joinAnew(n(1), n(3));
      }
      await placed('moved', ['n3']);
      // What is left of the old copy goes with the next sweep, once a minute.
      await settled(members(), 120_000);
      assert.equal(await n(3).sh('moved', 'cat /data/x'), 'kept');
    });
  });
}
