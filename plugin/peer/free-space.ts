import { statfs } from 'node:fs/promises';

/** What has to stay free on the file system: the larger of both. */
const freeShareMin = 0.1;
const freeBytesMin = 1024 ** 3;

/** What may be written in a folder, in bytes; negative: less is free than has to stay. */
export async function spareBytes(folder: string): Promise<number> {
  const { bavail, blocks, bsize } = await statfs(folder);
  return bavail * bsize - Math.max(freeBytesMin, blocks * bsize * freeShareMin);
}
