import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandError } from '../../../plugin/exec.ts';
import { until } from '../../support/until.ts';
import {
  createPlugin,
  docker,
  enableAnew,
  enablePlugin,
  flockctl,
  forgetFlock,
  hostMounts,
  json,
  killPlugin,
  mounting,
  run,
  sh,
  startDocker,
} from './machine.ts';

type Volume = { readonly id: string; readonly mounts: number };
type TrashEntry = { readonly id: string; readonly name: string; readonly reason: string };

/** Writes a numbered line with fsync, a few in each second: more would take the processor from the plugin. Says if a write fails. */
const writer =
  'i=0; while :; do i=$((i+1)); echo $i >> /data/log && sync /data/log || { echo FAILED at $i; exit 1; }; usleep 200000; done';

const volume = async (name: string): Promise<Volume> => {
  const [found] = (await json('volume', 'inspect', name)) as readonly Volume[];
  assert.ok(found, name);
  return found;
};
const trashed = async (name: string): Promise<TrashEntry> => {
  const found = ((await json('trash', 'ls')) as readonly TrashEntry[]).find((entry) => entry.name === name);
  assert.ok(found, `${name} is in the trash`);
  return found;
};
/** Answers how often the volume is then mounted, as the machine sees it. */
async function startWriter(name: string): Promise<number> {
  await docker('run', '-d', '--name', name, ...mounting(name), 'sh', '-c', writer);
  const { length } = await hostMounts((await volume(name)).id);
  assert.ok(length > 0);
  return length;
}

const lastLine = async (name: string) => Number(await docker('exec', name, 'tail', '-n', '1', '/data/log'));
/** stderr of a command that fails. */
const complaint = async (work: Promise<unknown>): Promise<string> => {
  const error = await work.then(
    () => assert.fail('the command succeeded, but it should have failed'),
    (reason: unknown) => reason,
  );
  if (error instanceof CommandError) return error.stderr;
  throw error;
};

/** It must still write. Removes it; then no mount of its volume and every line of it must be there. */
async function stopWriter(name: string): Promise<void> {
  const before = await lastLine(name);
  assert.equal(await docker('inspect', '--format', '{{.State.Running}}', name), 'true', await docker('logs', name));
  const { id, mounts } = await volume(name);
  assert.equal(mounts, 1);
  await docker('rm', '-f', name);
  assert.equal((await volume(name)).mounts, 0);
  assert.deepEqual(await hostMounts(id), []);
  const lines = (await sh(name, 'cat /data/log')).split('\n').map(Number);
  assert.ok(lines.length >= before, `${lines.length} lines, ${before} were acknowledged`);
  assert.deepEqual(
    lines,
    lines.map((_, index) => index + 1),
  );
}

