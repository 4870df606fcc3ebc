import assert from 'node:assert/strict';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { image } from '../../packaging/proof.ts';
import { command } from '../support/btrfs-pool.ts';
import { type Cluster, startCluster } from '../support/cluster/cluster.ts';
import type { ClusterHost, Daemon } from '../support/cluster/cluster-host.ts';
import { arrives, bootSeconds, connects, lossPercent } from '../support/cluster/probes.ts';
import { processState } from '../support/cluster/process-state.ts';
import { acknowledged, checkRecords, readRecords, startWriter } from '../support/cluster/records.ts';
import { until } from '../support/until.ts';

const writer = { container: 'writer', volume: 'records' };
const consulPort = 8300;

describe('the test cluster', () => {
  let cluster: Cluster;
  let hosts: readonly ClusterHost[];
  let [n1, n2, n3]: [ClusterHost, ClusterHost, ClusterHost] = [] as never;

  before(async () => {
    cluster = await startCluster({ backend: 'btrfs', join: false });
    hosts = cluster.hosts;
    [n1, n2, n3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    await n1.consul('kv', 'put', 'test/key', 'value');
    for (const host of hosts) await host.sh('own', `echo ${host.name} > /data/x`);
  });
  after(async () => await cluster?.dispose());
  afterEach(async () => await cluster.heal());

  /** The containers' numbers so far, once there are some. */
  const startedWriter = async (host: ClusterHost) => {
    await startWriter(host, writer);
    return await until('records are acknowledged', 20_000, async () => {
      const entries = await acknowledged(host, writer);
      return entries.length > 5 ? entries : undefined;
    });
  };
  const removeWriter = async (host: ClusterHost) => {
    await host.docker('rm', '-f', writer.container);
    await host.docker('volume', 'rm', writer.volume);
  };

  it('has three hosts that see each other, a pool each, and a Consul with a leader', async () => {
    for (const from of hosts) for (const to of hosts) assert.equal(await connects(from, to, consulPort), true);
    const leader = await cluster.waitForLeader();
    assert.ok(hosts.includes(leader));
    assert.equal(await n3.consul('kv', 'get', 'test/key'), 'value');
    for (const host of hosts) assert.equal(await host.sh('own', 'cat /data/x'), host.name);
  });

  it('refuses a second cluster at the same time', async () => {
    await assert.rejects(startCluster({ backend: 'btrfs', join: false }), /runs on this machine already/);
  });

  it('lets containers reach the published ports of every host, also of their own', async () => {
    for (const host of hosts) {
      const serve = `while :; do echo ${host.name} | nc -l -p 80; done`;
      await host.docker('run', '-d', '--name', 'server', '-p', '8080:80', image, 'sh', '-c', serve);
    }
    for (const from of hosts) {
      for (const to of hosts) {
        const ask = `nc -w 5 ${to.address} 8080 </dev/null`;
        // The server listens anew after each answer.
        const answer = await until(`${to.name} answers ${from.name}`, 20_000, async () => {
          const text = await from.docker('run', '--rm', image, 'sh', '-c', ask).catch(() => '');
          return text === '' ? undefined : text;
        });
        assert.equal(answer, to.name);
      }
    }
    for (const host of hosts) await host.docker('rm', '-f', 'server');
  });

  it('a partition holds both ways, between these hosts only, and the rest of Consul goes on', async () => {
    const undo = await cluster.network.partition([1], [2, 3]);
    assert.equal(await arrives(n1, n2), false);
    assert.equal(await arrives(n2, n1), false);
    assert.equal(await connects(n2, n3, consulPort), true);
    const leader = await until('the others have a leader', 30_000, async () => {
      const found = await cluster.leader();
      return found === null || found === n1 ? undefined : found;
    });
    assert.notEqual(leader, n1);
    await assert.rejects(n1.consulApi('PUT', '/v1/kv/test/cut', 'x'));
    await undo();
    assert.equal(await connects(n1, n2, consulPort), true);
  });

  it('a one-way partition lets packets through one way', async () => {
    const undo = await cluster.network.partitionOneWay([2], [1]);
    assert.equal(await arrives(n1, n2), true);
    assert.equal(await arrives(n2, n1), false);
    assert.equal(await connects(n1, n2, consulPort), false, 'a connection takes both ways');
    await undo();
    assert.equal(await arrives(n2, n1), true);
  });

  it('a partition of Consul leaves everything else', async () => {
    await cluster.network.partitionConsul([3], [1, 2]);
    assert.equal(await connects(n3, n1, consulPort), false);
    assert.equal(await connects(n1, n3, consulPort), false);
    assert.equal(await arrives(n3, n1), true);
    assert.equal(await connects(n1, n2, consulPort), true);
  });

  it('a cable that is out stays out over a boot, until it is put in', async () => {
    const carrier = () => n2.host.run('cat', ['/sys/class/net/eth0/carrier']);
    const undo = await cluster.network.linkDown(2);
    assert.equal(await carrier(), '0');
    await n2.reboot();
    assert.equal(await carrier(), '0');
    assert.equal(await connects(n1, n2, consulPort), false);
    await undo();
    assert.equal(await carrier(), '1');
    await until('the host is reached', 20_000, async () => ((await connects(n1, n2, consulPort)) ? true : undefined));
  });

  it('loses about the share of packets that it is told to', async () => {
    await cluster.network.loss(1, 30);
    // Sent and received: 0.7 * 0.7 come back.
    const percent = await lossPercent(n1, n2, 400);
    assert.ok(percent > 35 && percent < 70, `${percent} % were lost`);
    await cluster.network.heal();
    assert.equal(await lossPercent(n1, n2, 100), 0);
  });

  it('a frozen host does nothing until it is thawed, and then goes on', async () => {
    await startedWriter(n1);
    const thaw = await n1.freeze();
    const frozenAt = await bootSeconds();
    await sleep(2_000);
    const thawedAt = await bootSeconds();
    await thaw();
    const entries = await until('the writer goes on', 20_000, async () => {
      const all = await acknowledged(n1, writer);
      return all.some((entry) => entry.bootSeconds > thawedAt) ? all : undefined;
    });
    // A hundredth of a second is what the clock shows.
    const meanwhile = entries.filter((entry) => entry.bootSeconds > frozenAt + 0.01 && entry.bootSeconds < thawedAt);
    assert.deepEqual(meanwhile, []);
    await n1.docker('rm', '-f', writer.container);
    const { faults, lost } = checkRecords(await readRecords(n1, writer), entries);
    assert.deepEqual({ faults, lost }, { faults: [], lost: [] });
    await n1.docker('volume', 'rm', writer.volume);
  });

  it('a killed host boots with its volumes, its containers and its vote', async () => {
    await startedWriter(n2);
    await n2.kill();
    assert.equal(n2.isUp(), false);
    assert.equal(await connects(n1, n2, consulPort), false);
    await n2.boot();
    const entries = await acknowledged(n2, writer);
    assert.ok(entries.length > 5);
    assert.deepEqual([...new Set(entries.map(({ node }) => node))], ['n2']);
    assert.equal(await n2.docker('inspect', '--format', '{{.State.Running}}', writer.container), 'false');
    // It goes on where it was, and nothing of what it had acknowledged is missing.
    await n2.docker('start', writer.container);
    const more = await until('the writer goes on', 20_000, async () => {
      const all = await acknowledged(n2, writer);
      return all.length > entries.length ? all : undefined;
    });
    await n2.docker('stop', '-t', '0', writer.container);
    const { faults, lost } = checkRecords(await readRecords(n2, writer), more);
    assert.deepEqual({ faults, lost }, { faults: [], lost: [] });
    await removeWriter(n2);
    await cluster.waitForConsul();
  });

  it('single daemons can be frozen and thawed', async () => {
    const pidsOf: Record<Exclude<Daemon, 'zfs-fuse'>, () => Promise<readonly number[]>> = {
      plugin: async () => [await n3.pluginPid()],
      docker: () => n3.host.pids('/usr/sbin/dockerd'),
      consul: () => n3.host.pids(n3.server.program),
    };
    for (const [daemon, pids] of Object.entries(pidsOf)) {
      const [pid = 0] = await pids();
      const thaw = await n3.freezeDaemon(daemon as Daemon);
      assert.equal(await processState(pid), 'T');
      await thaw();
      assert.notEqual(await processState(pid), 'T');
      assert.deepEqual(await pids(), [pid]);
    }
  });

  it('single daemons can be killed and started', async () => {
    const startConsul = await n3.killDaemon('consul');
    await assert.rejects(n3.consulApi('GET', '/v1/status/leader'));
    await startConsul();
    await cluster.waitForConsul();

    const startDocker = await n3.killDaemon('docker');
    await n3.dockerError('version');
    await startDocker();
    await n3.docker('version');

    const old = await n3.pluginPid();
    const enablePlugin = await n3.killDaemon('plugin');
    await enablePlugin();
    await until('the plugin runs again', 20_000, async () => {
      const now = await n3.pluginPid().catch(() => old);
      return now === old ? undefined : await n3.flockctl('version').catch(() => undefined);
    });
  });

  it('Consul gets another leader when its leader is killed', async () => {
    const { host, undo } = await cluster.killLeader();
    const next = await cluster.waitForLeader();
    assert.notEqual(next, host);
    await undo();
    await cluster.waitForConsul();
    assert.equal((await host.consulApi('GET', '/v1/kv/test/key?raw')) as string, 'value');
  });

  it('Consul without a quorum refuses writes, and takes them with it', async () => {
    const give = await cluster.takeQuorum();
    await until('there is no leader', 20_000, async () => ((await cluster.leader()) === null ? true : undefined));
    await assert.rejects(n1.consulApi('PUT', '/v1/kv/test/quorum', 'x'));
    await give();
    assert.equal(await n1.consulApi('PUT', '/v1/kv/test/quorum', 'x'), true);
  });

  it('is mended as a whole: a dead, a frozen and a cut host', async () => {
    await cluster.network.partition([3], [1, 2]);
    await n1.kill();
    await n2.freeze();
    await cluster.heal();
    for (const host of hosts) assert.equal(await host.sh('own', 'wc -l < /data/x'), '1');
  });
});

describe('the test cluster on zfs-fuse', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await startCluster({ backend: 'zfs', count: 1, join: false });
  });
  after(async () => await cluster?.dispose());

  it('keeps its volumes over a boot and the death of its daemon', async () => {
    const host = cluster.host(1);
    await host.sh('kept', 'echo kept > /data/x');
    const thaw = await host.freezeDaemon('zfs-fuse');
    const [pid = 0] = await host.host.pids('zfs-fuse');
    assert.equal(await processState(pid), 'T');
    await thaw();
    const start = await host.killDaemon('zfs-fuse');
    await start();
    assert.equal(await host.sh('kept', 'cat /data/x'), 'kept');
    await host.reboot();
    assert.equal(await host.sh('kept', 'cat /data/x'), 'kept');
  });
});

