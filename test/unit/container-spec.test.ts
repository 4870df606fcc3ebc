import assert from 'node:assert/strict';
import {
  createBodyOf,
  createdLabel,
  describeContainer,
  isOurs,
  type SpecFacts,
  workloadLabel,
} from '../../controller/model/container-spec.ts';
import type { InspectedNetwork } from '../../controller/model/inspected.ts';
import { isFlockDriver } from '../../controller/model/inspected.ts';
import {
  decodeWorkload,
  specBytesMax,
  specSchema,
  type WorkloadDoc,
  workloadIdFor,
} from '../../controller/model/workload.ts';
import { linksOf } from '../../controller/model/workload-labels.ts';
import { isOtherThan } from '../../controller/program/documents.ts';
import {
  type Changes,
  config,
  containerId,
  flockMount,
  hostConfig,
  imageId,
  inspected,
  network,
} from '../support/inspected.ts';

const facts = (networks: readonly InspectedNetwork[] = [], more: Partial<SpecFacts> = {}): SpecFacts => ({
  networks: new Map(networks.map((one) => [one.Name, one])),
  hostName: 'n1',
  nameOf: (text) => text,
  isWorkload: () => false,
  linkedPorts: () => [],
  ...more,
});
const describe_ = (changes: Changes = {}, given: SpecFacts = facts()) => describeContainer(inspected(changes), given);
const host = (changes: Changes = {}, given: SpecFacts = facts()) =>
  describe_(changes, given).spec.create['HostConfig'] as Record<string, unknown>;

