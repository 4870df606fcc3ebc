import assert from 'node:assert/strict';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { image } from '../../packaging/proof.ts';
import { createCommands } from '../../plugin/exec.ts';
import { onEachBackend } from '../support/suite-hosts.ts';
import { until } from '../support/until.ts';

const poolFiles = { btrfs: 'pool.btrfs', zfs: 'pool.zfs' } as const;

onEachBackend('a pool that fails', (flock, backend) => {
  const poolState = async () =>
    (await flock().json('df')) as { state: string; message: string | null; freeBytes: number | null };

  it('full: the writer gets the error, and volumes can still be listed, snapshotted away, removed and purged', async () => {
    await flock().sh('other', 'echo kept > /data/file');
    const output = await flock().sh(
      'filler',
      'dd if=/dev/zero of=/data/fill bs=1M count=2000 2>&1; echo; sync; ls /data',
    );
    assert.match(output, /No space left on device/);
    assert.match(output, /fill/);
    assert.equal(await flock().sh('other', 'cat /data/file'), 'kept');
    assert.match(await flock().docker('volume', 'ls'), /filler/);
    await flock().docker('volume', 'rm', 'filler');
    await flock().flockctl('trash', 'purge', 'filler');
    await until('the space is free again', 30_000, async () =>
      ((await poolState()).freeBytes ?? 0) > 500 * 1024 ** 2 ? true : undefined,
    );
    assert.equal(
      await flock().sh('filler', 'dd if=/dev/zero of=/data/fill bs=1M count=100 conv=fsync 2>/dev/null; echo ok'),
      'ok',
    );
  });

  it('missing at start: Docker forgets nothing, errors name what is missing, nothing is made in its place, and it is found again', async () => {
    await flock().docker('volume', 'create', '-d', 'flock', '--label', 'keep=me', 'labelled');
    await flock().sh('labelled', 'echo data > /data/file');
    await flock().host.kill();
    const file = join(flock().host.disk, 'flock', poolFiles[backend]);
    await rename(file, `${file}.away`);
    await flock().reboot();
    const [inspected] = JSON.parse(await flock().docker('volume', 'inspect', 'labelled')) as {
      Labels: Record<string, string>;
    }[];
    assert.equal(inspected?.Labels['keep'], 'me');
    const refused = await flock().dockerError('run', '--rm', '--network=none', '-v', 'labelled:/data', image, 'true');
    assert.match(refused, new RegExp(poolFiles[backend]));
    assert.match(await flock().dockerError('volume', 'create', '-d', 'flock', 'new'), /flock: /);
    const pool = await poolState();
    assert.equal(pool.state, 'missing', JSON.stringify(pool));
    await rename(`${file}.away`, file);
    assert.equal(
      await until('the volume can be used again', 20_000, () =>
        flock()
          .sh('labelled', 'cat /data/file')
          .catch(() => undefined),
      ),
      'data',
    );
  });

  // zfs-fuse has no read-only import; the module's is tested in test/openzfs.
  if (backend === 'btrfs') {
    it('read-only: says so, and works again afterwards', async () => {
      await flock().sh('reader', 'echo data > /data/file');
      await remountPool('ro');
      await until('df says so', 10_000, async () => ((await poolState()).state === 'read-only' ? true : undefined));
      assert.match(await flock().dockerError('volume', 'create', '-d', 'flock', 'fails'), /read-only/i);
      assert.doesNotMatch(await flock().docker('volume', 'ls', '-q'), /^fails$/m);
      await remountPool('rw');
      assert.equal(await flock().sh('reader', 'cat /data/file'), 'data');
    });
  }

  /** As the kernel does it after an error. The top level is mounted in the plugin's own namespace only. */
  async function remountPool(mode: 'ro' | 'rw'): Promise<void> {
    const inPlugin = ['-t', String(await flock().pluginPid()), '-m', '--'];
    await createCommands().run('nsenter', [...inPlugin, '/usr/bin/mount', '-o', `remount,${mode}`, '/run/flock/pool']);
  }
});
