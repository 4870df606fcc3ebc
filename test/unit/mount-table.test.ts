import assert from 'node:assert/strict';
import { mountedAt, parseMountInfo } from '../../plugin/mount-table.ts';

const text = `22 27 0:21 / /proc rw,relatime - proc proc rw
88 27 0:45 /volumes/db.0a1b2c3d /mnt/flock/volumes/db.0a1b2c3d rw,noatime shared:5 - btrfs /dev/loop8 rw,subvolid=256,subvol=/volumes/db.0a1b2c3d
89 27 0:46 / /mnt/with\\040space\\134 rw - zfs tank/flock/db.0a1b2c3d ro,xattr
90 27 0:47 / /mnt/flock/volumes/db.0a1b2c3d rw - tmpfs tmpfs rw
nonsense
`;

describe('mount table', () => {
  it('reads entries with and without optional fields', () => {
    const table = parseMountInfo(text);
    assert.equal(table.length, 4);
    assert.deepEqual(table[1], {
      device: '0:45',
      root: '/volumes/db.0a1b2c3d',
      mountPoint: '/mnt/flock/volumes/db.0a1b2c3d',
      fsType: 'btrfs',
      source: '/dev/loop8',
      readOnly: false,
      shared: true,
    });
  });

  it('decodes what the kernel escapes', () => assert.equal(parseMountInfo(text)[2]?.mountPoint, '/mnt/with space\\'));
  it('knows a read-only super block', () => assert.equal(parseMountInfo(text)[2]?.readOnly, true));
  it('answers the topmost of stacked mounts', () =>
    assert.equal(mountedAt(parseMountInfo(text), '/mnt/flock/volumes/db.0a1b2c3d')?.fsType, 'tmpfs'));
  it('answers null where nothing is mounted', () => assert.equal(mountedAt(parseMountInfo(text), '/nowhere'), null));
});
