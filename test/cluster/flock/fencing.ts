import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterHost } from '../../support/cluster/cluster-host.ts';
import {
  acknowledgedAfter,
  acknowledgedBefore,
  failoverToNewest,
  isolate,
  longestGap,
  type Members,
  saidBy,
  settled,
  startReplicatedWriter,
  stashesOf,
  timing,
  volumeOf,
} from '../../support/cluster/members.ts';
import { bootSeconds } from '../../support/cluster/probes.ts';
import {
  acknowledged,
  checkRecords,
  type Entry,
  readRecords,
  startWriter,
  type Writer,
} from '../../support/cluster/records.ts';
import { until } from '../../support/until.ts';

/** Long enough for a session to end and a guard to pass, if nobody prevented it. */
const faultMs = 2 * timing.sessionTtlMs + timing.guardMs + 1_000;

/**
 * A Consul leader that is cut off takes itself for one for this much longer (raft's leader lease with raft_multiplier 1), and goes on
 * confirming sessions. That is no danger: its successor is elected after that, and gives every session its time anew.
 */
const leaderLeaseSeconds = 0.5;

const lastOf = (entries: readonly Entry[]) => Math.max(...entries.map(({ bootSeconds: at }) => at));

/** Who may write: the proofs, the fence and the watchdog, seen from the writers' own records. */
export function fencing(members: () => Members): void {
  let count = 0;
  const nextWriter = (): Writer => {
    count += 1;
    return { container: 'writer', volume: `fenced-${count}` };
  };

  /** Until when the owner's plugin has told its watchdog that the volume may be written, in boot seconds. */
  async function deadlineOf(host: ClusterHost, { volume }: Writer): Promise<number> {
    const deadlines = JSON.parse(await host.host.run('cat', ['/run/flock/deadlines.json'])) as [string, number][];
    const found = deadlines.find(([id]) => id.startsWith(`${volume}.`));
    if (found === undefined) throw new Error(`no deadline for ${volume} in ${JSON.stringify(deadlines)}`);
    return found[1] / 1000;
  }

  /** Fails if a record is younger than fencing allows. Answers the last one's time. */
  async function assertFenced(host: ClusterHost, writer: Writer, cutAt: number): Promise<number> {
    const deadline = await deadlineOf(host, writer);
    const latest = cutAt + leaderLeaseSeconds + timing.fenceAfterMs / 1000;
    assert.ok(deadline <= latest, `deadline ${deadline}, cut at ${cutAt}`);
    const last = lastOf(await acknowledged(host, writer));
    const stopped = deadline + timing.fenceMs / 1000;
    assert.ok(last <= stopped, `a record of ${last}, but everything was to stand at ${stopped}; cut at ${cutAt}`);
    await sleep(1_000);
    assert.equal(lastOf(await acknowledged(host, writer)), last, 'it went on writing');
    return last;
  }

  const fencedSince = async (host: ClusterHost, sinceMs: number) =>
    (await saidBy(host, sinceMs)).filter(({ event }) => event === 'fence.frozen');

  /** The writer's host has everything that was acknowledged, and the volume has not changed hands. */
  async function assertUndisturbed(host: ClusterHost, writer: Writer): Promise<void> {
    await host.docker('stop', '-t', '0', writer.container);
    const entries = await acknowledged(host, writer);
    const { faults, lost } = checkRecords(await readRecords(host, writer), entries);
    assert.deepEqual({ faults, lost }, { faults: [], lost: [] });
    const { doc } = await volumeOf(members(), writer.volume);
    assert.deepEqual({ owner: doc.owner, epoch: doc.epoch }, { owner: host.name, epoch: 1 });
    assert.deepEqual(await stashesOf(host), []);
  }

  /** While the fault lasts, the writer on the first host must not stand still for as long as fencing would make it. */
  async function assertGoesOn(writer: Writer, begin: () => Promise<unknown>): Promise<void> {
    const owner = members().n(1);
    await startReplicatedWriter(owner, writer);
    const sinceMs = Date.now();
    const from = await bootSeconds();
    await begin();
    await sleep(faultMs);
    const to = await bootSeconds();
    const gap = longestGap(await acknowledged(owner, writer), from, to);
    assert.deepEqual(await fencedSince(owner, sinceMs), []);
    assert.ok(gap < timing.fenceAfterMs / 1000, `nothing was written for ${gap} s`);
  }

  describe('who may write', () => {
    it('an owner that only Consul does not reach goes on while all nodes with copies promise, and nobody may take over', async () => {
      const { cluster, n } = members();
      const writer = nextWriter();
      await assertGoesOn(writer, () => cluster.network.partitionConsul([1], [2, 3]));
      await assert.rejects(n(2).flockctl('failover', writer.volume, 'n2', '--yes'), /may still write|still holds/);
      await cluster.heal();
      await settled(members());
      await assertUndisturbed(n(1), writer);
    });

    it('an owner that is cut off from everything stands still in time, and goes on when nobody took over', async () => {
      const { cluster, n } = members();
      const writer = nextWriter();
      await startReplicatedWriter(n(1), writer);
      await isolate(members(), n(1));
      const cutAt = await bootSeconds();
      await sleep(timing.fenceAfterMs + timing.fenceMs + 500);
      const last = await assertFenced(n(1), writer, cutAt);
      await sleep(2_000);
      assert.equal(lastOf(await acknowledged(n(1), writer)), last);
      await cluster.heal();
      await acknowledgedAfter(n(1), writer, await bootSeconds());
      await settled(members());
      await assertUndisturbed(n(1), writer);
    });

    it('the watchdog stops the writers of a plugin that stands still', async () => {
      const { cluster, n } = members();
      const writer = nextWriter();
      await startReplicatedWriter(n(1), writer);
      await isolate(members(), n(1));
      const cutAt = await bootSeconds();
      await n(1).freezeDaemon('plugin');
      await sleep(timing.fenceAfterMs + timing.fenceMs + 500);
      await assertFenced(n(1), writer, cutAt);
      await cluster.heal();
      await acknowledgedAfter(n(1), writer, await bootSeconds());
      await settled(members());
      await assertUndisturbed(n(1), writer);
    });

    it('a plugin that is killed and restarted is not noticed by the writers', async () => {
      const { n } = members();
      const writer = nextWriter();
      await assertGoesOn(writer, async () => await n(1).killPlugin());
      await settled(members());
      await assertUndisturbed(n(1), writer);
    });
  });

  describe('Consul in trouble', () => {
    it('owners write on when its leader is killed', async () => {
      const { cluster, n } = members();
      const writer = nextWriter();
      await assertGoesOn(writer, () => cluster.killLeader());
      await cluster.heal();
      await settled(members());
      await assertUndisturbed(n(1), writer);
    });

    it('owners write on when their own agent is killed', async () => {
      const { cluster, n } = members();
      const writer = nextWriter();
      await assertGoesOn(writer, () => n(1).killDaemon('consul'));
      await cluster.heal();
      await settled(members());
      await assertUndisturbed(n(1), writer);
    });

    it('owners write on by promises without a quorum, stand still without those too, and go on with both', async () => {
      const { cluster, n } = members();
      const writer = nextWriter();
      await assertGoesOn(writer, () => cluster.takeQuorum());
      // One of two nodes with copies does not answer any more.
      await cluster.network.partition([1], [3]);
      const cutAt = await bootSeconds();
      await sleep(timing.fenceAfterMs + timing.fenceMs + 500);
      await assertFenced(n(1), writer, cutAt);
      await cluster.heal();
      await acknowledgedAfter(n(1), writer, await bootSeconds());
      await settled(members());
      await assertUndisturbed(n(1), writer);
    });
  });
}

