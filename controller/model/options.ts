import { z } from 'zod';
import { FlockError } from './errors.ts';
import { type Labels, parseLabels } from './labels.ts';
import { type NodeName, parseNodeName, parseVolumeRef, quote, type SnapshotName, type VolumeName } from './names.ts';
import { formatSize, parseDuration, parseSize } from './quantity.ts';
import { intervalMsMax, intervalMsMin } from './replication.ts';
import { parseRetention, type RetentionGrid } from './retention.ts';

/** What a user chose for a volume, parsed. null: not chosen. */
export type VolumeOptions = {
  readonly sizeBytes: number | null;
  readonly compression: string | null;
  readonly recordSizeBytes: number | null;
  readonly mode: number | null;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly protect: boolean;
  readonly from: { readonly name: VolumeName; readonly snapshot: SnapshotName | null } | null;
  /** Raw backend properties with their prefix, such as `zfs.logbias`. */
  readonly properties: Readonly<Record<string, string>>;
  /** Copies on other nodes of the owner's data center, and in other data centers. */
  readonly replicas: number | null;
  readonly remoteReplicas: number | null;
  /** How far apart snapshots for replication are. */
  readonly intervalMs: number | null;
  readonly retain: RetentionGrid | null;
  /** The nodes that may hold a copy; sorted. */
  readonly nodes: readonly NodeName[] | null;
  /** Labels that a node must have to hold a copy; sorted. */
  readonly locality: Labels | null;
  /** What happens when its owner is dead. */
  readonly failover: FailoverPolicy | null;
  /** A takeover that may lose more than this of the last writes waits for a person. */
  readonly maxLossMs: number | null;
};

/**
 * `auto`: the best copy becomes the volume by itself; `manual`: when a person says so; `none`: not at all, unless it is forced.
 */
export const failoverPolicies = ['auto', 'manual', 'none'] as const;
export type FailoverPolicy = (typeof failoverPolicies)[number];

/** Driver options as they come: the object itself, because a copy would lose a key such as `__proto__` without a word. */
export const rawOptionsSchema = z.custom<Readonly<Record<string, string>>>(
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((option) => typeof option === 'string'),
  'must be an object of texts',
);

export const noOptions: VolumeOptions = {
  sizeBytes: null,
  compression: null,
  recordSizeBytes: null,
  mode: null,
  uid: null,
  gid: null,
  protect: false,
  from: null,
  properties: {},
  replicas: null,
  remoteReplicas: null,
  intervalMs: null,
  retain: null,
  nodes: null,
  locality: null,
  failover: null,
  maxLossMs: null,
};

type Parser = (value: string) => Partial<VolumeOptions>;

/** Every option, its parser, and what `flockctl` and error texts show of it. */
const parsers: Readonly<Record<string, { readonly shape: string; readonly parse: Parser }>> = {
  size: { shape: 'size=10G', parse: (value) => ({ sizeBytes: checkVolumeSize(parseSize(value)) }) },
  compression: { shape: 'compression=on|off|ALGORITHM', parse: (value) => ({ compression: word(value) }) },
  recordsize: { shape: 'recordsize=16K', parse: (value) => ({ recordSizeBytes: recordSize(value) }) },
  mode: { shape: 'mode=0750', parse: (value) => ({ mode: octal(value) }) },
  uid: { shape: 'uid=999', parse: (value) => ({ uid: numericId(value) }) },
  gid: { shape: 'gid=999', parse: (value) => ({ gid: numericId(value) }) },
  from: { shape: 'from=VOLUME[@SNAPSHOT]', parse: (value) => ({ from: parseVolumeRef(value) }) },
  protect: { shape: 'protect=true|false', parse: (value) => ({ protect: flag(value) }) },
  replicas: { shape: 'replicas=1', parse: (value) => ({ replicas: copies(value) }) },
  'remote-replicas': { shape: 'remote-replicas=0', parse: (value) => ({ remoteReplicas: copies(value) }) },
  interval: { shape: 'interval=1s', parse: (value) => ({ intervalMs: interval(value) }) },
  retain: { shape: 'retain=AGE=all|PERIOD,...', parse: (value) => ({ retain: parseRetention(value) }) },
  nodes: { shape: 'nodes=NODE,...', parse: (value) => ({ nodes: nodeNames(value) }) },
  locality: { shape: 'locality=LABEL=VALUE,...', parse: (value) => ({ locality: parseLabels(value) }) },
  failover: { shape: 'failover=auto|manual|none', parse: (value) => ({ failover: parseFailoverPolicy(value) }) },
  'max-loss': { shape: 'max-loss=30s', parse: (value) => ({ maxLossMs: parseDuration(value) }) },
};

const rawPattern = /^zfs\.([a-z][a-z0-9_]{0,63})$/;
/** Properties that flock itself sets, or that would take a dataset out of its hands. */
const reservedProperties: ReadonlySet<string> = new Set([
  'mountpoint',
  'canmount',
  'readonly',
  'quota',
  'refquota',
  'sharenfs',
  'sharesmb',
  'shareiscsi',
  'jailed',
  'zoned',
  'volsize',
  'volblocksize',
  'encryption',
  'keyformat',
  'keylocation',
  'pbkdf2iters',
  'mlslabel',
  'snapdir',
  'overlay',
  'version',
  'filesystem_limit',
  'snapshot_limit',
]);

