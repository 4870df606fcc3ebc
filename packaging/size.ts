import { lstat, readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';

/** "127.0 MB: usr/bin/node 108.5, ...": the size and the three largest files. */
export async function describeSize(dir: string): Promise<string> {
  const files = (await filesBelow(dir)).toSorted((a, b) => b.bytes - a.bytes);
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const largest = files.slice(0, 3).map(({ path, bytes }) => `${relative(dir, path)} ${megabytes(bytes)}`);
  return `${megabytes(total)} MB: ${largest.join(', ')}`;
}

type SizedFile = { readonly path: string; readonly bytes: number };

async function filesBelow(dir: string): Promise<readonly SizedFile[]> {
  const found: SizedFile[] = [];
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) found.push(...(await filesBelow(path)));
    else if (entry.isFile()) found.push({ path, bytes: (await lstat(path)).size });
  }
  return found;
}
