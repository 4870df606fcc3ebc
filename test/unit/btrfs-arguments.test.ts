import assert from 'node:assert/strict';
import { parseDatasetId, parseHoldTag, parseSnapshotName } from '../../controller/model/names.ts';
import {
  compressionArguments,
  isRootOf,
  layoutBelow,
  limitArguments,
  mkfsArguments,
  mountArguments,
  sendArguments,
} from '../../plugin/storage/btrfs/arguments.ts';

const id = parseDatasetId('db.00000001');
const name = parseSnapshotName('s1');

describe('btrfs arguments', () => {
  it('a hold can have no name that a snapshot has', () => {
    const layout = layoutBelow('/top');
    assert.equal(layout.snapshot(id, name), '/top/snapshots/db.00000001/s1/s1');
    assert.equal(layout.hold(id, name, parseHoldTag('s1')), '/top/snapshots/db.00000001/s1/+s1');
    assert.throws(() => parseSnapshotName('+s1'));
  });

  it('nothing is ever discarded, because that would punch holes into the pool file', () => {
    assert.ok(mkfsArguments('/pool').includes('-K'));
    assert.ok(!mkfsArguments('/pool').includes('-f'));
    for (const args of [mountArguments.top('/dev/loop0', '/top'), mountArguments.volume('/dev/loop0', id, '/mnt')])
      assert.match(args[3] ?? '', /(^|,)nodiscard(,|$)/);
    assert.match(mountArguments.volume('/dev/loop0', id, '/mnt')[3] ?? '', /,subvol=volumes\/db\.00000001$/);
  });

  it('the parent of an increment is always named', () => {
    assert.deepEqual(sendArguments({ snapshot: '/b', parent: '/a', compressed: false }), [
      'send',
      '-q',
      '-p',
      '/a',
      '/b',
    ]);
    assert.deepEqual(sendArguments({ snapshot: '/b', parent: null, compressed: true }), [
      'send',
      '-q',
      '--proto',
      '2',
      '--compressed-data',
      '/b',
    ]);
  });

  it('limits and compression can be lifted', () => {
    assert.deepEqual(limitArguments(null, 300, '/top'), ['qgroup', 'limit', 'none', '0/300', '/top']);
    assert.deepEqual(limitArguments(5, 300, '/top'), ['qgroup', 'limit', '5', '0/300', '/top']);
    assert.equal(compressionArguments('/v', 'off').at(-1), 'none');
    assert.equal(compressionArguments('/v', 'zstd').at(-1), 'zstd');
  });

  it('a mount shows a dataset where its root is the live subvolume or below, deleted or not', () => {
    assert.ok(isRootOf('/volumes/db.00000001', id));
    assert.ok(isRootOf('/volumes/db.00000001/data', id));
    assert.ok(isRootOf('/volumes/db.00000001//deleted', id));
    assert.ok(!isRootOf('/volumes/db.000000012', id));
    assert.ok(!isRootOf('/snapshots/db.00000001/s1/s1', id));
    assert.ok(!isRootOf('/', id));
  });
});