/** Of each kind. */
const replicasMax = 8;
const optionsMax = 64;
const valueBytesMax = 256;

export const optionShapes: readonly string[] = [
  ...Object.values(parsers).map((option) => option.shape),
  'zfs.PROPERTY=VALUE',
];

/** Parses driver options as Docker sends them. Throws `invalid-option` naming the option and listing the valid ones. */
export function parseOptions(raw: Readonly<Record<string, string>>): VolumeOptions {
  const entries = Object.entries(raw);
  if (entries.length > optionsMax)
    throw new FlockError('invalid-option', `${entries.length} options are too many, at most ${optionsMax}`);
  let options = noOptions;
  const seen = new Map<string, string>();
  for (const [key, value] of entries) {
    const name = canonical(key);
    const other = seen.get(name);
    if (other !== undefined) throw invalid(key, `it is given twice (as ${quote(other)} too)`);
    seen.set(name, key);
    checkText(key, value);
    options = { ...options, ...parseOne(key, name, value, options) };
  }
  return options;
}

function parseOne(key: string, name: string, value: string, options: VolumeOptions): Partial<VolumeOptions> {
  const parser = Object.hasOwn(parsers, name) ? parsers[name] : undefined;
  if (parser !== undefined) {
    try {
      return parser.parse(value);
    } catch (error) {
      throw invalid(key, error instanceof Error ? error.message : String(error));
    }
  }
  if (name.startsWith('btrfs.'))
    throw invalid(key, 'btrfs has no properties to set (compression is an option of its own)');
  const property = rawPattern.exec(name)?.[1];
  if (property === undefined) throw invalid(key, 'there is no such option');
  if (reservedProperties.has(property)) throw invalid(key, 'flock sets this property itself');
  return { properties: { ...options.properties, [name]: value } };
}

/** `Record_Size` style keys: case and `_` against `-` don't matter, but raw property names keep their underscores. */
function canonical(key: string): string {
  const lower = key.toLowerCase();
  return lower.startsWith('zfs.') || lower.startsWith('btrfs.') ? lower : lower.replaceAll('_', '-');
}

function checkText(key: string, value: string): void {
  if (typeof value !== 'string') throw invalid(key, 'its value must be text');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
  if (/[\u0000-\u001f\u007f]/.test(value)) throw invalid(key, `its value ${quote(value)} has control characters`);
  if (new TextEncoder().encode(value).length > valueBytesMax)
    throw invalid(key, `its value is longer than ${valueBytesMax} bytes`);
  if (value.trim() === '') throw invalid(key, 'its value is empty');
}

function invalid(key: string, reason: string): FlockError {
  return new FlockError(
    'invalid-option',
    `option ${quote(key)}: ${reason}. Valid options: ${optionShapes.join(', ')}`,
    { option: key.slice(0, 80) },
  );
}

/** An empty file system needs some of it; below this neither backend could keep what it promises. */
export const volumeBytesMin = 1024 * 1024;

export function checkVolumeSize(bytes: number): number {
  if (bytes >= volumeBytesMin) return bytes;
  throw new FlockError(
    'invalid-option',
    `a size of ${formatSize(bytes)} is too small: a volume has at least ${formatSize(volumeBytesMin)}`,
  );
}

function word(value: string): string {
  if (/^[a-z0-9:-]{1,32}$/i.test(value)) return value.toLowerCase();
  throw new Error(`${quote(value)} is not the name of a compression`);
}

function recordSize(value: string): number {
  const bytes = parseSize(value);
  if (bytes >= 512 && Number.isInteger(Math.log2(bytes))) return bytes;
  throw new Error(`${quote(value)} is not a power of two of at least 512 bytes`);
}

function octal(value: string): number {
  if (/^0?[0-7]{3,4}$/.test(value)) return Number.parseInt(value, 8);
  throw new Error(`${quote(value)} is not an octal mode such as 0750`);
}

function numericId(value: string): number {
  const id = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (id <= 4_294_967_294) return id;
  throw new Error(`${quote(value)} is not a numeric id`);
}

function flag(value: string): boolean {
  const lower = value.toLowerCase();
  if (lower === 'true' || lower === 'false') return lower === 'true';
  throw new Error(`${quote(value)} is neither true nor false`);
}

function copies(value: string): number {
  const count = /^\d$/.test(value) ? Number(value) : Number.NaN;
  if (count <= replicasMax) return count;
  throw new Error(`${quote(value)} is not a number of copies from 0 to ${replicasMax}`);
}

export function parseFailoverPolicy(value: string): FailoverPolicy {
  const policy = failoverPolicies.find((one) => one === value.toLowerCase());
  if (policy !== undefined) return policy;
  throw new FlockError('invalid-option', `failover is auto, manual or none, not ${quote(value)}`);
}

function interval(value: string): number {
  const ms = parseDuration(value);
  if (ms >= intervalMsMin && ms <= intervalMsMax) return ms;
  throw new Error(`${quote(value)} is not between 100ms and 1h`);
}

function nodeNames(value: string): readonly NodeName[] {
  return [...new Set(value.split(',').map((name) => parseNodeName(name.trim())))].toSorted();
}
