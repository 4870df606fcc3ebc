import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import {
  answersFrom,
  checkNoted,
  counterLabels,
  counterOf,
  loadCounter,
  notedBy,
  ownerOf,
  startCounter,
} from '../../support/cluster/counting.ts';
import { failDisk } from '../../support/cluster/dead-disk.ts';
import { followWriters } from '../../support/cluster/log-followers.ts';
import { assertRescued } from '../../support/cluster/lost-records.ts';
import {
  acknowledgedAfter,
  copyOf,
  createVolume,
  isolate,
  type Members,
  settled,
  startReplicatedWriter,
  timing,
  volumeOf,
} from '../../support/cluster/members.ts';
import { happened, known, workloadsOf } from '../../support/cluster/moving.ts';
import { bootSeconds } from '../../support/cluster/probes.ts';
import {
  type Acknowledgement,
  acknowledged,
  checkRecords,
  readRecords,
  type Writer,
} from '../../support/cluster/records.ts';
import { startRequestLoad } from '../../support/cluster/request-load.ts';
import { assertInTurns, checkTurns, followOwners, wakeSecondsMax, writersIn } from '../../support/cluster/turns.ts';
import { runScript } from '../../support/cluster/web.ts';
import { until } from '../../support/until.ts';

const backMsMax = 90_000;
/** Long enough for a failover. */
const cutMs = 15_000;
const writer: Writer = { container: 'writer', volume: 'log' };
/** A service without state that says where it is. */
const echo = `
  const node = 'n' + (Number(require('node:os').networkInterfaces().eth0[0].address.split('.')[1]) - 20);
  process.on('SIGTERM', () => process.exit(0));
  require('node:http').createServer((req, res) => res.end((req.headers['x-request-id'] ?? '-') + ' ' + node + ' 1')).listen(8080);`;
const copies = ['replicas=1', 'remote-replicas=1', 'failover=auto'];
const lone = 'lone';

/** What all of these tests begin with and look at in the end. */
function sceneOf(members: () => Members) {
  const n = (number: number) => members().n(number);
  const hosts = () => members().cluster.hosts;
  const web = counterOf('web');

  /** A writer and a web service on the first host, each with copies on both others. Answers the ids of the containers. */
  async function begin() {
    const webId = await startCounter(n(1), web, { volume: copies, run: ['--restart', 'always'] });
    await startReplicatedWriter(n(1), writer, copies);
    const writerId = (await known(members(), n(1), writer.container)).containerId ?? '';
    await known(members(), n(1), 'web');
    await answersFrom(hosts(), web, 'n1');
    return { webId, writerId };
  }

  /** Until the writer writes on another host than the first one; answers which. */
  function writesElsewhere(sinceSeconds: number): Promise<ClusterHost> {
    return until('the writer writes elsewhere', backMsMax, async () => {
      for (const host of [n(2), n(3)]) {
        const entries = await acknowledged(host, writer).catch(() => []);
        if (entries.some((entry) => entry.bootSeconds > sinceSeconds)) return host;
      }
      return undefined;
    });
  }

  /**
   * All that was acknowledged is in the volume or, if it came last of the first host, in a stash; and nobody wrote beside another. `late`: what
   * the first host wrote in the moment after it woke up.
   */
  async function assertOneWriter(
    now: ClusterHost,
    before: readonly Acknowledgement[],
    late: readonly Acknowledgement[] = [],
  ): Promise<void> {
    const after = await acknowledgedAfter(now, writer, await bootSeconds());
    const lastBefore = Math.max(...before.map((entry) => entry.bootSeconds));
    const firstAfter = Math.min(...after.map((entry) => entry.bootSeconds));
    assert.ok(lastBefore < firstAfter, `n1 wrote until ${lastBefore}, ${now.name} from ${firstAfter}`);
    assert.deepEqual([...new Set(after.map(({ node }) => node))], [now.name]);
    await now.docker('stop', '-t', '1', writer.container);
    const all = [...before, ...late, ...(await acknowledged(now, writer))];
    const { faults, lost } = checkRecords(await readRecords(now, writer), all);
    assert.deepEqual(faults, []);
    assert.deepEqual(
      lost.filter(({ node }) => node !== 'n1'),
      [],
    );
    await assertRescued(now, writer, lost);
  }

  /** The containers of before are still on the first host, stopped, by another name. */
  async function assertPutAway(ids: readonly string[]): Promise<void> {
    for (const id of ids)
      await until(`container ${id.slice(0, 12)} is put away on n1`, 60_000, async () => {
        const [name = '', isRunning = ''] = (
          await n(1)
            .docker('inspect', '--format', '{{.Name}} {{.State.Running}}', id)
            .catch(() => '')
        ).split(' ');
        return isRunning === 'false' && !['/web', `/${writer.container}`].includes(name) ? true : undefined;
      });
  }

  return { n, hosts, web, begin, writesElsewhere, assertOneWriter, assertPutAway };
}

