import assert from 'node:assert/strict';
import { parseDatasetId, parseSnapshotName } from '../../controller/model/names.ts';
import type { DatasetOptions } from '../../plugin/storage/storage.ts';
import {
  abandonArguments,
  cloneArguments,
  cloneOriginName,
  createArguments,
  createPoolArguments,
  creationProperties,
  estimateArguments,
  getArguments,
  goneName,
  importArguments,
  isArtifact,
  quotaValue,
  receiveArguments,
  replicaProperties,
  resumedSendArguments,
  sendArguments,
  tokenArguments,
} from '../../plugin/storage/zfs/arguments.ts';
import type { ZfsConfig } from '../../plugin/storage/zfs/config.ts';
import { sizeProperties } from '../../plugin/storage/zfs/marks.ts';
import type { Support } from '../../plugin/storage/zfs/probe.ts';
import { refuses } from '../support/refuses.ts';

const fuse: ZfsConfig = {
  prefix: 'flock/volumes',
  poolFile: null,
  mountRoot: '/mnt/flock/volumes',
  daemonMountRoot: '/var/lib/flock/mnt',
  variant: 'zfs-fuse',
  tools: { zfs: 'zfs', zpool: 'zpool', mount: 'mount', umount: 'umount' },
};
const kernel: ZfsConfig = { ...fuse, variant: 'openzfs' };

const little: Support = {
  compression: ['lzjb'],
  recordSizeBytesMax: 131072,
  resumableReceive: false,
  bookmarks: false,
  compressedSend: false,
  clonesDependOnOrigin: true,
  cheapContentMarks: false,
  xattrSa: false,
  posixAcl: false,
  importWithoutMounts: false,
  ashift: false,
  poolReadOnly: false,
  poolSync: false,
  written: false,
  sendEmbedded: false,
  sendEstimate: false,
};
const much: Support = {
  ...little,
  compressedSend: true,
  sendEmbedded: true,
  sendEstimate: true,
  poolSync: true,
  written: true,
  xattrSa: true,
  posixAcl: true,
  importWithoutMounts: true,
  ashift: true,
};

const plain: DatasetOptions = {
  quotaBytes: null,
  compression: null,
  recordSizeBytes: null,
  mode: null,
  uid: null,
  gid: null,
  properties: {},
  stamp: 'stamp',
};
const id = parseDatasetId('db.0a1b2c3d');

