import { parseVolumeName } from '../../controller/model/names.ts';
import type { MemoryStorage } from '../../plugin/storage/memory.ts';
import type { Context } from '../../plugin/volumes/context.ts';
import { crashSuite, storageWithFuse } from '../support/crash-points.ts';
import { memoryHost } from '../support/plugin-context.ts';

describe('a process that dies between two steps (memory)', () => {
  crashSuite<MemoryStorage>(async () => {
    const make = memoryHost();
    const idOf = (context: Context, volume: string) => {
      const record = context.state.byName(parseVolumeName(volume));
      if (record === undefined) throw new Error(`no volume ${volume}`);
      return record.id;
    };
    return {
      makeStorage: make,
      wrapStorage: storageWithFuse,
      write: (storage, context, volume, text) => storage.content.write(idOf(context, volume), 'file', text),
      read: async (storage, context, volume) =>
        (await storage.content.read(idOf(context, volume), 'file'))?.toString() ?? null,
    };
  });
});
