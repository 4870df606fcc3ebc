import assert from 'node:assert/strict';
import { eventSchema } from '../../../controller/model/events.ts';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import {
  acknowledgedAfter,
  acknowledgedBefore,
  copiesOf,
  createVolume,
  type Members,
  settled,
  startReplicatedWriter,
  stashesOf,
  volumeOf,
} from '../../support/cluster/members.ts';
import { bootSeconds } from '../../support/cluster/probes.ts';
import { acknowledged, checkRecords, readRecords, startWriter } from '../../support/cluster/records.ts';
import { until } from '../../support/until.ts';

/** Consul notices (4 s), maybe elects another leader, and the guard passes; the machine may be busy. */
const takenMsMax = 60_000;

/** What becomes of volumes whose owner dies, when nobody says anything. */
export function failovers(members: () => Members): void {
  describe('a dead owner’s volume', () => {
    it('goes to a copy by itself, with all that was replicated, unless it is to wait for a person; the old owner follows', async () => {
      const { n } = members();
      const writer = { container: 'writer', volume: 'orphan' };
      const copies = ['replicas=1', 'remote-replicas=1'];
      const old = n(1);
      await startReplicatedWriter(old, writer, [...copies, 'failover=auto', 'max-loss=1m']);
      await createVolume(old, 'waiting', [...copies, 'failover=manual']);
      await old.sh('waiting', 'echo kept > /data/x');
      await until('the other volume has its copies', 40_000, async () =>
        (await copiesOf(old)).filter(({ volume, state }) => volume === 'waiting' && state === 'in-sync').length === 2
          ? true
          : undefined,
      );

      await old.kill();
      const next = await until('the volume has another owner', takenMsMax, async () => {
        // While Consul elects a leader there is no answer.
        const seen = await volumeOf(members(), writer.volume).catch(() => null);
        return seen === null || seen.session === null
          ? undefined
          : [n(2), n(3)].find(({ name }) => name === seen.doc.owner);
      });
      await startWriter(next, writer);
      await acknowledgedAfter(next, writer, await bootSeconds());
      const third = next === n(2) ? n(3) : n(2);

      const refused = await until('it was told why the other volume was not taken', takenMsMax, async () =>
        (await eventsOf(next)).find(({ kind, subject }) => kind === 'failover-refused' && subject === 'waiting'),
      );
      assert.match(refused.text, /n1 is dead.*failover=manual/);
      assert.equal((await volumeOf(members(), 'waiting')).doc.owner, 'n1');
      // Without a terminal it does not ask, and takes the best copy.
      assert.match(
        await third.flockctl('failover', 'waiting', '--yes'),
        /waiting is now node n[23]'s\. At most the last /,
      );
      assert.equal(await next.sh('waiting', 'cat /data/x'), 'kept');

      await old.boot();
      await settled(members(), 120_000);
      const { doc } = await volumeOf(members(), writer.volume);
      assert.deepEqual([doc.owner, doc.epoch], [next.name, 2]);
      // In the other data center one copy is all that is wanted of this one.
      assert.ok(doc.replicas.length > 0 && !doc.replicas.some((name) => name === next.name), doc.replicas.join());
      const fromOld = await acknowledged(old, writer);
      // A node that is to hold no copy any more waits half a minute before it gives up what it has.
      const stash = await until('what only the old owner had is a stash', 90_000, async () =>
        (await stashesOf(next)).find(({ volume }) => volume === writer.volume),
      );
      assert.equal(stash.node, 'n1');

      await next.docker('stop', '-t', '0', writer.container);
      const replicated = await acknowledgedBefore(fromOld, stash.common ?? '');
      assert.ok(replicated.length > 0);
      const found = await readRecords(next, writer);
      const { faults, lost } = checkRecords(found, [...replicated, ...(await acknowledged(next, writer))]);
      assert.deepEqual({ faults, lost }, { faults: [], lost: [] });
      for (const host of [third, old]) assert.equal(await readRecords(host, writer), found);
      const taken = (await eventsOf(next)).filter(({ subject }) => subject === writer.volume);
      assert.deepEqual(
        taken.filter(({ kind }) => kind === 'failover').map(({ node }) => node),
        [next.name],
      );
      assert.ok(taken.some(({ kind, node }) => kind === 'stashed' && node === 'n1'));
    });
  });
}

/** All that the store has. */
async function eventsOf(host: ClusterHost) {
  const entries = (await host.consulApi('GET', '/v1/kv/flock/events?recurse').catch(() => [])) as readonly {
    readonly Value: string;
  }[];
  return entries.map(({ Value }) => eventSchema.parse(JSON.parse(Buffer.from(Value, 'base64').toString('utf8'))));
}
