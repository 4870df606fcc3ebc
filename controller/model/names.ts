import { FlockError } from './errors.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** What people call a volume. Docker checks no names for plugins, so this parser is the border. */
export type VolumeName = Branded<'VolumeName'>;
/** What people or flock call a snapshot of a volume. */
export type SnapshotName = Branded<'SnapshotName'>;
/** The name of a dataset in the pool: volume name, dot, eight hex digits. Unique for ever, so a removed volume's name is free at once. */
export type DatasetId = Branded<'DatasetId'>;
/** A host of the cluster. Lower case, because it is a DNS label in certificates and keys. */
export type NodeName = Branded<'NodeName'>;
/** Why a snapshot must stay: `zfs hold` calls it a tag. */
export type HoldTag = Branded<'HoldTag'>;

/** Docker's own rule for local volumes (one letter would be a Windows drive to its command line), with a limit that leaves room for pool, suffix and snapshot within ZFS's 255 bytes. */
const volumeNamePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{1,127}$/;
const snapshotNamePattern = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$/;
const datasetIdPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.[0-9a-f]{8}$/;

/** Names that flock gives to snapshots of its own start like this; they are not listed for people. */
export const internalSnapshotPrefix = 'flock.';

export function parseVolumeName(text: string): VolumeName {
  if (volumeNamePattern.test(text)) return text as VolumeName;
  throw invalid(
    'volume name',
    text,
    'a letter or digit, then 1 to 127 letters, digits, dots, underscores or hyphens, such as "db" or "shop_pgdata"',
  );
}

export function isVolumeName(text: unknown): text is VolumeName {
  return typeof text === 'string' && volumeNamePattern.test(text);
}

export function parseSnapshotName(text: string): SnapshotName {
  if (snapshotNamePattern.test(text)) return text as SnapshotName;
  throw invalid(
    'snapshot name',
    text,
    'a letter or digit, then up to 63 letters, digits, dots, underscores, colons or hyphens, such as "before-upgrade"',
  );
}

/** As parseSnapshotName, but refuses the names that flock keeps for itself. */
export function parseUserSnapshotName(text: string): SnapshotName {
  const name = parseSnapshotName(text);
  if (isInternalSnapshot(name))
    throw invalid('snapshot name', text, `a name that does not start with "${internalSnapshotPrefix}"`);
  return name;
}

const nodeNamePattern = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

export function parseNodeName(text: string): NodeName {
  if (nodeNamePattern.test(text)) return text as NodeName;
  throw invalid('node name', text, 'up to 63 lower-case letters, digits and inner hyphens, such as "host-1"');
}

export function parseHoldTag(text: string): HoldTag {
  if (snapshotNamePattern.test(text)) return text as HoldTag;
  throw invalid('hold tag', text, 'letters, digits, dots, underscores, colons or hyphens, at most 64');
}

export function isInternalSnapshot(name: SnapshotName): boolean {
  return name.startsWith(internalSnapshotPrefix);
}

export function isDatasetId(text: string): text is DatasetId {
  return datasetIdPattern.test(text);
}

export function parseDatasetId(text: string): DatasetId {
  if (isDatasetId(text)) return text;
  throw invalid('dataset id', text, 'a volume name, a dot and eight hex digits, as "flockctl trash ls" shows them');
}

/** `suffix`: eight hex digits from a random source. */
export function datasetIdFor(name: VolumeName, suffix: string): DatasetId {
  return parseDatasetId(`${name}.${suffix}`);
}

/** `VOLUME` or `VOLUME@SNAPSHOT`. */
export function parseVolumeRef(text: string): { readonly name: VolumeName; readonly snapshot: SnapshotName | null } {
  const at = text.indexOf('@');
  if (at < 0) return { name: parseVolumeName(text), snapshot: null };
  return { name: parseVolumeName(text.slice(0, at)), snapshot: parseSnapshotName(text.slice(at + 1)) };
}

function invalid(what: string, text: string, wanted: string): FlockError {
  return new FlockError('invalid-name', `invalid ${what} ${quote(text)}: use ${wanted}`, { text: shorten(text) });
}

/** Quotes text of unknown origin for an error: control characters escaped, length bounded. */
export function quote(text: string): string {
  return JSON.stringify(shorten(text));
}

function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}… (${text.length} characters)` : text;
}
