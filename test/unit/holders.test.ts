import assert from 'node:assert/strict';
import type { DatasetId } from '../../controller/model/names.ts';
import { isOwnMount, type Place, placesOf } from '../../plugin/holders.ts';
import { parseMountInfo } from '../../plugin/mount-table.ts';
import { usedIn } from '../../plugin/users.ts';

const id = 'db.0a1b2c3d' as DatasetId;
const plugin = 'c'.repeat(64);
const propagated = `/var/lib/docker/plugins/${plugin}/propagated-mount`;
const folders = ['/mnt/flock/volumes', '/var/lib/flock/mnt'];
const volume = (point: string) => `90 80 0:45 / ${point} rw - zfs tank/flock/${id} rw`;

const inPlugin = `
10 1 0:30 / / rw - overlay overlay rw
11 10 8:1 /var/lib /var/lib rw - ext4 /dev/sda1 rw
12 10 8:1 ${propagated} /mnt/flock rw shared:1 - ext4 /dev/sda1 rw
${volume(`/mnt/flock/volumes/${id}`)}
${volume(`/var/lib/flock/mnt/${id}`)}`;
const onHost = `
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:1 ${propagated} ${propagated} rw shared:1 - ext4 /dev/sda1 rw
${volume(`${propagated}/volumes/${id}`)}
${volume(`/var/lib/flock/mnt/${id}`)}`;
/** As a monitoring agent has it: all of the host below /host. */
const bindOfRoot = `
30 1 0:50 / / rw - overlay overlay rw
31 30 8:1 / /host ro - ext4 /dev/sda1 rw
32 31 8:1 ${propagated} /host${propagated} rw - ext4 /dev/sda1 rw
${volume(`/host${propagated}/volumes/${id}`)}
${volume(`/host/var/lib/flock/mnt/${id}`)}`;
/** Docker's data on a file system of its own, below another path. */
const otherRoot = `
40 1 8:1 / / rw - ext4 /dev/sda1 rw
41 40 8:2 / /srv/docker rw - xfs /dev/sdb1 rw
42 41 8:2 /plugins/${plugin}/propagated-mount /srv/docker/plugins/${plugin}/propagated-mount rw - xfs /dev/sdb1 rw
${volume(`/srv/docker/plugins/${plugin}/propagated-mount/volumes/${id}`)}`;
const container = (point: string) => `
50 1 0:60 / / rw - overlay overlay rw
${volume(point)}`;

describe('holders of a volume', () => {
  const places = [inPlugin, onHost].flatMap((text) => placesOf(parseMountInfo(text), folders));
  const foreign = (text: string, own: readonly Place[] = places) => {
    const table = parseMountInfo(text);
    return table.filter((entry) => entry.source.endsWith(id) && !isOwnMount(table, entry, id, own));
  };

  for (const [where, text] of Object.entries({ inPlugin, onHost, bindOfRoot, otherRoot })) {
    it(`are not flock's own mounts: ${where}`, () => {
      assert.deepEqual(foreign(text), []);
      assert.deepEqual(usedIn(text, [id], places), []);
    });
  }

  it('are known from the host alone, as the watchdog has to', () => {
    const own = placesOf(parseMountInfo(onHost), folders);
    for (const text of [inPlugin, onHost, bindOfRoot, otherRoot]) assert.deepEqual(foreign(text, own), []);
  });

  for (const point of [
    '/data',
    '/mnt/flock/volumes/x',
    `/mnt/flock/volumes/${id}`,
    '/propagated-mount/volumes/x',
    `/propagated-mount/volumes/${id}`,
    `${propagated}/volumes/x`,
    '/var/lib/flock/mnt/x',
    `/var/lib/flock/mnt/${id}`,
  ]) {
    it(`are containers, whatever the path inside: ${point}`, () => {
      assert.equal(foreign(container(point)).length, 1);
      assert.deepEqual(usedIn(container(point), [id], places), [id]);
    });
  }

  for (const [what, line] of Object.entries({
    'a volume of btrfs': `/volumes/${id} /data rw - btrfs /dev/loop0 rw`,
    'a directory of one (volume-subpath)': `/volumes/${id}/sub /data rw - btrfs /dev/loop0 rw`,
    'one that was deleted since': `/volumes/${id}//deleted /data rw - btrfs /dev/loop0 rw`,
    'a directory of one on ZFS': `/sub /data rw - zfs tank/flock/${id} rw`,
  })) {
    it(`are containers with ${what}`, () => {
      assert.deepEqual(usedIn(`50 1 0:60 / / rw - overlay overlay rw\n90 50 0:45 ${line}`, [id], places), [id]);
    });
  }

  it('are not those of another one, or of a snapshot', () => {
    for (const root of [`/volumes/${id}0/sub`, `/volumes/x/${id}0`, `/snapshots/${id}/s1/s1`])
      assert.deepEqual(usedIn(`90 50 0:45 ${root} /data rw - btrfs /dev/loop0 rw`, [id], places), []);
  });

  it('are processes on the host that work on one (docker cp)', () =>
    assert.equal(foreign(`${onHost}\n${volume('/var/lib/docker/overlay2/x/merged/data')}`).length, 1));

  it('are whoever has it mounted where nothing else is known (a chroot)', () =>
    assert.equal(foreign(volume('/mnt/flock/volumes/x')).length, 1));
});
