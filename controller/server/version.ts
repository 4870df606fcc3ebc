import { readFile } from 'node:fs/promises';
import { versionView } from '../model/api.ts';

/** What the program of an image was built from, for people. Never fails: a program without it works, too. */
export async function readVersion(path: string): Promise<string> {
  try {
    return versionView.parse({ ...JSON.parse(await readFile(path, 'utf8')), node: process.version }).version;
  } catch {
    return 'unknown';
  }
}
