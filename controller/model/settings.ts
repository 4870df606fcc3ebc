import { z } from 'zod';
import { FlockError } from './errors.ts';
import { quote } from './names.ts';
import { durationMsMax, parseDuration, parseSize } from './quantity.ts';
import { parseProblemOf } from './shape.ts';

/** The settings of one node, kept in settings.json beside its state. */
export type Settings = {
  readonly backend: 'zfs' | 'btrfs';
  /** zfs: the dataset below which flock keeps its own (`tank/flock`); btrfs: a pool file or a block device. */
  readonly pool: string;
  /** Size of a pool that flock makes in a file. */
  readonly poolSizeBytes: number;
  /** How long a removed volume can be brought back; 0: it is destroyed at once. */
  readonly trashMs: number;
  /** How long a stash is kept: what a node wrote that did not survive a change of owner. */
  readonly stashMs: number;
  /** The most that this node sends to others in all; null: as fast as it goes. */
  readonly transferBytesPerSecond: number | null;
  /** Whether what it sends to others and gets from them is encrypted; it is not where both nodes say off. Default: on. */
  readonly encryption: 'on' | 'off';
};

/** What a user asked for: everything may be left to the defaults. */
export type SettingsRequest = { readonly [Key in keyof Settings]?: Settings[Key] | undefined };

export const trashMsDefault = 24 * 3600 * 1000;
export const stashMsDefault = 7 * trashMsDefault;
const poolSizeBytesMin = 128 * 1024 * 1024;

const settingParsers: Readonly<Record<string, (value: string) => SettingsRequest>> = {
  backend: (value) => {
    if (value === 'zfs' || value === 'btrfs') return { backend: value };
    throw new FlockError('invalid-option', `backend ${quote(value)}: use zfs or btrfs`);
  },
  pool: (value) => ({ pool: parseNewPool(value) }),
  'pool-size': (value) => ({ poolSizeBytes: poolSize(value) }),
  trash: (value) => ({ trashMs: parseDuration(value) }),
  stash: (value) => ({ stashMs: parseDuration(value) }),
  'transfer-limit': (value) => ({ transferBytesPerSecond: value === 'none' ? null : parseSize(value) }),
  encryption: (value) => {
    if (value === 'on' || value === 'off') return { encryption: value };
    throw new FlockError('invalid-option', `encryption ${quote(value)}: use on or off`);
  },
};

export const settingNames: readonly string[] = Object.keys(settingParsers);

export function parseSetting(name: string, value: string): SettingsRequest {
  const parse = Object.hasOwn(settingParsers, name) ? settingParsers[name] : undefined;
  if (parse === undefined)
    throw new FlockError('invalid-option', `there is no setting ${quote(name)}. Settings: ${settingNames.join(', ')}`);
  return parse(value);
}

/** Parses `backend=zfs trash=48h`, the form of the plugin's FLOCK_SETTINGS. */
export function parseSettingsText(text: string): SettingsRequest {
  let request: SettingsRequest = {};
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    const equals = word.indexOf('=');
    if (equals < 1)
      throw new FlockError(
        'invalid-option',
        `setting ${quote(word)}: use NAME=VALUE. Settings: ${settingNames.join(', ')}`,
      );
    request = { ...request, ...parseSetting(word.slice(0, equals), word.slice(equals + 1)) };
  }
  return request;
}

const settingsSchema = z.strictObject({
  backend: z.enum(['zfs', 'btrfs']),
  pool: z.string().transform(parsePool),
  poolSizeBytes: z.int().min(poolSizeBytesMin),
  trashMs: z.int().nonnegative().max(durationMsMax),
  // Files from before there were clusters have none.
  stashMs: z.int().nonnegative().max(durationMsMax).default(stashMsDefault),
  transferBytesPerSecond: z.int().positive().nullable().default(null),
  encryption: z.enum(['on', 'off']).default('on'),
});

/** Throws `invalid-option` saying what is wrong. */
export function decodeSettings(text: string): Settings {
  try {
    return settingsSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new FlockError('invalid-option', parseProblemOf(error), {}, { cause: error });
  }
}

/** The zpool is the first component; a bare pool name means the dataset `flock` in it. */
export function zfsPrefix(pool: string): string {
  return pool.includes('/') ? pool : `${pool}/flock`;
}

/** `PREFIX/ID@SNAPSHOT` must fit the 255 bytes of a ZFS name: 137 for an id and 64 for a snapshot's name. */
const zfsPrefixBytesMax = 255 - 1 - 137 - 1 - 64;

/** Only for what is asked for now: hosts that have a longer one already go on with it. */
function parseNewPool(value: string): string {
  const pool = parsePool(value);
  const { length } = zfsPrefix(pool);
  if (pool.startsWith('/') || length <= zfsPrefixBytesMax) return pool;
  throw new FlockError(
    'invalid-option',
    `pool ${quote(value)}: the dataset ${quote(zfsPrefix(pool))} has ${length} characters, at most ${zfsPrefixBytesMax} leave room for the names of volumes and snapshots in it`,
  );
}

function parsePool(value: string): string {
  if (value.startsWith('/')) {
    if (/^(\/[A-Za-z0-9][A-Za-z0-9_.:-]*)+$/.test(value) && value.length <= 200) return value;
  } else if (/^[A-Za-z][A-Za-z0-9_.-]*(\/[A-Za-z0-9][A-Za-z0-9_.-]*)*$/.test(value) && value.length <= 60) return value;
  throw new FlockError(
    'invalid-option',
    `pool ${quote(value)}: use a ZFS dataset such as tank/flock, or for btrfs the path of a file or block device`,
  );
}

function poolSize(value: string): number {
  const bytes = parseSize(value);
  if (bytes >= poolSizeBytesMin) return bytes;
  throw new FlockError('invalid-option', `pool-size ${quote(value)}: at least ${poolSizeBytesMin / 1024 / 1024}M`);
}
