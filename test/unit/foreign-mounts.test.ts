import assert from 'node:assert/strict';
import { foreignMounts } from '../../plugin/foreign-mounts.ts';
import { parseMountInfo } from '../../plugin/mount-table.ts';

const id = 'a'.repeat(64);
const inPlugin = `1 0 254:0 /var/lib/docker/plugins/${id}/rootfs / rw - ext4 /dev/vda rw
2 1 254:0 /var/lib /var/lib rw master:1 - ext4 /dev/vda rw
3 2 254:1 / /var/lib/flock rw master:2 - ext4 /dev/vdb rw
4 3 0:50 / /var/lib/flock/mnt/db rw master:3 - fuse.zfs flock/volumes/db rw
5 2 0:60 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
6 2 254:2 / /var/lib/postgresql rw master:4 - ext4 /dev/vdc rw
7 6 254:3 / /var/lib/postgresql/wal rw master:5 - ext4 /dev/vdd rw
8 2 254:4 / /var/lib/shared rw shared:9 - ext4 /dev/vde rw
9 1 254:0 /x /mnt/flock rw shared:8 - ext4 /dev/vda rw
`;

describe("foreign mounts in the plugin's namespace", () => {
  it("are the host's copies below /var/lib, without what is flock's", () => {
    assert.deepEqual(foreignMounts(parseMountInfo(inPlugin), '/var/lib/flock').toSorted(), [
      '/var/lib/docker/overlay2/x/merged',
      '/var/lib/postgresql',
    ]);
  });

  it('are never touched outside a managed plugin', () => {
    assert.deepEqual(
      foreignMounts(parseMountInfo(inPlugin.replace(`/var/lib/docker/plugins/${id}/rootfs`, '/')), '/var/lib/flock'),
      [],
    );
  });
});
