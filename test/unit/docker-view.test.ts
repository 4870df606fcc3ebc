import assert from 'node:assert/strict';
import type { DatasetId } from '../../controller/model/names.ts';
import { isFolderShared, isShown } from '../../plugin/docker-view.ts';
import { watchFolder } from '../../plugin/folder-watch.ts';

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

  it('is the folder of the same group of mounts', () => {
    const own = [root, line(50, 49, '/mnt/flock')].join('\n');
    assert.ok(isFolderShared(own, line(30, 20, folder), '/mnt/flock'));
    assert.ok(!isFolderShared(own, line(30, 20, folder).replace('shared:9', 'shared:8'), '/mnt/flock'));
    assert.ok(!isFolderShared(own, root, '/mnt/flock'));
    assert.ok(!isFolderShared(root, line(30, 20, folder), '/mnt/flock'));
  });

  it('is told of when the daemon has it no more, not when it never had it', async () => {
    const told = async (answers: readonly (boolean | null)[]) => {
      const rest = [...answers];
      const ended = new AbortController();
      let isTold = false;
      const sharesFolder = async () => {
        const answer = rest.shift();
        if (rest.length === 0) ended.abort();
        return answer ?? null;
      };
      await watchFolder({ sharesFolder }, () => (isTold = true), ended.signal);
      return isTold;
    };
    assert.equal(await told([true, null, false]), true);
    assert.equal(await told([false, false]), false);
    assert.equal(await told([true, null]), false);
  });
});