describe('arguments for zfs', () => {
  it('make a dataset that nothing but flock mounts', () => {
    assert.deepEqual(creationProperties(fuse, little, id, plain, 'dataset'), {
      atime: 'off',
      canmount: 'noauto',
      readonly: 'off',
      mountpoint: 'none',
      'flock:stamp': 'stamp',
    });
    assert.equal(creationProperties(kernel, little, id, plain, 'dataset')['mountpoint'], 'legacy');
  });

  it('ask for extended attributes only where the tools know them', () => {
    const properties = creationProperties(kernel, much, id, plain, 'dataset');
    assert.deepEqual([properties['xattr'], properties['acltype']], ['sa', 'posixacl']);
  });

  it('let raw properties change defaults but not what flock relies on', () => {
    const raw = { atime: 'on', logbias: 'throughput', canmount: 'on', mountpoint: '/', 'flock:stamp': 'forged' };
    const properties = creationProperties(kernel, little, id, { ...plain, properties: raw }, 'dataset');
    assert.equal(properties['atime'], 'on');
    assert.equal(properties['logbias'], 'throughput');
    assert.equal(properties['canmount'], 'noauto');
    assert.equal(properties['mountpoint'], 'legacy');
    assert.equal(properties['flock:stamp'], 'stamp');
  });

  it('give a clone no properties that are fixed at the making of its origin', () => {
    const options = { ...plain, properties: { casesensitivity: 'insensitive', logbias: 'throughput' } };
    const properties = creationProperties(kernel, little, id, options, 'clone');
    assert.equal(properties['casesensitivity'], undefined);
    assert.equal(properties['logbias'], 'throughput');
  });

  it('have sizes in bytes', () => {
    const options = { ...plain, quotaBytes: 104857600, recordSizeBytes: 16384, compression: 'gzip-9' };
    const properties = creationProperties(fuse, little, id, options, 'dataset');
    assert.deepEqual(
      [properties['refquota'], properties['recordsize'], properties['compression']],
      ['104857600', '16384', 'gzip-9'],
    );
  });

  it('have no quota of 0, which would mean none', () => {
    refuses(() => quotaValue(0), 'invalid-option');
    refuses(() => quotaValue(1.5), 'invalid-option');
    assert.equal(quotaValue(null), 'none');
  });

  it('end the options before names', () => {
    assert.deepEqual(createArguments('p/a', { atime: 'off' }), ['create', '-o', 'atime=off', '--', 'p/a']);
    assert.deepEqual(cloneArguments('p/a@s', 'p/b', {}), ['clone', '--', 'p/a@s', 'p/b']);
    assert.deepEqual(receiveArguments('p/a', false), ['receive', '-u', '--', 'p/a']);
    const get = getArguments(['guid', 'used'], ['p/a'], 'children');
    assert.deepEqual(get.slice(-3), ['--', 'guid,used', 'p/a']);
    assert.deepEqual(get.slice(0, 6), ['get', '-H', '-p', '-r', '-d', '1']);
  });

  it('send blocks as they are where that is possible', () => {
    const from = parseSnapshotName('s1');
    assert.deepEqual(sendArguments(little, 'p/a@s2', from), ['send', '-i', '@s1', '--', 'p/a@s2']);
    assert.deepEqual(sendArguments(much, 'p/a@s2', null), ['send', '-L', '-e', '-c', '--', 'p/a@s2']);
    const full = ['send', '-L', '-e', '-c', '-i', '@s1', '--', 'p/a@s2'];
    assert.deepEqual(sendArguments(much, 'p/a@s2', from), full);
    const early = { ...much, sendEmbedded: false };
    assert.deepEqual(sendArguments(early, 'p/a@s2', null), ['send', '-L', '-c', '--', 'p/a@s2']);
    assert.deepEqual(estimateArguments(much, 'p/a@s2', from), ['send', '-n', '-P', ...full.slice(1)]);
  });

  it('resume and abandon a stream', () => {
    assert.deepEqual(receiveArguments('p/a', true), ['receive', '-s', '-u', '--', 'p/a']);
    assert.deepEqual(resumedSendArguments('1-a-b-c'), ['send', '-t', '1-a-b-c']);
    assert.deepEqual(tokenArguments('1-a-b-c'), ['send', '-n', '-v', '-t', '1-a-b-c']);
    assert.deepEqual(abandonArguments('p/a'), ['receive', '-A', '--', 'p/a']);
  });

  it('give a replica what its owner has, but nothing that flock relies on or that the stream has made', () => {
    const raw = { logbias: 'throughput', casesensitivity: 'mixed', canmount: 'on', readonly: 'off', refquota: '1' };
    const options = { quotaBytes: 5, compression: 'lz4', recordSizeBytes: 16384, properties: raw };
    assert.deepEqual(replicaProperties(little, options), {
      atime: 'off',
      logbias: 'throughput',
      compression: 'lz4',
      recordsize: '16384',
    });
  });

  it('ask for the sizes that tell a change', () => {
    assert.deepEqual(sizeProperties(little), ['used', 'referenced', 'usedbysnapshots']);
    assert.deepEqual(sizeProperties(much), ['used', 'referenced', 'usedbysnapshots', 'written']);
  });

  it('import and make pools that no boot imports on its own', () => {
    const fuseImport = ['import', '-o', 'cachefile=none', '-d', '/dir', '--', 'flock'];
    assert.deepEqual(importArguments(little, 'flock', '/dir', false), fuseImport);
    assert.ok(importArguments(much, 'flock', '/dir', false).includes('-N'));
    assert.ok(importArguments(little, 'flock', '/dir', true).includes('-f'));
    assert.ok(!fuseImport.includes('-f'));
    const make = createPoolArguments(much, 'flock', '/dir/pool.zfs').join(' ');
    assert.match(make, /^create -o ashift=12 -o cachefile=none .*-m none .*-- flock \/dir\/pool\.zfs$/);
    assert.ok(!createPoolArguments(little, 'flock', '/f').includes('ashift=12'));
  });
});

describe('names of snapshots that the backend makes', () => {
  it('are valid, internal, and the same for each repetition', () => {
    const long = parseDatasetId(`${'n'.repeat(128)}.0a1b2c3d`);
    assert.equal(cloneOriginName(long), cloneOriginName(long));
    assert.notEqual(cloneOriginName(long), cloneOriginName(id));
    for (const name of [cloneOriginName(long), goneName('18446744073709551615')]) {
      assert.ok(isArtifact(name));
      assert.ok(name.startsWith('flock.'));
    }
  });
});
