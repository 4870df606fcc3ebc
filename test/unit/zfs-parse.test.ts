import assert from 'node:assert/strict';
import { stampBytesMax } from '../../plugin/storage/storage.ts';
import {
  isResumeToken,
  parseEstimate,
  parsePoolLine,
  parseProperties,
  parseTokenTarget,
  toDatasets,
  toHolds,
  toSnapshots,
  toStamp,
} from '../../plugin/storage/zfs/parse.ts';
import { decodeStamp, encodeStamp } from '../../plugin/storage/zfs/property-text.ts';
import { refuses } from '../support/refuses.ts';

const line = (...columns: readonly string[]) => columns.join('\t');

/** `zfs get -Hp -r -d 1 -o name,property,value,source` of the prefix. */
const listing = [
  line('flock/volumes', 'referenced', '114688', '-'),
  line('flock/volumes', 'flock:stamp', '-', '-'),
  line('flock/volumes@by-hand', 'referenced', '114688', '-'),
  line('flock/volumes/db.0a1b2c3d', 'referenced', '1048576', '-'),
  line('flock/volumes/db.0a1b2c3d', 'usedbysnapshots', '4096', '-'),
  line('flock/volumes/db.0a1b2c3d', 'refquota', '104857600', 'local'),
  line('flock/volumes/db.0a1b2c3d', 'flock:stamp', '{"a b":"c\td"}', 'local'),
  line('flock/volumes/web.00000001', 'referenced', '0', '-'),
  line('flock/volumes/web.00000001', 'usedbysnapshots', '0', '-'),
  line('flock/volumes/web.00000001', 'refquota', '0', 'default'),
  line('flock/volumes/web.00000001', 'flock:stamp', 'x', 'inherited from flock/volumes'),
  line('flock/volumes/db.0a1b2c3d:gone', 'referenced', '1', '-'),
  line('flock/volumes/someone', 'referenced', '1', '-'),
].join('\n');

function snapshotLines(name: string, transaction: number, changes: Readonly<Record<string, string>> = {}): string {
  const values = {
    guid: '9223372036854775807',
    createtxg: String(transaction),
    creation: '1795393166',
    used: '512',
    userrefs: '0',
    defer_destroy: 'off',
    'flock:holds': '-',
    ...changes,
  };
  const source = (property: string, value: string) => (property === 'flock:holds' && value !== '-' ? 'local' : '-');
  return Object.entries(values)
    .map(([property, value]) => line(`p/a.00000001@${name}`, property, value, source(property, value)))
    .join('\n');
}

const snapshotsOf = (...texts: readonly string[]) => toSnapshots(parseProperties(texts.join('\n')), 'p/a.00000001');

describe('output of zfs', () => {
  it('is read as datasets whose names are ids, with a tab in a stamp', () => {
    assert.deepEqual(toDatasets(parseProperties(listing), 'flock/volumes'), [
      {
        id: 'db.0a1b2c3d',
        usedBytes: 1048576,
        totalBytes: 1052672,
        quotaBytes: 104857600,
        stamp: '{"a b":"c\td"}',
      },
      { id: 'web.00000001', usedBytes: 0, totalBytes: 0, quotaBytes: null, stamp: null },
    ]);
  });

  it('without a number where one must be is an error', () => {
    const text = line('p/a.00000001', 'referenced', '1.5K', '-');
    refuses(() => toDatasets(parseProperties(text), 'p'), 'storage-failed');
  });

  it('is read as snapshots in the order of their making', () => {
    const found = snapshotsOf(snapshotLines('b', 12), snapshotLines('a', 11), snapshotLines('c', 100));
    assert.deepEqual(
      found.map(({ name }) => name),
      ['a', 'b', 'c'],
    );
  });

  it('gives identities to the last digit', () => {
    assert.equal(
      snapshotsOf(snapshotLines('a', 1, { guid: '18446744073709551615' }))[0]?.identity,
      '18446744073709551615',
    );
  });

  it('of zfs-fuse without -p has rounded identities, which are not taken', () => {
    refuses(() => snapshotsOf(snapshotLines('a', 1, { guid: '8.31E' })), 'storage-failed');
  });

  it('leaves out snapshots of other datasets and such with foreign names', () => {
    const other = snapshotLines('a', 1).replaceAll('p/a.00000001@', 'p/a.00000001/child@');
    assert.deepEqual(snapshotsOf(other, snapshotLines('x y', 2)), []);
  });

  it('tells artifacts of the backend from internal snapshots of flock', () => {
    const found = snapshotsOf(snapshotLines('flock.gone-1', 1), snapshotLines('flock.r-1', 2), snapshotLines('own', 3));
    assert.deepEqual(
      found.map(({ artifact }) => artifact),
      [true, false, false],
    );
  });

  it('has the tags of holds only where they were set on the snapshot itself', () => {
    assert.deepEqual(toHolds({ value: 'a,flock.send:b', source: 'local' }), ['a', 'flock.send:b']);
    assert.deepEqual(toHolds({ value: 'a', source: 'inherited from p/a.00000001' }), []);
    assert.deepEqual(toHolds(undefined), []);
  });

  it('of zpool tells health and, where it is known, whether it is read-only', () => {
    assert.deepEqual(parsePoolLine('flock\tONLINE'), { health: 'ONLINE', readOnly: false });
    assert.deepEqual(parsePoolLine('flock\tDEGRADED\ton\n'), { health: 'DEGRADED', readOnly: true });
  });
});

describe('stamps in properties', () => {
  const texts = [
    '{"a":"it\'s"}',
    '',
    '-',
    '%',
    '%41',
    'a%b',
    '\tone\ntwo\n',
    'nul\0del\x7f',
    ' 世界 ',
    'x'.repeat(stampBytesMax),
  ];
  for (const text of texts) {
    it(`${JSON.stringify(text.slice(0, 20))} comes back, on one line`, () => {
      const value = encodeStamp(text);
      assert.doesNotMatch(value, /[\n\r]/);
      assert.notEqual(value, '');
      assert.equal(decodeStamp(value), text);
    });
  }

  it('are readable where they can be', () => {
    assert.equal(encodeStamp('{"epoch":3}'), '{"epoch":3}');
  });

  it('are limited in bytes', () => {
    refuses(() => encodeStamp('é'.repeat(stampBytesMax / 2 + 1)), 'invalid-option');
  });

  it('that a dataset only inherits are none', () => {
    assert.equal(toStamp({ value: 'x', source: 'inherited from flock/volumes' }), null);
    assert.equal(toStamp({ value: '-', source: 'local' }), '-');
  });
});

describe('what zfs says of a stream', () => {
  it('is its size, which a dry run prints last', () => {
    assert.equal(parseEstimate('incremental\ts1\tp/a@s2\t1234\nsize\t1234\n'), 1234);
    assert.equal(parseEstimate('full\tp/a@s2\t99'), null);
  });

  it('is what a resume token is for', () => {
    const text = 'resume token contents:\nnvlist version: 0\n\tobject = 0x2\n\ttoguid = 0x1\n\ttoname = p/a@s2\n';
    assert.equal(parseTokenTarget(text), 'p/a@s2');
    assert.equal(parseTokenTarget('cannot resume send'), null);
  });

  it('is a token only where it can be no option', () => {
    assert.ok(isResumeToken('1-e604ea4bf-e0-789c63a2'));
    for (const text of ['', '-', '-F', '1-a-b', '1-a-b-c d', `1-a-b-${'c'.repeat(9_000)}`])
      assert.ok(!isResumeToken(text));
  });
});
