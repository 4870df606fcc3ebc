import { randomBytes } from 'node:crypto';
import { createMemory } from '../../plugin/storage/memory.ts';
import { storageContract } from './storage.ts';

storageContract('memory', async () => {
  const storage = createMemory({
    nowMs: () => Date.now(),
    randomHex: (digits) => randomBytes(digits).toString('hex').slice(0, digits),
  });
  const { content, mountTable } = storage;
  return { storage, content, mountTable, dispose: async () => {} };
});
