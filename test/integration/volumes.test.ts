import assert from 'node:assert/strict';
import { onEachBackend } from '../support/suite-hosts.ts';

type Inspected = {
  readonly Mountpoint: string;
  readonly Scope: string;
  readonly Driver: string;
  readonly CreatedAt: string;
  readonly Status: Record<string, unknown>;
};

onEachBackend('docker with flock volumes', (flock, backend) => {
  const inspect = async (name: string) =>
    (JSON.parse(await flock().docker('volume', 'inspect', name)) as Inspected[])[0];

  it('keeps what one container writes for the next', async () => {
    await flock().sh('first', 'echo hello > /data/file');
    assert.equal(await flock().sh('first', 'cat /data/file'), 'hello');
  });

  it('copies what the image has at the mount point into a new volume, and only there', async () => {
    const run = (script: string) =>
      flock().docker(
        'run',
        '--rm',
        '--network=none',
        '--volume-driver=flock',
        '-v',
        'etc:/etc',
        'flock/busybox',
        'sh',
        '-c',
        script,
      );
    assert.match(await run('cat /etc/passwd; echo mine > /etc/passwd'), /root/);
    assert.equal(await run('cat /etc/passwd'), 'mine');
  });

  it('shows owner, sizes and time in inspect, global scope, and the mountpoint only while mounted', async () => {
    await flock().docker('volume', 'create', '-d', 'flock', '-o', 'size=64M', 'shown');
    const idle = await inspect('shown');
    assert.equal(idle?.Driver, 'flock:latest');
    assert.equal(idle?.Scope, 'global');
    assert.equal(idle?.Mountpoint, '');
    assert.ok(Math.abs(Date.parse(idle?.CreatedAt ?? '') - Date.now()) < 60_000);
    assert.equal(idle?.Status['backend'], backend);
    assert.equal(idle?.Status['size'], '64 MiB');
    await flock().docker(
      'run',
      '-d',
      '--name',
      'user',
      '--network=none',
      '-v',
      'shown:/data',
      'flock/busybox',
      'sleep',
      '600',
    );
    assert.match((await inspect('shown'))?.Mountpoint ?? '', /shown\.[0-9a-f]{8}$/);
    assert.match(await flock().dockerError('volume', 'rm', 'shown'), /volume is in use/);
    assert.match(await flock().flockctlError('volume', 'rm', 'shown'), /in use by container user/);
    await flock().docker('rm', '-f', 'user');
    await flock().docker('volume', 'rm', 'shown');
  });

  it('mounts and unmounts with docker cp, running or not, without losing count', async () => {
    await flock().docker(
      'run',
      '-d',
      '--name',
      'cp',
      '--network=none',
      '--volume-driver=flock',
      '-v',
      'copied:/data',
      'flock/busybox',
      'sh',
      '-c',
      'echo x > /data/file; sleep 600',
    );
    await flock().docker('cp', 'cp:/data/file', '/tmp/copied');
    await flock().docker('cp', '/tmp/copied', 'cp:/data/back');
    assert.equal(await flock().docker('exec', 'cp', 'cat', '/data/back'), 'x');
    await flock().docker('kill', 'cp');
    await flock().docker('cp', 'cp:/data/back', '/tmp/copied');
    await flock().docker('rm', 'cp');
    assert.equal(((await flock().json('volume', 'inspect', 'copied')) as { mounts: number }[])[0]?.mounts, 0);
  });

  it('enforces the size, also after it was changed', async () => {
    await flock().docker('volume', 'create', '-d', 'flock', '-o', 'size=32M', 'small');
    const fill = (mebibytes: number) =>
      flock().sh('small', `dd if=/dev/urandom of=/data/fill bs=1M count=${mebibytes} conv=fsync`);
    await assert.rejects(fill(48), /quota exceeded|No space left/i);
    await flock().flockctl('volume', 'resize', 'small', '96M');
    await fill(48);
    assert.match(await flock().flockctlError('volume', 'resize', 'small', '16M'), /uses|quota|takes .* more than/i);
    await flock().docker('volume', 'rm', 'small');
  });

  it('sets owner and mode', async () => {
    await flock().docker(
      'volume',
      'create',
      '-d',
      'flock',
      '-o',
      'uid=999',
      '-o',
      'gid=33',
      '-o',
      'mode=0750',
      'owned',
    );
    assert.equal(await flock().sh('owned', 'stat -c "%u %g %a" /data'), '999 33 750');
  });

  it('refuses wrong options and names in words, and creates nothing', async () => {
    for (const [option, text] of [
      ['sise=1G', /option "sise": there is no such option\. Valid options: size=/],
      ['size=-1', /invalid size "-1"/],
      ['size=1.5x', /invalid size/],
      ['size=99999999999T', /invalid size/],
      ['failower=auto', /no such option/],
      ['replicas=9', /replicas/],
      ['zfs.mountpoint=/etc', /flock sets this property itself/],
    ] as const) {
      assert.match(await flock().dockerError('volume', 'create', '-d', 'flock', '-o', option, 'wrong'), text);
    }
    for (const name of ['a/b', '..', '../x', 'a@b', 'a b', '-x', 'x'.repeat(300), 'ünï']) {
      assert.match(await flock().dockerError('volume', 'create', '-d', 'flock', '--', name), /invalid volume name/);
    }
    const names = ((await flock().json('volume', 'ls')) as { name: string }[]).map(({ name }) => name);
    assert.ok(!names.includes('wrong') && !names.some((name) => name.startsWith('a')));
  });

  it('moves a removed volume to the trash, frees its name, and brings it back', async () => {
    await flock().sh('precious', 'echo data > /data/file');
    await flock().docker('volume', 'rm', 'precious');
    assert.equal(await flock().sh('precious', 'ls /data | wc -l'), '0');
    await flock().docker('volume', 'rm', 'precious');
    const trash = ((await flock().json('trash', 'ls')) as { id: string; name: string }[]).filter(
      ({ name }) => name === 'precious',
    );
    assert.equal(trash.length, 2);
    await flock().flockctl('trash', 'restore', trash[1]?.id ?? '', 'found');
    assert.equal(await flock().sh('found', 'cat /data/file'), 'data');
    await flock().flockctl('trash', 'purge', trash[0]?.id ?? '');
  });

  it('refuses to remove what is protected', async () => {
    await flock().docker('volume', 'create', '-d', 'flock', '-o', 'protect=true', 'safe');
    assert.match(
      await flock().dockerError('volume', 'rm', 'safe'),
      /protected: "flockctl volume set safe protect=false"/,
    );
    await flock().flockctl('volume', 'set', 'safe', 'protect=false');
    await flock().docker('volume', 'rm', 'safe');
  });

  it('snapshots, clones and rolls back', async () => {
    await flock().sh('history', 'echo one > /data/file');
    await flock().flockctl('snapshot', 'create', 'history', 'first');
    await flock().sh('history', 'echo two > /data/file');
    await flock().flockctl('clone', 'history@first', 'branch');
    await flock().docker('volume', 'create', '-d', 'flock', '-o', 'from=history', 'copy');
    assert.equal(await flock().sh('branch', 'cat /data/file'), 'one');
    assert.equal(await flock().sh('copy', 'cat /data/file'), 'two');
    await flock().flockctl('rollback', 'history', 'first');
    assert.equal(await flock().sh('history', 'cat /data/file'), 'one');
    const aside = ((await flock().json('trash', 'ls')) as { id: string; reason: string }[]).find(
      ({ reason }) => reason === 'rolled back',
    );
    await flock().flockctl('trash', 'restore', aside?.id ?? '', 'before-rollback');
    assert.equal(await flock().sh('before-rollback', 'cat /data/file'), 'two');
  });

  it('removes a volume whose clone lives on', async () => {
    await flock().sh('parent', 'echo p > /data/file');
    await flock().flockctl('clone', 'parent', 'child');
    await flock().flockctl('settings', 'set', 'trash=0');
    await flock().docker('volume', 'rm', 'parent');
    await flock().flockctl('settings', 'set', 'trash=24h');
    assert.equal(await flock().sh('child', 'cat /data/file'), 'p');
    assert.ok(!((await flock().json('trash', 'ls')) as { name: string }[]).some(({ name }) => name === 'parent'));
  });

  it('removes an anonymous volume with its container', async () => {
    const before = await flock().docker('volume', 'ls', '-q');
    await flock().docker(
      'run',
      '--rm',
      '--network=none',
      '--volume-driver=flock',
      '-v',
      '/anonymous',
      'flock/busybox',
      'true',
    );
    assert.equal(await flock().docker('volume', 'ls', '-q'), before);
  });

  it('serves fifty mounts of one volume and of twenty at once', async () => {
    await flock().sh('shared', 'true');
    await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        flock().sh(index % 2 === 0 ? 'shared' : `many${index % 20}`, `echo ${index} > /data/${index}`),
      ),
    );
    assert.equal(await flock().sh('shared', 'ls /data | wc -l'), '25');
    const volumes = (await flock().json('volume', 'ls')) as { name: string; mounts: number }[];
    assert.deepEqual(
      volumes.filter(({ mounts }) => mounts !== 0),
      [],
    );
  });

  it('makes two hundred volumes at once', async () => {
    await Promise.all(
      Array.from({ length: 200 }, (_, index) => flock().docker('volume', 'create', '-d', 'flock', `v${index}`)),
    );
    const listed = (await flock().docker('volume', 'ls', '-q')).split('\n').filter((name) => /^v\d+$/.test(name));
    assert.equal(listed.length, 200);
  });
});
