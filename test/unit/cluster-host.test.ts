import assert from 'node:assert/strict';
import { defaultAddress, defaultNodeName, readHostFacts } from '../../controller/cluster/host-defaults.ts';
import {
  applyLabels,
  formatPeerAddress,
  parseLabelChanges,
  parseLabelWords,
  parsePeerAddress,
  parseStoreAddress,
} from '../../controller/model/identity.ts';
import { refuses } from '../support/refuses.ts';

describe('what a node is called by default', () => {
  it('is the first part of the host name, made valid', () => {
    assert.equal(defaultNodeName('DB_1.example.net'), 'db-1');
    assert.equal(defaultNodeName('-a-'), 'a');
    assert.equal(defaultNodeName('a'.repeat(80)), 'a'.repeat(63));
  });

  it('is never made up', () => {
    for (const text of ['', 'localhost', '---', '日本']) {
      assert.match(refuses(() => defaultNodeName(text), 'invalid-name').message, /--name/);
    }
  });
});

describe('where a node is reached by default', () => {
  const hostName = 'a';
  const docker = { interface: 'docker0', address: '172.17.0.1' };
  const first = { interface: 'eth0', address: '10.0.0.1' };
  const second = { interface: 'eth1', address: '10.1.0.1' };

  it('is where the default route leaves from, else the only address that is not for containers', () => {
    assert.equal(defaultAddress({ hostName, routed: '10.9.9.9', addresses: [first, second] }), '10.9.9.9');
    assert.equal(defaultAddress({ hostName, routed: null, addresses: [docker, first] }), '10.0.0.1');
  });

  it('is not guessed', () => {
    const several = refuses(
      () => defaultAddress({ hostName, routed: null, addresses: [first, second] }),
      'invalid-option',
    );
    assert.match(several.message, /10\.0\.0\.1 \(eth0\), 10\.1\.0\.1 \(eth1\)/);
    refuses(() => defaultAddress({ hostName, routed: null, addresses: [docker] }), 'invalid-option');
  });

  it('can be read on this host', async () => {
    const facts = await readHostFacts();
    assert.ok(facts.hostName.length > 0);
    assert.ok(facts.addresses.every(({ address }) => address !== '127.0.0.1'));
  });
});

describe('addresses and labels', () => {
  it('of peers are parsed and printed', () => {
    for (const [text, address, port] of [
      ['10.0.0.1', '10.0.0.1', 4270],
      ['node-1.example:5000', 'node-1.example', 5000],
      ['fd00::1', 'fd00::1', 4270],
      ['[fd00::1]', 'fd00::1', 4270],
      ['[::ffff:1.2.3.4]:1', '::ffff:1.2.3.4', 1],
    ] as const) {
      assert.deepEqual(parsePeerAddress(text), { address, port });
      assert.deepEqual(parsePeerAddress(formatPeerAddress({ address, port })), { address, port });
    }
    for (const text of [
      '',
      ':1',
      'a:0',
      'a:65536',
      'a b',
      '-a',
      '1.2.3',
      '1.2.3.256',
      '0.0.0.0',
      '[a]',
      '[::1',
      'http://a',
      'a/b',
    ])
      refuses(() => parsePeerAddress(text), 'invalid-option');
  });

  it('of the store are checked', () => {
    assert.equal(parseStoreAddress('http://127.0.0.1:8500/'), 'http://127.0.0.1:8500');
    for (const text of ['127.0.0.1:8500', 'ftp://a', 'http://a/b', 'http://u:p@a', 'http://a?b'])
      refuses(() => parseStoreAddress(text), 'invalid-option');
  });

  it('labels are set and removed', () => {
    assert.deepEqual(parseLabelChanges(['rack=r7', 'dc-']), { rack: 'r7', dc: null });
    assert.deepEqual(applyLabels({ dc: 'a', disk: 'ssd' }, { dc: null, rack: 'r7' }), { disk: 'ssd', rack: 'r7' });
    assert.deepEqual(parseLabelWords(['rack=r7', 'dc=lon']), { dc: 'lon', rack: 'r7' });
    for (const words of [['rack'], ['=a'], ['a='], ['A=b'], ['a=b c'], ['a=b', 'a-'], ['-'], ['--'], ['a b-']])
      refuses(() => parseLabelChanges(words), 'invalid-option');
    refuses(() => parseLabelWords(['dc-']), 'invalid-option');
    const many = Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`l${index}`, 'x']));
    refuses(() => applyLabels({}, many), 'invalid-option');
  });
});
