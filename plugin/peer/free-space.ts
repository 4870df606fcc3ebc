import { type StatsFs, statfsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';

/** What has to stay free on the file system: the larger of both. */
const freeShareMin = 0.1;
const freeBytesMin = 1024 ** 3;

/** What may be written in a folder, in bytes; negative: less is free than has to stay. */
export async function spareBytes(folder: string): Promise<number> {
  return spareOf(await statfs(folder));
}

/** The same, for a process that waits for its disk anyway. */
export function spareBytesSync(folder: string): number {
  return spareOf(statfsSync(folder));
}

function spareOf({ bavail, blocks, bsize }: StatsFs): number {
  return bavail * bsize - Math.max(freeBytesMin, blocks * bsize * freeShareMin);
}
