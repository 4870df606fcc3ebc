import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type FaultMode, type FaultProxy, startFaultProxy } from '../../support/cluster/fault-proxy.ts';
import { copyOf, createVolume, fill, type Members, settled, sumOf, volumeOf } from '../../support/cluster/members.ts';
import { until } from '../../support/until.ts';

/** Larger than a whole call with its handshake, smaller than every stream here. */
const afterBytes = 2 * 1024 ** 2;

/** Streams between two plugins on a connection that does them harm. */
export function streams(members: () => Members): void {
  describe('streams on a bad connection', () => {
    let proxy: FaultProxy;
    const name = 'streamed';

    beforeEach(async () => {
      const { n } = members();
      await createVolume(n(1), name, ['replicas=1']);
      await settled(members());
      proxy = await startFaultProxy(n(2));
    });
    afterEach(async () => await proxy?.close());

    const waitForCopy = (seen: (copy: NonNullable<Awaited<ReturnType<typeof copyOf>>>) => boolean) =>
      until('the copy is as it is to be', 60_000, async () => {
        const copy = await copyOf(members().n(1), name, 'n2');
        return copy !== null && seen(copy) ? copy : undefined;
      });

    /** The copy is as it was while the fault lasts, and what the volume is soon after. */
    async function assertRecovers(mode: FaultMode, count: 'cut' | 'corrupted'): Promise<string> {
      const { n } = members();
      const before = await waitForCopy(({ state, snapshot }) => state === 'in-sync' && snapshot !== null);
      await proxy.set(mode);
      const sum = await fill(n(1), name, 30);
      const failing = await waitForCopy(({ problem }) => problem !== null);
      assert.ok((await proxy.counts())[count] > 0);
      assert.equal(failing.snapshot ?? before.snapshot, before.snapshot);
      await proxy.set({ kind: 'pass' });
      await waitForCopy(({ state, problem }) => state === 'in-sync' && problem === null);
      assert.equal(await sumOf(n(2), name), sum);
      return failing.problem ?? '';
    }

    it('a stream that is cut in the middle changes nothing, and the next one arrives', async () => {
      assert.match(await assertRecovers({ kind: 'cut', afterBytes }, 'cut'), /n2/);
    });

    it('a flipped bit is noticed, changes nothing, and the next stream arrives', async () => {
      assert.match(await assertRecovers({ kind: 'corrupt', afterBytes }, 'corrupted'), /n2/);
    });

    it('nobody takes anything from a node that was the owner in an epoch before', async () => {
      const { n } = members();
      await waitForCopy(({ state, snapshot }) => state === 'in-sync' && snapshot !== null);
      const { doc: old } = await volumeOf(members(), name);
      assert.deepEqual([old.owner, old.epoch], ['n1', 1]);
      await n(2).sh(name, 'echo kept > /data/x');
      await n(3).sh(name, 'echo kept >> /data/x');
      await settled(members());
      const script = join(import.meta.dirname, '../../support/cluster/stale-owner.ts');
      for (const to of [n(2), n(3)]) {
        const told = await n(1).host.run(process.execPath, [script, to.name, to.address, JSON.stringify(old)]);
        assert.equal(told, 'epoch-stale\nepoch-stale\nepoch-stale');
      }
      assert.equal(await n(2).sh(name, 'cat /data/x'), 'kept\nkept');
    });

    it('a slow connection only takes longer, and nobody can repeat what was said on another', async () => {
      const { n } = members();
      await proxy.set({ kind: 'delay', ms: 100 });
      const slow = await fill(n(1), name, 5);
      await waitForCopy(({ state }) => state === 'in-sync');
      await proxy.set({ kind: 'duplicate' });
      const sum = await fill(n(1), name, 20, 'twice');
      await waitForCopy(({ state, problem }) => state === 'in-sync' && problem === null);
      assert.ok((await proxy.counts()).duplicated > 0);
      await proxy.set({ kind: 'pass' });
      assert.equal(await sumOf(n(2), name), slow);
      assert.equal(await sumOf(n(2), name, 'twice'), sum);
    });
  });
}
