import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Support, toSupport } from '../../plugin/storage/zfs/probe.ts';

/** What the tools printed on real hosts when called without arguments. */
function supportOf(tools: string): Support {
  const text = (name: string) => readFileSync(join(import.meta.dirname, 'zfs-usage', `${tools}.${name}.txt`), 'utf8');
  return toSupport({ zfs: text('zfs'), zfsGet: text('zfs-get'), zpool: text('zpool'), zpoolGet: text('zpool-get') });
}

describe('the usage texts of zfs', () => {
  it('of zfs-fuse show that it can little', () => {
    const { compression, ...rest } = supportOf('zfs-fuse');
    assert.deepEqual(rest, {
      recordSizeBytesMax: 131_072,
      resumableReceive: false,
      bookmarks: false,
      compressedSend: false,
      clonesDependOnOrigin: true,
      cheapContentMarks: false,
      xattrSa: false,
      posixAcl: false,
      importWithoutMounts: false,
      ashift: true,
      poolReadOnly: false,
      poolSync: false,
      written: false,
      sendEmbedded: false,
      sendEstimate: false,
    });
    assert.deepEqual([compression[0], compression.length], ['lzjb', 12]);
    assert.ok(compression.includes('gzip-9') && compression.includes('zle'));
  });

  it('of OpenZFS 2.1 show that it can much', () => {
    const { compression, ...rest } = supportOf('openzfs-2.1');
    assert.deepEqual(rest, {
      recordSizeBytesMax: 1_048_576,
      resumableReceive: true,
      bookmarks: true,
      compressedSend: true,
      clonesDependOnOrigin: true,
      cheapContentMarks: true,
      xattrSa: true,
      posixAcl: true,
      importWithoutMounts: true,
      ashift: true,
      poolReadOnly: true,
      poolSync: true,
      written: true,
      sendEmbedded: true,
      sendEstimate: true,
    });
    assert.equal(compression[0], 'lz4');
    assert.ok(compression.includes('zstd-19') && compression.includes('zstd-fast-1000'));
    assert.ok(!compression.some((value) => /on|off|\[/.test(value)));
  });

  it('that say nothing are no support for anything', () => {
    const support = toSupport({ zfs: '', zfsGet: '', zpool: '', zpoolGet: '' });
    assert.deepEqual(support.compression, []);
    assert.equal(support.recordSizeBytesMax, null);
    assert.equal(support.compressedSend, false);
  });
});
