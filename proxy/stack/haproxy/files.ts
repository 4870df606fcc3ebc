import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { message, ownAnswers } from './answers.ts';
import type { Layout } from './layout.ts';
import { connectionCleaner } from './request-rules.ts';
import { noSlots, type Slots, slotsSchema } from './slots.ts';
import type { Wanted } from './wanted.ts';

/** What HAProxy starts with, on disk. Only what differs is written, each file as a whole, for root alone: there are keys in it. */
export type Files = {
  write(wanted: Wanted, slots: Slots, configuration: string): Promise<void>;
  /** Those that were given away before this process was started. */
  readSlots(): Promise<Slots>;
  /** Names of maps that are there: of what HAProxy has as it comes up. */
  mapsOnDisk(): Promise<readonly string[]>;
};

export function createFiles(layout: Layout): Files {
  const written = new Map<string, string>();

  async function put(path: string, text: string): Promise<void> {
    const before = written.get(path) ?? (await readOrNull(path));
    if (before !== text) {
      await writeFile(`${path}.new`, text, { mode: 0o600 });
      await rename(`${path}.new`, path);
    }
    written.set(path, text);
  }

  async function keepOnly(folder: string, paths: ReadonlySet<string>): Promise<void> {
    for (const name of await readdir(folder)) {
      const path = join(folder, name);
      if (paths.has(path)) continue;
      await rm(path, { force: true });
      written.delete(path);
    }
  }

  return {
    async write({ structure, maps }, slots, configuration) {
      for (const folder of [layout.maps, layout.certificates, layout.inner])
        await mkdir(folder, { recursive: true, mode: 0o700 });
      await put(layout.cleaner, connectionCleaner);
      await put(layout.unreachable, message(ownAnswers.unreachable));
      const pems = new Map([...structure.certificates].map(([name, { text }]) => [layout.certificate(name), text]));
      const lists = new Map([...maps].map(([name, entries]) => [layout.map(name), mapText(entries)]));
      for (const [path, text] of [...pems, ...lists]) await put(path, text);
      await put(layout.slots, `${JSON.stringify(slots)}\n`);
      // Last, because it names the others; and what it names no more goes after it.
      await put(layout.configuration, configuration);
      await keepOnly(layout.certificates, new Set(pems.keys()));
      await keepOnly(layout.maps, new Set(lists.keys()));
    },
    async readSlots() {
      const text = await readOrNull(layout.slots);
      if (text === null) return noSlots;
      try {
        return slotsSchema.parse(JSON.parse(text));
      } catch {
        // Half written by an older version, or by hand: slots that HAProxy still uses are busy, so others are taken.
        return noSlots;
      }
    },
    async mapsOnDisk() {
      const hasConfiguration = (await readOrNull(layout.configuration)) !== null;
      const names = hasConfiguration ? await readdir(layout.maps) : [];
      return names.filter((name) => name.endsWith('.map')).map((name) => basename(name, '.map'));
    },
  };
}

function mapText(entries: ReadonlyMap<string, string>): string {
  let text = '';
  for (const [key, value] of entries) text += `${key} ${value}\n`;
  return text;
}

async function readOrNull(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
}
