import assert from 'node:assert/strict';
import { describeContainer } from '../../controller/model/container-spec.ts';
import type { InspectedNetwork } from '../../controller/model/inspected.ts';
import { type Changes, flockMount, inspected, network } from '../support/inspected.ts';

const specOf = (changes: Changes, networks: readonly InspectedNetwork[] = []) =>
  describeContainer(inspected(changes), {
    networks: new Map(networks.map((one) => [one.Name, one])),
    hostName: 'n1',
    nameOf: (text) => text,
    isWorkload: () => false,
    linkedPorts: () => [],
  }).spec;
const host = ({ create }: ReturnType<typeof specOf>) => create['HostConfig'] as Record<string, unknown>;

describe('what a container that is made again has of its host and of others', () => {
  it('is in the networks that it is in, and not again in one that people have taken it out of', () => {
    const [shop, back] = [network('shop'), network('back')];
    const left = specOf({ networks: { shop: { Aliases: ['db'] }, back: {} } }, [shop, back]);
    assert.deepEqual([host(left)['NetworkMode'], Object.keys(left.networks)], ['shop', ['back']], 'not in bridge');
    assert.deepEqual(left.create['NetworkingConfig'], { EndpointsConfig: { shop: { Aliases: ['db'] } } });
    const other = specOf({ hostConfig: { NetworkMode: 'shop' }, networks: { back: {} } }, [back]);
    assert.deepEqual([host(other)['NetworkMode'], other.networks], ['back', {}]);
    assert.deepEqual(Object.keys(other.networksNeeded), ['back']);
    const toBridge = specOf({ hostConfig: { NetworkMode: 'shop' }, networks: { bridge: {} } });
    assert.deepEqual([host(toBridge)['NetworkMode'], toBridge.networks], ['bridge', {}]);
    assert.equal(host(specOf({ hostConfig: { NetworkMode: 'shop' }, networks: {} }))['NetworkMode'], 'shop');
    for (const mode of ['default', 'bridge']) {
      const both = specOf({ hostConfig: { NetworkMode: mode }, networks: { back: {}, bridge: {} } }, [back]);
      assert.deepEqual([host(both)['NetworkMode'], Object.keys(both.networks)], [mode, ['back']]);
    }
  });

  it('has its aliases, also those with which its id begins', () => {
    const id = 'db'.padEnd(64, 'e');
    const shop = { Aliases: ['db', id.slice(0, 12), 'sql'] };
    const { create } = specOf({ id, hostConfig: { NetworkMode: 'shop' }, networks: { shop } }, [network('shop')]);
    assert.deepEqual(create['NetworkingConfig'], { EndpointsConfig: { shop: { Aliases: ['db', 'sql'] } } });
  });

  it('has a network without IPv4 as one', () => {
    const bodyOf = (EnableIPv4?: boolean) =>
      specOf({ hostConfig: { NetworkMode: 'shop' }, networks: { shop: {} } }, [
        network('shop', EnableIPv4 === undefined ? {} : { EnableIPv4 }),
      ]).networksNeeded['shop'] as Record<string, unknown>;
    assert.deepEqual(
      [bodyOf(false)['EnableIPv4'], bodyOf(true)['EnableIPv4'], bodyOf()['EnableIPv4']],
      [false, undefined, undefined],
    );
  });

  it('keeps a host name that it was given on the host’s network, and takes the other host’s in place of this one’s', () => {
    const nameOf = (Hostname: string, hostConfig: object) =>
      specOf({ config: { Hostname }, hostConfig, networks: { host: {} } }).create['Hostname'];
    assert.equal(nameOf('rabbit1', { NetworkMode: 'host' }), 'rabbit1');
    assert.equal(nameOf('n1', { NetworkMode: 'host' }), undefined);
    assert.equal(nameOf('n1', { UTSMode: 'host' }), undefined);
    assert.equal(nameOf('n1', {}), 'n1');
  });

  it('has the paths of other containers that are the same everywhere', () => {
    const bind = { Type: 'bind', RW: false };
    const mounts = [
      flockMount,
      { ...bind, Source: '/etc/localtime', Destination: '/etc/localtime' },
      { ...bind, Source: '/etc/timezone', Destination: '/etc/timezone' },
    ];
    const Binds = ['/etc/timezone:/etc/timezone/:ro'];
    const made = (VolumesFrom: readonly string[] | null) =>
      host(specOf({ mounts, hostConfig: { Binds, VolumesFrom } }))['Binds'];
    assert.deepEqual(made(['db']), [...Binds, '/etc/localtime:/etc/localtime:ro']);
    assert.deepEqual(made(null), Binds);
  });
});
