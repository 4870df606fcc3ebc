import { createCommands } from '../../plugin/exec.ts';
import { createZfs } from '../../plugin/storage/zfs/zfs.ts';
import { enterOwnMounts } from '../support/own-mounts.ts';
import { startZfsFuse, whyNoZfsFuse } from '../support/zfs-fuse.ts';
import { storageContract } from './storage.ts';

enterOwnMounts();
const reason = whyNoZfsFuse();

if (reason === null) {
  const make = async () => {
    const fuse = await startZfsFuse({ pool: false });
    return { storage: createZfs(fuse.config, createCommands()), dispose: fuse.stop };
  };
  // Its commands take a tenth of a second each, and several times that beside others.
  storageContract('zfs on zfs-fuse', make, { timeoutMs: 120_000, datasets: 60 });
} else {
  describe('storage contract: zfs on zfs-fuse', () => {
    it.skip(`is met (${reason})`);
  });
}