/** A host dies, and what ran on it runs elsewhere; nobody had to say so. */
export function hostKilled(members: () => Members): void {
  const { n, web, begin, writesElsewhere, assertOneWriter, assertPutAway } = sceneOf(members);

  describe('failover', () => {
    it('a host is killed: its containers are made elsewhere, routes follow, and what it had is put away when it is back', async () => {
      const { webId, writerId } = await begin();
      // Its only copy is in the other data center, and then the owner of that one's.
      await createVolume(n(1), lone, ['replicas=0', 'remote-replicas=1', 'failover=auto']);
      const inSync = async () => {
        const copy = await copyOf(n(1), lone, 'n3');
        return copy?.state === 'in-sync' ? copy : undefined;
      };
      await until('the lone volume has its copy', 60_000, inSync);
      await n(1).sh(lone, 'echo kept > /data/file');
      // In sync is what has the newest snapshot, and of what was just written there may be none yet.
      const before = await copyOf(n(1), lone, 'n3');
      await n(1).flockctl('snapshot', 'create', lone, 'kept');
      await until('the copy of the lone volume has what was written', 60_000, async () => {
        const copy = await inSync();
        return copy !== undefined && copy.snapshot !== before?.snapshot ? true : undefined;
      });
      const loads = loadCounter([n(2), n(3)], web);
      const killedAt = await bootSeconds();
      const acknowledgedBefore = await acknowledged(n(1), { ...writer, container: writerId });
      const startedAt = () => n(1).docker('inspect', '--format', '{{.State.StartedAt}}', webId);
      const startedBefore = await startedAt();
      await n(1).kill();
      const now = await writesElsewhere(killedAt);
      const webNode = await until('the web service is served elsewhere', backMsMax, async () => {
        const node = (await workloadsOf(members())).find(({ name }) => name === 'web')?.node;
        return node === undefined || node === 'n1' ? undefined : node;
      });
      await answersFrom([n(2), n(3)], web, webNode, backMsMax);
      const backAt = await bootSeconds();
      console.log(`      both were back ${(backAt - killedAt).toFixed(1)} s after the kill`);
      assert.ok((await happened(members(), 'failover', /log/)).length > 0);
      assert.ok((await happened(members(), 'recreated', /web/)).length > 0);
      // No other copy lives, so nobody waits for the dead node.
      await until('there is another copy of the lone volume', 60_000, async () =>
        (await copyOf(n(3), lone, 'n2').catch(() => null))?.state === 'in-sync' ? true : undefined,
      );
      assert.equal((await volumeOf(members(), lone)).doc.owner, 'n3');

      await n(1).boot();
      await assertPutAway([webId, writerId]);
      assert.equal(await startedAt(), startedBefore, 'Docker would have started it, and was not let');
      await settled(members(), 120_000);
      const results = await Promise.all(loads.map((one) => one.stop()));
      const { faults, answered } = checkNoted(await notedBy(await ownerOf(members(), web.volume), web), results);
      // What was answered and not replicated yet may be in a stash: at most what came in the last second, in the order of time.
      const twice = faults.filter((fault) => fault.includes('times'));
      assert.deepEqual(twice, []);
      assert.ok(answered > 100);
      const last = await acknowledged(n(1), { ...writer, container: writerId });
      await assertOneWriter(now, last.length > 0 ? last : acknowledgedBefore);
      assert.equal(await n(2).sh(lone, 'cat /data/file'), 'kept');
    });
  });
}