describe('what a disposed cluster leaves', () => {
  it('is nothing: no processes, name spaces, mounts, loop devices, control groups or files', async () => {
    const cluster = await startCluster({ backend: 'btrfs', count: 2, join: false });
    const first = cluster.host(1);
    await startWriter(first, writer);
    const spaces = await Promise.all(cluster.hosts.map(({ host }) => readlink(`/proc/${host.pid}/ns/net`)));
    const loops = () => command('losetup', '--list', '--noheadings', '--output', 'NAME,BACK-FILE');
    const inFolder = (text: string) => text.split('\n').filter((line) => line.includes(cluster.folder));
    await first.freeze();
    await cluster.dispose();

    const processes = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const used = await Promise.all(processes.map((pid) => readlink(`/proc/${pid}/ns/net`).catch(() => '')));
    assert.deepEqual(
      used.filter((space) => spaces.includes(space)),
      [],
    );
    assert.deepEqual(inFolder(await readFile('/proc/self/mountinfo', 'utf8')), []);
    await until('no loop device is left', 10_000, async () =>
      inFolder(await loops()).length === 0 ? true : undefined,
    );
    const groups = await command('find', '/sys/fs/cgroup', '-path', '*/flock-test/n*', '-type', 'd');
    assert.equal(groups, '');
    await assert.rejects(readdir(cluster.folder), { code: 'ENOENT' });
  });
});
