import assert from 'node:assert/strict';
import { rootMountOf } from '../../plugin/users.ts';

const sys = '24 29 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw';
const root = '29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw';
const volume = '77 29 0:52 /volumes/data.00000001 /mnt/look rw,relatime shared:9 - btrfs /dev/loop0 rw';
const text = (...lines: readonly string[]) => `${lines.join('\n')}\n`;

describe('mount tables', () => {
  it('are told to be of one namespace, whatever is mounted there meanwhile', () => {
    const before = text(sys, root, volume);
    const after = text(sys, root, volume, '91 29 0:60 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw');
    assert.equal(rootMountOf(before), rootMountOf(after));
  });

  it('are told from a copy of the same mounts, and by the root that is on top', () => {
    const copy = text(sys.replace('24', '124'), root.replace('29', '129'), volume.replace('77', '177'));
    assert.notEqual(rootMountOf(text(sys, root, volume)), rootMountOf(copy));
    assert.equal(rootMountOf(text('2 1 0:2 / / rw - rootfs rootfs rw', root)), '29');
  });

  it('are as good as their text where the root is no mount', () => {
    assert.notEqual(rootMountOf(text(sys)), rootMountOf(text(volume)));
    assert.equal(rootMountOf(''), '');
  });
});