/** The same for hosts that only seem to be dead, and what dies on a living one. */
export function failovers(members: () => Members): void {
  const { n, hosts, web, begin, writesElsewhere, assertOneWriter, assertPutAway } = sceneOf(members);

  /** Until a record of after this time is acknowledged, wherever. */
  const writesAfter = (seconds: number) =>
    until(`the writer writes after ${seconds}`, backMsMax, async () => {
      const seen = await volumeOf(members(), writer.volume).catch(() => null);
      const owner = hosts().find(({ name }) => name === seen?.doc.owner) ?? n(1);
      const entries = await acknowledged(owner, writer).catch(() => []);
      return entries.some((entry) => entry.bootSeconds > seconds) ? true : undefined;
    });

  describe('failover', () => {
    it('a killed host is back at once, and then again in the middle of its failover: one writer at a time, as its owners followed each other', async () => {
      await startReplicatedWriter(n(1), writer, copies);
      await known(members(), n(1), writer.container);
      const logs = followWriters(members(), [writer.container]);
      const owners = followOwners(members(), writer.volume);
      try {
        await n(1).kill();
        await sleep(1_000);
        await n(1).boot();
        await writesAfter(await bootSeconds());
        await settled(members(), 120_000);
        const second = await ownerOf(members(), writer.volume);
        await second.kill();
        await until('its session is over', 60_000, async () =>
          (await volumeOf(members(), writer.volume).catch(() => null))?.session === null ? true : undefined,
        );
        // From here on the others may take the volume, and the container after it.
        await sleep(timing.guardMs);
        await second.boot();
        await writesAfter(await bootSeconds());
        await settled(members(), 120_000);
      } finally {
        await Promise.all([logs.stop(), owners.stop()]);
      }
      const now = await ownerOf(members(), writer.volume);
      await now.docker('stop', '-t', '1', writer.container);
      const heard = logs.heard(writer.container);
      const text = await readRecords(now, writer);
      const inTurn = owners.seen();
      console.log(`      owners: ${inTurn.join(', ')}; writers: ${writersIn(text).join(', ')}`);
      assert.equal(inTurn.at(-1), now.name);
      assert.deepEqual(checkTurns(text, inTurn), []);
      assertInTurns(heard);
      const { faults, lost } = checkRecords(text, heard);
      assert.deepEqual(faults, []);
      await assertRescued(now, writer, lost);
    });

    it('a host is cut off from the others: it stands still, and then the others go on', async () => {
      const { webId, writerId } = await begin();
      await members().cluster.leadElsewhere([1]);
      const cutAt = await bootSeconds();
      await isolate(members(), n(1));
      const now = await writesElsewhere(cutAt);
      await until('the web service is elsewhere', backMsMax, async () =>
        (await workloadsOf(members())).some(({ name, node }) => name === 'web' && node !== 'n1') ? true : undefined,
      );
      await members().cluster.heal();
      await assertPutAway([webId, writerId]);
      await settled(members(), 120_000);
      await assertOneWriter(now, await acknowledged(n(1), { ...writer, container: writerId }));
    });

    it('a host is cut off from Consul only: its containers serve on, through all hosts, and nobody takes their place', async () => {
      const { webId, writerId } = await begin();
      const failovers = async () => (await happened(members(), 'failover', /./)).length;
      const before = await failovers();
      const loads = loadCounter(hosts(), web);
      await members().cluster.leadElsewhere([1]);
      await members().cluster.network.partitionConsul([1], [2, 3]);
      await until('n1 counts as dead', 60_000, async () =>
        /^n1 +DOWN/m.test(await n(2).flockctl('node', 'ls')) ? true : undefined,
      );
      await sleep(cutMs);
      const workloads = await workloadsOf(members());
      await members().cluster.heal();
      await settled(members(), 120_000);
      await sleep(2_000);
      const results = await Promise.all(loads.map((one) => one.stop()));
      assert.deepEqual(
        results.flatMap(({ workers }) => workers.flatMap(({ failed }) => failed)),
        [],
      );
      const { faults, answered } = checkNoted(await notedBy(n(1), web), results);
      assert.deepEqual(faults, []);
      assert.ok(answered > 500, `${answered}`);
      for (const seen of [workloads, await workloadsOf(members())])
        assert.deepEqual(
          ['web', writer.container].map((name) => seen.find((one) => one.name === name)?.containerId),
          [webId, writerId],
        );
      assert.equal(await failovers(), before);
    });

    it('a host stands still: the others go on without it, and what it does when it wakes up is in no volume', async () => {
      const { webId, writerId } = await begin();
      const frozenAt = await bootSeconds();
      await n(1).freeze();
      const now = await writesElsewhere(frozenAt);
      await until('the web service is elsewhere', backMsMax, async () =>
        (await workloadsOf(members())).some(({ name, node }) => name === 'web' && node !== 'n1') ? true : undefined,
      );
      const thawedAt = await bootSeconds();
      await members().cluster.heal();
      await assertPutAway([webId, writerId]);
      await settled(members(), 120_000);
      const all = await acknowledged(n(1), { ...writer, container: writerId });
      // Until its own fence and watchdog have had their turn, too.
      const late = all.filter(({ bootSeconds: at }) => at > thawedAt);
      const latest = Math.max(thawedAt, ...late.map(({ bootSeconds: at }) => at));
      assert.ok(latest - thawedAt < wakeSecondsMax, `n1 wrote for ${latest - thawedAt} s after it woke up`);
      await assertOneWriter(
        now,
        all.filter((entry) => !late.includes(entry)),
        late,
      );
    });

    it('a host lives on without its disk: the others go on with its volumes, all else goes on there; when it has a disk again it follows', async () => {
      const { webId, writerId } = await begin();
      const plain = counterOf('plain');
      await runScript(n(1), plain.name, echo, counterLabels(plain));
      await known(members(), n(1), plain.name);
      await answersFrom(hosts(), plain, 'n1');
      const load = startRequestLoad(n(3), { name: 'plain', url: `http://${n(2).address}/`, host: plain.host });
      const ofFirst = { ...writer, container: writerId };
      const failedAt = await bootSeconds();
      const mend = await failDisk(n(1));
      try {
        const now = await writesElsewhere(failedAt);
        const webNode = await until('the web service is elsewhere', backMsMax, async () => {
          const node = (await workloadsOf(members())).find(({ name }) => name === 'web')?.node;
          return node === undefined || node === 'n1' ? undefined : node;
        });
        // The first host's own entrance leads there, too.
        await answersFrom(hosts(), web, webNode, backMsMax);
        console.log(
          `      both were back ${((await bootSeconds()) - failedAt).toFixed(1)} s after the disk had failed`,
        );
        const [lost] = await happened(members(), 'pool-lost', /n1/);
        assert.match(lost?.text ?? '', /read-only: volumes of this node/);
        const { workers } = await load.stop();
        assert.deepEqual(
          workers.flatMap(({ failed }) => failed),
          [],
        );
        assert.ok(workers.reduce((sum, { sent }) => sum + sent, 0) > 100);
        await answersFrom(hosts(), plain, 'n1');
        assert.match(await n(2).flockctl('node', 'ls'), /n1 .*up, POOL LOST/);
        const before = await acknowledged(n(1), ofFirst);
        assert.ok(before.length > 0);
        await mend();
        await n(1).kill();
        await n(1).boot();
        await assertPutAway([webId, writerId]);
        await settled(members(), 120_000);
        await assertOneWriter(now, before);
        await until('it has said that its pool is back', 30_000, async () =>
          (await happened(members(), 'pool-back', /n1/)).length > 0 ? true : undefined,
        );
      } finally {
        await load.stop().catch(() => undefined);
        await mend().catch(() => undefined);
      }
    });

    it('a container’s process and a Docker daemon that die on a living host are back there', async () => {
      await startCounter(n(1), web);
      await known(members(), n(1), 'web');
      await answersFrom(hosts(), web, 'n1');
      const pid = await n(1).docker('inspect', '--format', '{{.State.Pid}}', 'web');
      await n(1).host.run('kill', ['-KILL', pid]);
      await until('it is another process', 60_000, async () => {
        const now = await n(1).docker('inspect', '--format', '{{.State.Pid}}', 'web');
        return now !== '0' && now !== pid ? true : undefined;
      });
      await answersFrom(hosts(), web, 'n1', backMsMax);
      await n(1).killDocker();
      await sleep(1_000);
      await n(1).repair();
      await answersFrom(hosts(), web, 'n1', backMsMax);
      // What a person stops stays so.
      await n(1).docker('stop', '-t', '1', 'web');
      await sleep(5_000);
      assert.equal(await n(1).docker('inspect', '--format', '{{.State.Running}}', 'web'), 'false');
    });
  });
}
