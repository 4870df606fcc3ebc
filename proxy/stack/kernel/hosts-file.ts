import { type FileHandle, open } from 'node:fs/promises';

/** At the end of each line of ours. */
const marker = '# flock link';
/** A container's program may have written anything there. */
const hostsBytesMax = 1024 * 1024;

/** The text with exactly these names as ours, each leading to localhost. Null `names`: without a trace of us. Pure. */
export function withNames(text: string, names: readonly string[] | null): string {
  const kept = text.split('\n').filter((line) => !line.endsWith(marker));
  while (kept.at(-1) === '') kept.pop();
  const lines = names === null ? [] : names.map((name) => `127.0.0.1\t${name}\t${marker}`);
  // A link without a name leaves its mark, too: after a restart it tells whom we have touched.
  if (names?.length === 0) lines.push(marker);
  const all = [...kept, ...lines];
  return all.length === 0 ? '' : `${all.join('\n')}\n`;
}

/** Whether there is anything of us in it. Throws as `writeNames` does. */
export async function hasNames(path: string): Promise<boolean> {
  return withFile(path, 'r', async (_file, text) => text.split('\n').some((line) => line.endsWith(marker)));
}

/**
 * In place, because the container has this very file, not its name. Throws a SystemError if it can't be read or written, an Error if
 * it is too long.
 */
export async function writeNames(path: string, names: readonly string[] | null): Promise<void> {
  await withFile(path, 'r+', async (file, before) => {
    const after = withNames(before, names);
    if (after === before) return;
    // First the new text, then the end: who reads meanwhile finds whole lines, at worst some of the old ones again.
    await file.write(after, 0, 'utf8');
    await file.truncate(Buffer.byteLength(after));
  });
}

async function withFile<T>(
  path: string,
  flags: string,
  work: (file: FileHandle, text: string) => Promise<T>,
): Promise<T> {
  const file = await open(path, flags);
  try {
    if ((await file.stat()).size > hostsBytesMax)
      throw new Error(`${path} has more than ${hostsBytesMax} bytes: it is left as it is`);
    return await work(file, await file.readFile('utf8'));
  } finally {
    await file.close();
  }
}