describe('the managed plugin on OpenZFS', () => {
  before('start Docker, make the plugin', async () => {
    await startDocker();
    await createPlugin();
  });

  describe('with the pool that it makes', () => {
    before(() => enableAnew('backend=zfs'));
    after(() => docker('plugin', 'disable', '-f', 'flock'));

    it('is in a file of the host', async () => {
      // The plugin answers Docker before it has made the pool.
      const status = await until('the pool is made', 60_000, () =>
        run('zpool', ['status', 'flock']).catch(() => undefined),
      );
      assert.match(status, /\s\/var\/lib\/flock\/pool\.zfs\s+ONLINE/);
    });

    it('keeps what one container writes for the next', async () => {
      await docker('volume', 'create', '-d', 'flock', '-o', 'size=64M', 'first');
      await sh('first', 'echo hello > /data/file');
      const { id } = await volume('first');
      const mount = `flock/volumes/${id} /data zfs`;
      assert.equal(await sh('first', 'cat /data/file; grep -o "^.* /data zfs" /proc/mounts'), `hello\n${mount}`);
      const [inspected] = JSON.parse(await docker('volume', 'inspect', 'first')) as [
        { Status: Record<string, string> },
      ];
      assert.deepEqual([inspected.Status['backend'], inspected.Status['size']], ['zfs', '64 MiB']);
      assert.equal(await run('zfs', ['get', '-Hp', '-o', 'value', 'refquota', `flock/volumes/${id}`]), '67108864');
      assert.match(await flockctl('df'), /flock\/volumes/);
    });

    it('lets a volume grow to its size and no further', async () => {
      await docker('volume', 'create', '-d', 'flock', '-o', 'size=16M', '-o', 'compression=off', 'small');
      const fill = 'dd if=/dev/zero of=/data/fill bs=1M count=24 conv=fsync';
      assert.match(await complaint(sh('small', fill)), /quota exceeded/i);
      await flockctl('volume', 'resize', 'small', '48M');
      await sh('small', fill);
      assert.match(await complaint(flockctl('volume', 'resize', 'small', '8M')), /small/);
    });

    it('snapshots, clones and rolls back', async () => {
      await flockctl('snapshot', 'create', 'first', 'one');
      await sh('first', 'echo later > /data/file');
      await flockctl('clone', 'first@one', 'branch');
      await docker('volume', 'create', '-d', 'flock', '-o', 'from=first', 'copy');
      assert.equal(await sh('branch', 'cat /data/file'), 'hello');
      assert.equal(await sh('copy', 'cat /data/file'), 'later');
      await flockctl('rollback', 'first', 'one');
      assert.equal(await sh('first', 'cat /data/file'), 'hello');
      const { id, reason } = await trashed('first');
      assert.equal(reason, 'rolled back');
      await flockctl('trash', 'restore', id, 'before-rollback');
      assert.equal(await sh('before-rollback', 'cat /data/file'), 'later');
    });

    it('moves a removed volume to the trash and brings it back', async () => {
      await sh('precious', 'echo data > /data/file');
      await docker('volume', 'rm', 'precious');
      assert.ok(!(await docker('volume', 'ls', '-q')).split('\n').includes('precious'));
      await flockctl('trash', 'restore', (await trashed('precious')).id);
      assert.equal(await sh('precious', 'cat /data/file'), 'data');
      await docker('volume', 'rm', 'precious');
      const { id } = await trashed('precious');
      await flockctl('trash', 'purge', id);
      assert.ok(!(await run('zfs', ['list', '-H', '-o', 'name'])).includes(id));
    });

    it('is killed under a container that writes', async () => {
      const mountsBefore = await startWriter('killed');
      for (let round = 0; round < 2; round += 1) {
        await killPlugin();
        // Docker dials a restarted plugin after half a second, and disables one that has died again by then.
        await sleep(3_000);
      }
      const { id } = await volume('killed');
      assert.equal((await hostMounts(id)).length, mountsBefore, 'mounts are not stacked');
      await stopWriter('killed');
    });

    it('is disabled and enabled under a container that writes, which a second one then joins', async () => {
      await startWriter('disabled');
      await docker('plugin', 'disable', '-f', 'flock');
      const before = await lastLine('disabled');
      await enablePlugin();
      const seen = Number(await sh('disabled', 'tail -n 1 /data/log'));
      assert.ok(seen >= before, `${seen}, ${before} before`);
      assert.ok((await lastLine('disabled')) > seen, 'both see the same data');
      await stopWriter('disabled');
    });

    it('leaves nothing of the pool in use when it is disabled', async () => {
      await sh('left', 'echo hello > /data/file');
      await docker('plugin', 'disable', '-f', 'flock');
      await run('zpool', ['export', 'flock']);
      await enablePlugin();
      assert.equal(await sh('left', 'cat /data/file'), 'hello');
    });
  });

  describe('with a pool of the operator', () => {
    before(async () => {
      await forgetFlock();
      await run('zpool', ['create', '-O', 'compression=lz4', 'tank', '/dev/vdd1']);
      await enableAnew('backend=zfs pool=tank/flock');
    });

    it('keeps volumes below its own dataset', async () => {
      await docker('volume', 'create', '-d', 'flock', 'mine');
      await sh('mine', 'echo hello > /data/file');
      assert.equal(await sh('mine', 'cat /data/file'), 'hello');
      const { id } = await volume('mine');
      const datasets = (await run('zfs', ['list', '-H', '-r', '-o', 'name', 'tank'])).split('\n');
      assert.deepEqual(datasets, ['tank', 'tank/flock', `tank/flock/${id}`]);
    });

    it('says what to do while the pool is not imported, and goes on when it is', async () => {
      await docker('plugin', 'disable', '-f', 'flock');
      await run('zpool', ['export', 'tank']);
      await enablePlugin();
      assert.match(await complaint(sh('mine', 'cat /data/file')), /zpool import tank/);
      assert.ok((await docker('volume', 'ls', '-q')).split('\n').includes('mine'));
      await run('zpool', ['import', '-d', '/dev/vdd1', 'tank']);
      assert.equal(await sh('mine', 'cat /data/file'), 'hello');
    });
  });
});