/** What becomes of both sides' writes when a volume is taken over. */
export function takeovers(members: () => Members): void {
  describe('a takeover', () => {
    it('a takeover during a partition: the old owner stands still before the new one writes, its writes become a stash', async () => {
      const { cluster, n } = members();
      const writer = { container: 'writer', volume: 'taken' };
      const old = n(1);
      await startReplicatedWriter(old, writer);
      await isolate(members(), old);
      // Which copy got the last difference before the cables were cut is chance.
      const next = await failoverToNewest([n(2), n(3)], writer.volume);
      const third = next === n(2) ? n(3) : n(2);
      await startWriter(next, writer);
      const fromNext = await acknowledgedAfter(next, writer, await bootSeconds());
      const fromOld = await acknowledged(old, writer);
      const firstOfNext = Math.min(...fromNext.map(({ bootSeconds: at }) => at));
      assert.ok(lastOf(fromOld) < firstOfNext, 'two nodes wrote at once');

      await cluster.heal();
      await until('the container of the old owner is stopped', 30_000, async () => {
        const running = await old.docker('inspect', '--format', '{{.State.Running}}', writer.container);
        return running === 'false' ? true : undefined;
      });
      await settled(members());
      const { doc } = await volumeOf(members(), writer.volume);
      assert.deepEqual([doc.owner, doc.epoch], [next.name, 2]);
      // In the other data center one copy is all that is wanted of this one.
      assert.ok(doc.replicas.length > 0 && !doc.replicas.some((name) => name === next.name), doc.replicas.join());

      await next.docker('stop', '-t', '0', writer.container);
      // A node that is to hold no copy any more waits half a minute before it gives up what it has.
      const stash = await until(
        'what only the old owner had is a stash',
        90_000,
        async () => (await stashesOf(next))[0],
      );
      assert.deepEqual([stash.node, stash.volume], ['n1', writer.volume]);
      const replicated = await acknowledgedBefore(fromOld, stash.common ?? '');
      assert.ok(replicated.length > 0);
      const found = await readRecords(next, writer);
      const { faults, lost } = checkRecords(found, [...replicated, ...(await acknowledged(next, writer))]);
      assert.deepEqual({ faults, lost }, { faults: [], lost: [] });

      // What only the old owner had is not lost either.
      await next.flockctl('stash', 'restore', stash.id, 'rescued');
      const rescued = checkRecords(await readRecords(third, { ...writer, volume: 'rescued' }), fromOld);
      assert.deepEqual({ faults: rescued.faults, lost: rescued.lost }, { faults: [], lost: [] });
      // And each copy is the volume.
      for (const host of [third, old]) assert.equal(await readRecords(host, writer), found);
    });
  });
}
