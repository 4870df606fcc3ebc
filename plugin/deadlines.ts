import { readFileSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { type DatasetId, parseDatasetId } from '../controller/model/names.ts';

/**
 * Until when each volume may be written, on the boot clock, in a file that the watchdog reads. It is on a tmpfs: after a reboot there
 * are no users, and the clock has begun anew.
 */
export type Deadlines = ReadonlyMap<DatasetId, number>;

const schema = z.array(z.tuple([z.string().transform(parseDatasetId), z.number().nullable()]));

/** An unreadable or missing file says nothing: no deadlines. */
export function readDeadlines(path: string): Deadlines {
  try {
    const entries = schema.parse(JSON.parse(readFileSync(path, 'utf8')));
    return new Map(entries.map(([id, deadlineMs]) => [id, deadlineMs ?? Number.NEGATIVE_INFINITY]));
  } catch {
    return new Map();
  }
}

export async function writeDeadlines(path: string, deadlines: Deadlines): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  // JSON has no infinity: null stands for "no proof at all".
  await writeFile(`${path}.new`, JSON.stringify([...deadlines]));
  await rename(`${path}.new`, path);
}
