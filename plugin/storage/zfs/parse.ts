import { FlockError } from '../../../controller/model/errors.ts';
import { type HoldTag, isDatasetId, parseHoldTag, parseSnapshotName } from '../../../controller/model/names.ts';
import type { Dataset, Snapshot } from '../storage.ts';
import { isArtifact } from './arguments.ts';
import { decodeStamp } from './property-text.ts';

export type Property = { readonly value: string; readonly source: string };
/** Properties by dataset or snapshot, in the order of the output. */
export type PropertyTable = ReadonlyMap<string, ReadonlyMap<string, Property>>;

/** Parses `zfs get -Hp -o name,property,value,source`. A value may hold tabs, so it is all between the second and the last. Pure. */
export function parseProperties(text: string): PropertyTable {
  const table = new Map<string, Map<string, Property>>();
  for (const line of text.split('\n')) {
    const [name, property, ...rest] = line.split('\t');
    const source = rest.pop();
    if (name === undefined || property === undefined || source === undefined) continue;
    const properties = table.get(name) ?? new Map<string, Property>();
    properties.set(property, { value: rest.join('\t'), source });
    table.set(name, properties);
  }
  return table;
}

/** Facts of a snapshot that the contract's Snapshot does not have. */
export type SnapshotFacts = Snapshot & {
  readonly path: string;
  readonly transaction: number;
  /** How many real holds it has, also such as others have set. */
  readonly references: number;
  /** It goes with its last hold or clone. */
  readonly deferred: boolean;
  /** Made by this backend for its own purposes; not shown. */
  readonly artifact: boolean;
};

export const snapshotProperties = ['guid', 'createtxg', 'creation', 'used', 'userrefs', 'defer_destroy', 'flock:holds'];
export const datasetProperties = ['referenced', 'usedbysnapshots', 'refquota', 'flock:stamp'];

/** The snapshots of one dataset, oldest first. Such with names that flock can't have given are left out. Pure. */
export function toSnapshots(table: PropertyTable, dataset: string): readonly SnapshotFacts[] {
  const found: SnapshotFacts[] = [];
  for (const [path, properties] of table) {
    if (!path.startsWith(`${dataset}@`)) continue;
    const facts = toSnapshot(path, path.slice(dataset.length + 1), properties);
    if (facts !== null) found.push(facts);
  }
  return found.sort((a, b) => a.transaction - b.transaction);
}

function toSnapshot(path: string, text: string, properties: ReadonlyMap<string, Property>): SnapshotFacts | null {
  const name = attempt(() => parseSnapshotName(text));
  if (name === null) return null;
  return {
    name,
    path,
    identity: exactNumber(path, properties, 'guid'),
    createdAtMs: Number(exactNumber(path, properties, 'creation')) * 1_000,
    uniqueBytes: Number(exactNumber(path, properties, 'used')),
    transaction: Number(exactNumber(path, properties, 'createtxg')),
    references: Number(exactNumber(path, properties, 'userrefs')),
    holds: toHolds(properties.get('flock:holds')),
    deferred: properties.get('defer_destroy')?.value === 'on',
    artifact: isArtifact(name),
  };
}

/** User properties are inherited from the dataset; holds are those that were set on the snapshot itself. */
export function toHolds(property: Property | undefined): readonly HoldTag[] {
  if (property === undefined || !isOwn(property)) return [];
  return property.value.split(',').flatMap((text) => attempt(() => parseHoldTag(text)) ?? []);
}

/** The datasets right below the prefix whose name is an id; others are somebody else's. Pure. */
export function toDatasets(table: PropertyTable, prefix: string): readonly Dataset[] {
  const found: Dataset[] = [];
  for (const [path, properties] of table) {
    const id = path.startsWith(`${prefix}/`) ? path.slice(prefix.length + 1) : '';
    if (!isDatasetId(id)) continue;
    const used = Number(exactNumber(path, properties, 'referenced'));
    const quota = properties.get('refquota')?.value ?? 'none';
    found.push({
      id,
      usedBytes: used,
      totalBytes: used + Number(exactNumber(path, properties, 'usedbysnapshots')),
      quotaBytes: /^[1-9][0-9]*$/.test(quota) ? Number(quota) : null,
      stamp: toStamp(properties.get('flock:stamp')),
    });
  }
  return found;
}

/** A dataset without a stamp of its own is one whose receive did not finish. */
export function toStamp(property: Property | undefined): string | null {
  return property !== undefined && isOwn(property) ? decodeStamp(property.value) : null;
}

function isOwn({ source }: Property): boolean {
  return source === 'local' || source === 'received';
}

/** A number as text: a guid does not fit a double. */
export function exactNumber(path: string, properties: ReadonlyMap<string, Property>, name: string): string {
  const value = properties.get(name)?.value ?? '';
  if (/^[0-9]+$/.test(value)) return value;
  throw new FlockError('storage-failed', `zfs gave no number for ${name} of ${path}: ${JSON.stringify(value)}`);
}

/** `zfs send -nP`: its last line is `size` and bytes. Null if there is none. Pure. */
export function parseEstimate(text: string): number | null {
  const [, bytes] = /^size\s+(\d+)$/m.exec(text) ?? [];
  return bytes === undefined ? null : Number(bytes);
}

/** The snapshot that a resume token is for, from `zfs send -nvt`. Null if there is none. Pure. */
export function parseTokenTarget(text: string): string | null {
  return /^\s*toname = (\S+)$/m.exec(text)?.[1] ?? null;
}

/** A token as `zfs` prints it: version, checksum and two more numbers in hex. Pure. */
export function isResumeToken(text: string): boolean {
  return text.length <= resumeTokenCharactersMax && /^[0-9]+(-[0-9a-f]+){3}$/.test(text);
}

const resumeTokenCharactersMax = 8_192;

export type PoolLine = { readonly health: string; readonly readOnly: boolean };

/** Parses `zpool list -H -o name,health[,readonly]`. Pure. */
export function parsePoolLine(text: string): PoolLine {
  const [, health = '', readOnly = 'off'] = text.trim().split('\t');
  return { health, readOnly: readOnly === 'on' };
}

function attempt<T>(work: () => T): T | null {
  try {
    return work();
  } catch {
    return null;
  }
}
