import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { openEmbeddedStore } from '../../controller/store/embedded.ts';
import { storeContract } from './store.ts';

storeContract('embedded', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'flock-store-'));
  const path = join(folder, 'store.db');
  const [here, there] = [
    await openEmbeddedStore(path, { timeoutMs: 1_000 }),
    await openEmbeddedStore(path, { timeoutMs: 1_000 }),
  ];
  const other = new DatabaseSync(path, { timeout: 1_000 });
  return {
    here,
    there,
    ttlMs: 300,
    // A program that does not end its transaction.
    fail: async () => other.exec('BEGIN IMMEDIATE'),
    mend: async () => other.exec('ROLLBACK'),
    faultMsMax: 10_000,
    readsFail: false,
    async dispose() {
      await here.close();
      await there.close();
      other.close();
      await rm(folder, { recursive: true });
    },
  };
});