describe('what is needed to make a container again', () => {
  it('is everything that it was given, and nothing that is this one container’s', () => {
    const { spec, name, volumes, obstacles } = describe_();
    assert.deepEqual([name, volumes, obstacles], ['db', ['pgdata'], []]);
    assert.deepEqual([spec.image, spec.imageId, spec.stopSeconds], ['postgres:15', imageId, 60]);
    const { HostConfig: made, ...create } = spec.create;
    const { Image: _image, OnBuild: _onBuild, ...kept } = config;
    assert.deepEqual(create, kept);
    const { ContainerIDFile: _file, VolumeDriver: _driver, VolumesFrom: _from, ...asked } = hostConfig;
    assert.deepEqual(made, {
      ...asked,
      Binds: [],
      Links: [],
      Mounts: [
        {
          Type: 'volume',
          Source: 'pgdata',
          Target: '/var/lib/postgresql/data',
          ReadOnly: false,
          VolumeOptions: { NoCopy: true, DriverConfig: { Name: 'flock:latest' } },
        },
      ],
    });
    assert.deepEqual([spec.networks, spec.networksNeeded], [{}, {}]);
    assert.deepEqual(specSchema.parse(JSON.parse(JSON.stringify(spec))), spec);
  });

  it('is the same of the container that was made of it', () => {
    const first = describe_(
      {
        config: { Hostname: 'db.example', Labels: { a: 'b' } },
        hostConfig: { NetworkMode: 'shop', Links: null },
        networks: {
          shop: {
            NetworkID: 'a1'.repeat(32),
            Aliases: ['db', containerId.slice(0, 12)],
            IPAMConfig: { IPv4Address: '172.20.0.9' },
          },
          back: { NetworkID: 'a2'.repeat(32), Aliases: [containerId.slice(0, 12)] },
        },
      },
      facts([network('shop'), network('back')]),
    );
    const body = createBodyOf(first.spec, {
      workload: workloadIdFor(containerId),
      createdAtMs: 1_700_000_000_000,
      name: 'db',
      image: 'postgres:15',
    });
    const { HostConfig, NetworkingConfig, Image, ...rest } = body as Record<string, object> & { Image: string };
    const id = 'decaf'.padEnd(64, '1');
    const second = describe_(
      {
        id,
        config: { ...rest, Image },
        hostConfig: HostConfig as object,
        networks: {
          shop: {
            NetworkID: 'c1'.repeat(32),
            Aliases: ['db', id.slice(0, 12)],
            IPAMConfig: { IPv4Address: '172.20.0.9' },
          },
          back: { NetworkID: 'c2'.repeat(32), Aliases: [id.slice(0, 12)] },
        },
      },
      facts([network('shop'), network('back')]),
    );
    assert.deepEqual(second.spec, first.spec);
    assert.equal(first.spec.create['Hostname'], 'db.example');
    const named = describe_({ id, config: { ...config, Hostname: containerId.slice(0, 12) } });
    assert.equal(named.spec.create['Hostname'], containerId.slice(0, 12), 'of the first container that it was');
    assert.deepEqual(NetworkingConfig, {
      EndpointsConfig: { shop: { Aliases: ['db'], IPAMConfig: { IPv4Address: '172.20.0.9' } } },
    });
    assert.deepEqual(first.spec.networks, { back: {} });
    assert.deepEqual(Object.keys(first.spec.networksNeeded), ['shop', 'back']);
    const made = rest['Labels'] as Record<string, string>;
    assert.equal(made[workloadLabel], workloadIdFor(containerId));
    assert.equal(made[createdLabel], '1700000000000 db');
  });

  it('takes a MAC address along that somebody asked for, and none that Docker made up', () => {
    const shop = (MacAddress: string | undefined) =>
      describe_(
        {
          config: MacAddress === undefined ? {} : { MacAddress },
          hostConfig: { NetworkMode: 'shop' },
          networks: {
            shop: { MacAddress: MacAddress ?? '5e:01:02:03:04:05' },
            back: { MacAddress: '5e:0a:0b:0c:0d:0e' },
          },
        },
        facts([network('shop'), network('back')]),
      ).spec;
    for (const address of [undefined, '02:42:ac:14:00:99']) {
      const { create, networks } = shop(address);
      assert.equal(create['MacAddress'], address);
      assert.deepEqual([create['NetworkingConfig'], networks], [{ EndpointsConfig: { shop: {} } }, { back: {} }]);
    }
  });

  it('knows the network by whatever it was called, and leaves out those that Docker or Swarm makes', () => {
    const id = 'a1'.repeat(32);
    const overlay = network('mesh', { Driver: 'overlay', Scope: 'swarm' });
    const byId = describe_(
      { hostConfig: { NetworkMode: id }, networks: { shop: { NetworkID: id }, mesh: {} } },
      facts([network('shop'), overlay]),
    );
    assert.equal((byId.spec.create['HostConfig'] as Record<string, unknown>)['NetworkMode'], 'shop');
    assert.deepEqual([Object.keys(byId.spec.networksNeeded), Object.keys(byId.spec.networks)], [['shop'], ['mesh']]);
    assert.deepEqual(byId.obstacles, []);
    for (const mode of ['host', 'none']) {
      const { spec } = describe_({
        hostConfig: { NetworkMode: mode },
        networks: { [mode]: {} },
        config: { Hostname: 'n1' },
      });
      assert.deepEqual([spec.networks, spec.networksNeeded, spec.create['NetworkingConfig']], [{}, {}, undefined]);
      assert.equal(spec.create['Hostname'], mode === 'host' ? undefined : 'n1');
    }
  });

  it('has each flock volume with its driver, wherever it came from, and no empty one in its place', () => {
    const mounts = host({
      hostConfig: {
        Binds: ['/etc/localtime:/etc/localtime:ro'],
        Mounts: [
          { Type: 'tmpfs', Target: '/cache' },
          { Type: 'volume', Source: 'logs', Target: '/logs/./', VolumeOptions: { Subpath: 'db' } },
        ],
        VolumesFrom: ['web:ro'],
      },
      mounts: [
        { ...flockMount, Name: 'shared', Destination: '/shared', RW: false, Driver: 'flock' },
        { ...flockMount, Name: 'logs', Destination: '/logs' },
        { Type: 'bind', Source: '/etc/localtime', Destination: '/etc/localtime', RW: false },
        { Type: 'tmpfs', Source: '', Destination: '/cache', RW: true },
      ],
    });
    assert.deepEqual(mounts['Binds'], ['/etc/localtime:/etc/localtime:ro']);
    const volume = (name: string, target: string, readOnly: boolean, driver: string, more: object = {}) => ({
      Type: 'volume',
      Source: name,
      Target: target,
      ReadOnly: readOnly,
      VolumeOptions: { NoCopy: true, DriverConfig: { Name: driver }, ...more },
    });
    assert.deepEqual(mounts['Mounts'], [
      { Type: 'tmpfs', Target: '/cache' },
      volume('logs', '/logs', false, 'flock:latest', { Subpath: 'db' }),
      volume('shared', '/shared', true, 'flock'),
    ]);
    assert.equal(mounts['VolumesFrom'], undefined);
  });

  it('has the ports that routes of its own and links of others lead to', () => {
    const labels = {
      'flock.service': 'web',
      'flock.route': 'http://www.example.com -> 8080',
      'flock.route.tls': 'https://www.example.com -> 8443 certificate=example',
      'flock.route.bad': 'http://www.example.com',
    };
    const given = facts([], { linkedPorts: (service) => (service === 'web' ? [9000, 8080] : []) });
    const { spec, service } = describe_({ config: { Labels: labels } }, given);
    assert.deepEqual([service, spec.ports], ['web', [8080, 8443, 9000]]);
    assert.deepEqual(linksOf({ 'flock.link': '3306 -> mysql:3306', 'flock.link.c': 'cache:6379 -> redis:6379' }), [
      { service: 'mysql', port: 3306 },
      { service: 'redis', port: 6379 },
    ]);
  });

  it('names what must run before it', () => {
    const names: Readonly<Record<string, string>> = { ab12cd34ef56: 'web', db: 'db' };
    const given = facts([], { nameOf: (text) => names[text] ?? text, isWorkload: (name) => name === 'db' });
    const both = describe_({ hostConfig: { VolumesFrom: ['ab12cd34ef56:ro'], Links: ['/db:/app/database'] } }, given);
    assert.deepEqual([both.after, both.obstacles], [['db', 'web'], []]);
    assert.deepEqual((both.spec.create['HostConfig'] as Record<string, unknown>)['Links'], ['db:database']);
  });

  it('is the same in whatever order Docker tells what has none', () => {
    const links = ['/db:/app/db', '/cache:/app/cache', '/db:/app/database'];
    const ulimits = ['nproc', 'nofile', 'core'].map((Name) => ({ Name, Hard: 2, Soft: 1 }));
    const given = facts([], { isWorkload: () => true });
    const one = describe_({ hostConfig: { Links: links, Ulimits: ulimits } }, given);
    const other = describe_({ hostConfig: { Links: links.toReversed(), Ulimits: ulimits.toReversed() } }, given);
    assert.deepEqual(one, other);
    const workload = { ...one, volumes: [] } as unknown as WorkloadDoc;
    assert.equal(isOtherThan(workload, other), false, 'nobody has changed anything');
    const mounts = ['/a', '/b', '/c'].map((path) => ({ Type: 'bind', Source: path, Destination: path, RW: true }));
    const strange = facts();
    const bound = describe_({ mounts, hostConfig: { Links: links } }, strange);
    const again = describe_({ mounts: mounts.toReversed(), hostConfig: { Links: links.toReversed() } }, strange);
    assert.equal(bound.obstacles.length, 6);
    assert.deepEqual(bound, again, 'nothing is to be written to the store');
    const less = describe_({ hostConfig: { Links: links, Ulimits: ulimits.slice(1) } }, given);
    assert.equal(isOtherThan(workload, less), true);
  });

  it('has a time for stopping that is never shorter than what was asked for', () => {
    const stopSeconds = (StopTimeout: number | null) => describe_({ config: { StopTimeout } }).spec.stopSeconds;
    assert.deepEqual([stopSeconds(null), stopSeconds(0), stopSeconds(90)], [10, 0, 90]);
    assert.ok(stopSeconds(-1) > 3_600 && stopSeconds(-1) * 1_000 < 2 ** 31, 'without a limit');
    assert.equal(stopSeconds(9_999_999), stopSeconds(-1));
  });

  it('that is too large is not kept, and says so', () => {
    const { spec, obstacles } = describe_({ config: { Env: [`A=${'x'.repeat(specBytesMax)}`] } });
    assert.deepEqual(spec.create, {});
    assert.match(obstacles.join(), /environment.*of which flock can keep/);
  });

  it('fits into a document of the store', () => {
    const { volumes: _names, ...described } = describe_();
    const doc = {
      ...{ id: workloadIdFor(containerId), ...described, volumes: [], createdAtMs: 1, node: 'n1', epoch: 1 },
      ...{ containerId, wanted: 'running', former: [], move: null, revision: 1 },
    };
    assert.deepEqual(decodeWorkload(JSON.stringify(doc)), doc);
  });
});

