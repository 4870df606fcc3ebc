import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { image } from '../../packaging/proof.ts';
import { parseMountInfo } from '../../plugin/mount-table.ts';
import { onEachBackend } from '../support/suite-hosts.ts';
import { until } from '../support/until.ts';

/** Writes a numbered line with fsync every few milliseconds, going on where it was; says so and ends if a write fails. */
const writer =
  'i=$(tail -n 1 /data/log 2>/dev/null || echo 0); while :; do i=$((i+1)); echo $i >> /data/log && sync /data/log || { echo FAILED at $i; exit 1; }; usleep 5000; done';

onEachBackend('containers outlive faults', (flock, backend) => {
  const startWriter = (name: string, ...options: readonly string[]) =>
    flock().docker(
      'run',
      '-d',
      '--name',
      name,
      '--network=none',
      ...options,
      '--volume-driver=flock',
      '-v',
      `${name}:/data`,
      image,
      'sh',
      '-c',
      writer,
    );
  const lastLine = async (name: string) => Number(await flock().docker('exec', name, 'tail', '-n', '1', '/data/log'));
  const running = (name: string) => flock().docker('inspect', '--format', '{{.State.Running}}', name);
  const mountsOf = async (name: string) =>
    ((await flock().json('volume', 'inspect', name)) as { mounts: number; id: string }[])[0];
  /** Mounts of the dataset as the host's first process sees them. */
  const hostMounts = async (id: string) =>
    parseMountInfo(await flock().host.run('cat', ['/proc/1/mountinfo'])).filter(({ mountPoint }) =>
      mountPoint.endsWith(`/propagated-mount/volumes/${id}`),
    );

  /** Every line is there, in order, none twice: what was acknowledged was kept. */
  async function checkLog(name: string, atLeast: number): Promise<void> {
    const lines = (await flock().sh(name, 'cat /data/log')).split('\n').map(Number);
    assert.ok(lines.length >= atLeast, `${lines.length} lines, at least ${atLeast} were acknowledged`);
    assert.deepEqual(
      lines,
      Array.from({ length: lines.length }, (_, index) => index + 1),
    );
  }

  it('the plugin is killed twenty times under a writer', async () => {
    await startWriter('writer');
    const { id } = (await mountsOf('writer')) ?? { id: '' };
    const mountsBefore = (await hostMounts(id)).length;
    assert.ok(mountsBefore > 0);
    for (let round = 0; round < 20; round += 1) {
      await flock().killPlugin();
      await sleep(50);
    }
    const before = await lastLine('writer');
    assert.equal(await running('writer'), 'true', await flock().docker('logs', 'writer'));
    const volume = await mountsOf('writer');
    assert.equal(volume?.mounts, 1);
    // None where Docker itself gave up the plugin in between: it then detaches what it shows on the host, not what containers have.
    assert.ok((await hostMounts(id)).length <= mountsBefore, 'mounts are stacked');
    // A second container comes and goes: the first one's use stays.
    assert.ok(Number(await flock().sh('writer', 'tail -n 1 /data/log')) >= before);
    assert.equal((await mountsOf('writer'))?.mounts, 1);
    await flock().docker('rm', '-f', 'writer');
    assert.equal((await mountsOf('writer'))?.mounts, 0);
    assert.deepEqual(await hostMounts(id), []);
    await checkLog('writer', before);
  });

  it('the Docker daemon is killed and started with containers that restart', async () => {
    // The container refuses to run on an empty directory.
    const guarded = `test -f /data/marker || { echo EMPTY; exit 99; }; ${writer}`;
    await flock().sh('restarted', 'touch /data/marker');
    await flock().docker(
      'run',
      '-d',
      '--name',
      'restarted',
      '--restart=always',
      '--network=none',
      '--volume-driver=flock',
      '-v',
      'restarted:/data',
      image,
      'sh',
      '-c',
      guarded,
    );
    for (let round = 0; round < 2; round += 1) {
      await sleep(300);
      const before = await lastLine('restarted');
      await flock().killDocker();
      await flock().startDocker();
      await until('the container runs again', 30_000, async () => {
        if ((await running('restarted')) === 'true') return true;
        // The daemon took the folder away just as it started its containers: Docker does not try again by itself.
        const error = await flock().docker('inspect', '--format', '{{.State.Error}}', 'restarted');
        if (/does not see what flock mounts/.test(error))
          await flock()
            .docker('start', 'restarted')
            .catch(() => '');
        return undefined;
      }).catch(async (error: Error) => {
        throw new Error(
          `${error.message}: ${await flock().docker('inspect', '--format', '{{json .State}}', 'restarted')}`,
        );
      });
      assert.doesNotMatch(await flock().docker('logs', 'restarted'), /EMPTY|FAILED/);
      assert.ok((await until('it writes', 10_000, () => lastLine('restarted').catch(() => undefined))) >= before);
      assert.equal((await mountsOf('restarted'))?.mounts, 1);
    }
    await flock().docker('rm', '-f', 'restarted');
    assert.equal((await mountsOf('restarted'))?.mounts, 0, 'no use leaks');
    await flock().docker('volume', 'rm', 'restarted');
  });

  it('the daemon takes the plugin’s folder away: no container gets a bare directory, and the plugin mends it', async () => {
    await flock().sh('cut-off', 'echo kept > /data/file');
    const folders = (await flock().host.run('cat', ['/proc/self/mountinfo']))
      .split('\n')
      .map((line) => line.split(' ')[4]);
    const folder = folders.find((point) => point?.endsWith('/propagated-mount'));
    assert.ok(folder !== undefined);
    // As dockerd does it at its start, when it hears late of the end of the plugin before.
    await flock().host.run('umount', ['-l', folder]);
    const error = await flock().dockerError(
      ...['run', '--rm', '--network=none', '--volume-driver=flock', '-v', 'cut-off:/data', image, 'cat', '/data/file'],
    );
    assert.match(error, /does not see what flock mounts/);
    const read = await until('the plugin has started anew', 30_000, () =>
      flock()
        .sh('cut-off', 'cat /data/file')
        .catch((failure: Error) => (/No such file/.test(failure.message) ? 'EMPTY' : undefined)),
    );
    assert.equal(read, 'kept');
    await flock().docker('volume', 'rm', 'cut-off');
  });

  it('the Docker daemon is killed with live-restore: containers and plugin go on', async () => {
    await flock().killDocker();
    await flock().startDocker(['--live-restore']);
    await startWriter('live');
    const plugin = await flock().pluginPid();
    await sleep(300);
    const before = await lastLine('live');
    await flock().killDocker();
    await flock().startDocker(['--live-restore']);
    assert.equal(await running('live'), 'true');
    assert.equal(await flock().pluginPid(), plugin);
    assert.ok((await lastLine('live')) >= before);
    await flock().docker('rm', '-f', 'live');
    assert.equal((await mountsOf('live'))?.mounts, 0);
    await checkLog('live', before);
    await flock().killDocker();
    await flock().startDocker();
  });

  it('the plugin is disabled by force, the container stopped, the plugin enabled, the container started', async () => {
    await startWriter('forced');
    await sleep(200);
    await flock().disable();
    const before = await lastLine('forced');
    assert.equal(await running('forced'), 'true', 'it goes on while the plugin is away');
    await flock().docker('stop', '-t', '0', 'forced');
    await flock().enable();
    await flock().docker('start', 'forced');
    assert.ok((await until('it writes', 10_000, () => lastLine('forced').catch(() => undefined))) >= before);
    assert.equal((await mountsOf('forced'))?.mounts, 1);
    await flock().docker('rm', '-f', 'forced');
    assert.equal((await mountsOf('forced'))?.mounts, 0);
  });

  it('the plugin is disabled and enabled under a running container, which a second one then joins', async () => {
    await startWriter('joined');
    await flock().disable();
    await flock().enable();
    const seen = Number(await flock().sh('joined', 'tail -n 1 /data/log'));
    await until('both see the same data', 5_000, async () => ((await lastLine('joined')) > seen ? true : undefined));
    assert.match(await flock().flockctlError('volume', 'rm', 'joined'), /in use by container joined/);
    await flock().docker('rm', '-f', 'joined');
    await checkLog('joined', seen);
  });

  it('the host is rebooted', async () => {
    await flock().docker(
      'run',
      '-d',
      '--name',
      'rebooted',
      '--restart=always',
      '--network=none',
      '--volume-driver=flock',
      '-v',
      'rebooted:/data',
      image,
      'sh',
      '-c',
      writer,
    );
    await flock().flockctl('snapshot', 'create', 'rebooted', 'before');
    const before = await until('it writes', 10_000, () => lastLine('rebooted').catch(() => undefined));
    await flock().reboot();
    await until('the container runs again', 60_000, async () =>
      (await running('rebooted').catch(() => '')) === 'true' ? true : undefined,
    );
    assert.ok((await until('it writes', 10_000, () => lastLine('rebooted').catch(() => undefined))) >= before);
    assert.doesNotMatch(await flock().docker('logs', 'rebooted'), /FAILED/);
    const snapshots = (await flock().json('snapshot', 'ls', 'rebooted')) as { name: string }[];
    assert.deepEqual(
      snapshots.map(({ name }) => name),
      ['before'],
    );
    assert.equal((await mountsOf('rebooted'))?.mounts, 1);
    await flock().docker('rm', '-f', 'rebooted');
    assert.equal((await mountsOf('rebooted'))?.mounts, 0);
  });

  if (backend === 'zfs') {
    it('the zfs-fuse daemon is killed under a writer: calls say what to do, and a restart brings all back', async () => {
      await startWriter('orphan');
      const before = await until('it writes', 10_000, () => lastLine('orphan').catch(() => undefined));
      for (const pid of await flock().host.pids('zfs-fuse')) process.kill(pid, 'SIGKILL');
      await until('the writer notices', 10_000, async () => ((await running('orphan')) === 'false' ? true : undefined));
      assert.match(await flock().dockerError('start', 'orphan'), /zfs-fuse.*(start|make up)/is);
      assert.match(await flock().docker('volume', 'ls', '-q'), /^orphan$/m);
      await flock().startZfsFuse();
      const started = () =>
        flock()
          .docker('start', 'orphan')
          .then(() => true)
          .catch(() => undefined);
      await until('the container starts', 30_000, started);
      await until('it goes on', 10_000, async () =>
        (await lastLine('orphan').catch(() => 0)) > before ? true : undefined,
      );
      await flock().docker('rm', '-f', 'orphan');
      await checkLog('orphan', before);
    });
  }

  it('the plugin is killed at random moments of creations, clones and removals', async () => {
    await flock().sh('origin', 'echo o > /data/file');
    const work = (async () => {
      for (let round = 0; round < 12; round += 1) {
        const name = `random${round}`;
        await flock()
          .docker('volume', 'create', '-d', 'flock', name)
          .catch(() => '');
        await flock()
          .flockctl('clone', 'origin', `${name}-clone`)
          .catch(() => '');
        await flock()
          .docker('volume', 'rm', name)
          .catch(() => '');
      }
    })();
    let done = false;
    void work.finally(() => {
      done = true;
    });
    while (!done) {
      await sleep(Math.random() * 600);
      await flock().killPlugin();
    }
    await work;
    await until('nothing is half done', 20_000, async () => {
      const volumes = (await flock().json('volume', 'ls')) as { phase: string }[];
      return volumes.every(({ phase }) => phase === 'ready') ? true : undefined;
    });
    for (const { name } of ((await flock().json('volume', 'ls')) as { name: string }[]).filter((volume) =>
      volume.name.endsWith('-clone'),
    )) {
      assert.equal(await flock().sh(name, 'cat /data/file'), 'o');
    }
  });
});
