import { readdir, readFile } from 'node:fs/promises';
import type { MountEntry } from './storage/storage.ts';

/** Parses /proc/PID/mountinfo (proc(5)). Lines that do not have its shape are left out. Pure. */
export function parseMountInfo(text: string): readonly MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [before, after] = line.split(' - ');
    if (before === undefined || after === undefined) continue;
    const [, , device, root, mountPoint, options, ...optional] = before.split(' ');
    const [fsType, source, superOptions] = after.split(' ');
    if (
      device === undefined ||
      root === undefined ||
      mountPoint === undefined ||
      fsType === undefined ||
      source === undefined
    )
      continue;
    const readOnly = [...(options ?? '').split(','), ...(superOptions ?? '').split(',')].includes('ro');
    const shared = optional.some((field) => field.startsWith('shared:'));
    entries.push({
      device,
      root: decodeOctal(root),
      mountPoint: decodeOctal(mountPoint),
      fsType,
      source: decodeOctal(source),
      readOnly,
      shared,
    });
  }
  return entries;
}

export async function readMountTable(): Promise<readonly MountEntry[]> {
  return parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
}

/**
 * The mount tables of all processes that this one sees, each different one once (most processes share the host's). They can be read
 * without any capability; the namespaces' own numbers could not.
 */
export async function* allMountTables(): AsyncGenerator<{
  readonly pid: number;
  readonly entries: readonly MountEntry[];
}> {
  const seen = new Set<string>();
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    // The process may have ended meanwhile.
    const text = await readFile(`/proc/${name}/mountinfo`, 'utf8').catch(() => '');
    if (text === '' || seen.has(text)) continue;
    seen.add(text);
    yield { pid: Number(name), entries: parseMountInfo(text) };
  }
}

/** A mount of this kind in the namespace of any process, or null. */
export async function mountedAnywhere(isWanted: (entry: MountEntry) => boolean): Promise<MountEntry | null> {
  for await (const { entries } of allMountTables()) {
    const found = entries.find(isWanted);
    if (found !== undefined) return found;
  }
  return null;
}

/** What is mounted on top at this path, or null. */
export function mountedAt(table: readonly MountEntry[], path: string): MountEntry | null {
  return table.findLast((entry) => entry.mountPoint === path) ?? null;
}

/**
 * Where else than at `path` these mounts show in our own namespace: copies that came with the bind of /var/lib and that keep a mount
 * point busy when the mount itself has gone. Pure.
 */
export function copiesOf(
  table: readonly MountEntry[],
  isCopy: (entry: MountEntry) => boolean,
  path: string,
): readonly string[] {
  return table
    .filter((entry) => isCopy(entry) && entry.mountPoint !== path)
    .map(({ mountPoint }) => mountPoint)
    .toReversed();
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
function decodeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