describe('what keeps a container from being made elsewhere', () => {
  const shows = (pattern: RegExp, changes: Changes, given: SpecFacts = facts()) =>
    it(String(pattern), () => assert.match(describe_(changes, given).obstacles.join('\n'), pattern));

  shows(/^-v \/srv\/data:\/data: .*this host only$/, {
    mounts: [flockMount, { Type: 'bind', Source: '/srv/data', Destination: '/data', RW: true }],
  });
  shows(/^-v \/etc\/localtime:\/etc\/localtime/, {
    mounts: [{ Type: 'bind', Source: '/etc/localtime', Destination: '/etc/localtime', RW: true }],
  });
  shows(/^-v cache:\/cache: the volume's driver local/, {
    mounts: [{ Type: 'volume', Name: 'cache', Destination: '/cache', Driver: 'local', RW: true }],
  });
  shows(/^-v \/var\/lib\/mysql: an anonymous volume/, {
    mounts: [{ Type: 'volume', Name: 'ab'.repeat(32), Destination: '/var/lib/mysql', Driver: 'local', RW: true }],
  });
  shows(/^--device-write-iops \/dev\/sda: the device is this host's/, {
    hostConfig: { BlkioDeviceWriteIOps: [{ Path: '/dev/sda', Rate: 100 }], BlkioDeviceReadBps: null },
  });
  shows(/^--device \/dev\/ttyUSB0/, {
    hostConfig: {
      Devices: [{ PathOnHost: '/dev/ttyUSB0', PathInContainer: '/dev/ttyUSB0', CgroupPermissions: 'rwm' }],
    },
  });
  shows(/^--gpus/, { hostConfig: { DeviceRequests: [{ Driver: '', Count: -1, Capabilities: [['gpu']] }] } });
  shows(/^--network container:c0ffee000000: /, {
    hostConfig: { NetworkMode: `container:${containerId}` },
    networks: {},
  });
  shows(/^--pid container:db/, { hostConfig: { PidMode: 'container:db' } });
  shows(/^--ipc container:db/, { hostConfig: { IpcMode: 'container:db' } });
  shows(/^--rm: /, { hostConfig: { AutoRemove: true } });
  shows(/^--link db: /, { hostConfig: { Links: ['/db:/app/db'] } });
  shows(
    /^--network lan: its driver macvlan/,
    { networks: { lan: {} } },
    facts([network('lan', { Driver: 'macvlan' })]),
  );
  shows(/^--network gone: there is no such network/, { networks: { gone: {} } });
  shows(/Swarm/, { config: { Labels: { 'com.docker.swarm.task.id': 'x' } } });
  shows(/^--label flock\.failover="atuo": use auto, manual, none$/, {
    config: { Labels: { 'flock.failover': 'atuo' } },
  });

  it('a privileged container can be made anywhere, and so can one on an overlay network', () => {
    const mesh = facts([network('mesh', { Driver: 'overlay', Scope: 'swarm' })]);
    assert.deepEqual(
      describe_({ hostConfig: { Privileged: true }, networks: { bridge: {}, mesh: {} } }, mesh).obstacles,
      [],
    );
  });

  it('what the label flock.failover says counts, and people decide where it says nothing that is known', () => {
    const failover = (value: string) => describe_({ config: { Labels: { 'flock.failover': value } } }).failover;
    assert.deepEqual([describe_().failover, failover('none'), failover('atuo')], ['auto', 'none', 'manual']);
  });
});

describe('which containers flock looks after', () => {
  it('those with its volumes or its labels', () => {
    for (const driver of ['flock', 'flock:latest', 'registry.example:5000/me/flock:0.1.0', 'flock@sha256:00'])
      assert.ok(isFlockDriver(driver), driver);
    for (const driver of ['local', 'flocker', 'my-flock', '', null, undefined])
      assert.ok(!isFlockDriver(driver), String(driver));
    assert.ok(isOurs({}, ['local', 'flock:latest']));
    assert.ok(isOurs({ 'flock.service': 'web' }, []));
    assert.ok(!isOurs({ 'flock-workload': 'x', 'org.flock': 'x' }, ['local']));
  });
});
