import { createCommands } from '../../plugin/exec.ts';
import { createZfs } from '../../plugin/storage/zfs/zfs.ts';
import { enterOwnMounts } from '../support/own-mounts.ts';
import { startZfsFuse, whyNoZfsFuse } from '../support/zfs-fuse.ts';
import { storageContract } from './storage.ts';

enterOwnMounts();
const reason = whyNoZfsFuse();

if (reason === null) {
  storageContract('zfs on zfs-fuse', async () => {
    const fuse = await startZfsFuse({ pool: false });
    return { storage: createZfs(fuse.config, createCommands()), dispose: fuse.stop };
  });
} else {
  describe('storage contract: zfs on zfs-fuse', () => {
    it.skip(`is met (${reason})`);
  });
}
