import assert from 'node:assert/strict';
import type { DatasetId } from '../../controller/model/names.ts';
import { isShown } from '../../plugin/docker-view.ts';

describe('what Docker’s daemon sees of mounts', () => {
  const id = 'db.12345678' as DatasetId;
  const folder = `/var/lib/docker/plugins/${'a'.repeat(64)}/propagated-mount`;
  const line = (mount: number, parent: number, point: string) =>
    `${mount} ${parent} 0:50 / ${point} rw,relatime shared:9 - btrfs /dev/loop0 rw`;
  const root = line(20, 1, '/');
  const shows = (...lines: readonly string[]) => isShown([root, ...lines, ''].join('\n'), id);

  it('is a dataset on the folder that it shares with the plugin', () => {
    assert.ok(shows(line(30, 20, folder), line(40, 30, `${folder}/volumes/${id}`)));
    assert.ok(
      shows(line(30, 20, folder), line(40, 30, `${folder}/volumes/${id}`), line(41, 40, `${folder}/volumes/${id}`)),
    );
  });

  it('is not one where the folder is gone, or hidden by another mount, or of another dataset', () => {
    assert.ok(!shows());
    assert.ok(!shows(line(30, 20, folder)));
    assert.ok(!shows(line(40, 20, `${folder}/volumes/${id}`)));
    assert.ok(!shows(line(30, 20, folder), line(40, 30, `${folder}/volumes/${id}`), line(31, 30, folder)));
    assert.ok(!shows(line(30, 20, folder), line(40, 30, `${folder}/volumes/x${id}`)));
    assert.ok(!shows(line(30, 20, '/mnt/propagated-mount'), line(40, 30, `/mnt/propagated-mount/volumes/${id}`)));
  });
});
