import { createHash } from 'node:crypto';
import { FlockError } from '../../../controller/model/errors.ts';
import {
  type DatasetId,
  internalSnapshotPrefix,
  parseSnapshotName,
  type SnapshotName,
} from '../../../controller/model/names.ts';
import type { DatasetOptions, ReplicaOptions } from '../storage.ts';
import type { ZfsConfig } from './config.ts';
import type { Support } from './probe.ts';
import { encodeStamp } from './property-text.ts';

/** Snapshots that the backend makes or renames for itself: the origin of a clone, one that waits for its last clone, a probe. */
const artifactPattern = /^flock\.(clone|gone|probe)-/;

export function isArtifact(name: SnapshotName): boolean {
  return artifactPattern.test(name);
}

/** The snapshot of live content that `target` is a clone of: the same for each repetition of the same call. */
export function cloneOriginName(target: DatasetId): SnapshotName {
  return artifact('clone', createHash('sha256').update(target).digest('hex').slice(0, 32));
}

/** What a snapshot is called that nobody wants any more but that a clone still needs. */
export function goneName(identity: string): SnapshotName {
  return artifact('gone', identity);
}

export function probeName(identity: string): SnapshotName {
  return artifact('probe', identity);
}

function artifact(kind: 'clone' | 'gone' | 'probe', text: string): SnapshotName {
  return parseSnapshotName(`${internalSnapshotPrefix}${kind}-${text}`);
}

export function datasetPath(config: ZfsConfig, id: DatasetId): string {
  return `${config.prefix}/${id}`;
}

/** Makes a name that is no DatasetId, so it is not listed. */
export const condemnedSuffix = ':gone';

/** Where a dataset waits for its destruction. */
export function condemnedPath(config: ZfsConfig, id: DatasetId): string {
  return `${config.prefix}/${id}${condemnedSuffix}`;
}

export function snapshotPath(config: ZfsConfig, id: DatasetId, name: SnapshotName): string {
  return `${datasetPath(config, id)}@${name}`;
}

/** What every dataset of ours has, so that nothing but flock mounts it. */
export function mountProperties(config: ZfsConfig, id: DatasetId): Readonly<Record<string, string>> {
  const mountpoint = config.variant === 'openzfs' ? 'legacy' : `${config.daemonMountRoot}/${id}`;
  // Without noauto, setting a mount point mounts at once.
  return { canmount: 'noauto', readonly: 'off', mountpoint };
}

/** Properties that are fixed when a file system is made and that a clone has from its origin. */
const fixedInClones = new Set([
  'casesensitivity',
  'normalization',
  'utf8only',
  'encryption',
  'keyformat',
  'keylocation',
  'pbkdf2iters',
]);

/** What a dataset has unless the user wants it otherwise. */
export function defaultProperties(support: Support): Readonly<Record<string, string>> {
  return {
    // Reading must not change a dataset: that would break its replicas and grow its snapshots.
    atime: 'off',
    ...(support.xattrSa ? { xattr: 'sa' } : {}),
    ...(support.posixAcl ? { acltype: 'posixacl' } : {}),
  };
}

/** All properties of a new dataset: our defaults, then the user's raw ones, then the options, then what flock relies on. Pure. */
export function creationProperties(
  config: ZfsConfig,
  support: Support,
  id: DatasetId,
  options: DatasetOptions,
  kind: 'dataset' | 'clone',
): Readonly<Record<string, string>> {
  return {
    ...contentProperties(support, options, kind),
    ...(options.quotaBytes === null ? {} : { refquota: quotaValue(options.quotaBytes) }),
    ...mountProperties(config, id),
    // `zfs clone` of zfs-fuse mounts in spite of canmount=noauto. The first mount sets what is missing.
    ...(config.variant === 'zfs-fuse' ? { mountpoint: 'none' } : {}),
    'flock:stamp': encodeStamp(options.stamp),
  };
}

function contentProperties(
  support: Support,
  { properties, compression, recordSizeBytes }: ReplicaOptions,
  kind: 'dataset' | 'clone',
): Readonly<Record<string, string>> {
  const raw = Object.entries(properties).filter(([name]) => kind === 'dataset' || !fixedInClones.has(name));
  return {
    ...defaultProperties(support),
    ...Object.fromEntries(raw),
    ...(compression === null ? {} : { compression }),
    ...(recordSizeBytes === null ? {} : { recordsize: wholeNumber('recordSizeBytes', recordSizeBytes) }),
  };
}

/** What a dataset that is there has to have besides its quota; nothing that is fixed, or that flock relies on. Pure. */
export function replicaProperties(support: Support, options: ReplicaOptions): Readonly<Record<string, string>> {
  const ours = new Set(['canmount', 'readonly', 'mountpoint', 'refquota', 'flock:stamp']);
  const wanted = Object.entries(contentProperties(support, options, 'clone'));
  return Object.fromEntries(wanted.filter(([name]) => !ours.has(name)));
}

export function quotaValue(quotaBytes: number | null): string {
  return quotaBytes === null ? 'none' : wholeNumber('quotaBytes', quotaBytes);
}

function wholeNumber(name: string, value: number): string {
  if (Number.isSafeInteger(value) && value > 0) return String(value);
  throw new FlockError('invalid-option', `${name} must be a whole number of bytes above 0, not ${value}`);
}

export function createArguments(path: string, properties: Readonly<Record<string, string>>): readonly string[] {
  return ['create', ...assignments(properties), '--', path];
}

export function cloneArguments(
  origin: string,
  path: string,
  properties: Readonly<Record<string, string>>,
): readonly string[] {
  return ['clone', ...assignments(properties), '--', origin, path];
}

/** `zfs set` of zfs-fuse and OpenZFS 2.1 knows no `--`; every property name starts with a letter. */
export function setArguments(path: string, property: string, value: string): readonly string[] {
  return ['set', `${property}=${value}`, path];
}

export function getArguments(
  properties: readonly string[],
  paths: readonly string[],
  depth: 'itself' | 'children' = 'itself',
): readonly string[] {
  const recursion = depth === 'children' ? ['-r', '-d', '1'] : [];
  return ['get', '-H', '-p', ...recursion, '-o', 'name,property,value,source', '--', properties.join(','), ...paths];
}

export function sendArguments(support: Support, to: string, from: SnapshotName | null): readonly string[] {
  return ['send', ...blockFlags(support), ...range(to, from)];
}

export function estimateArguments(support: Support, to: string, from: SnapshotName | null): readonly string[] {
  return ['send', '-n', '-P', ...blockFlags(support), ...range(to, from)];
}

/** The same for every stream of a lineage: OpenZFS takes an increment with large blocks only after such a complete stream. */
function blockFlags({ compressedSend, sendEmbedded }: Support): readonly string[] {
  // -c without -L would decompress blocks above 128 KiB to split them.
  return compressedSend ? ['-L', ...(sendEmbedded ? ['-e'] : []), '-c'] : [];
}

function range(to: string, from: SnapshotName | null): readonly string[] {
  return [...(from === null ? [] : ['-i', `@${from}`]), '--', to];
}

/** The token has the flags in it. */
export const resumedSendArguments = (token: string): readonly string[] => ['send', '-t', token];
/** Prints what the token is for, among others its `toname`. */
export const tokenArguments = (token: string): readonly string[] => ['send', '-n', '-v', '-t', token];

/** Never -F: it would destroy what diverged. */
export function receiveArguments(path: string, resumable: boolean): readonly string[] {
  return ['receive', ...(resumable ? ['-s'] : []), '-u', '--', path];
}

export const abandonArguments = (path: string): readonly string[] => ['receive', '-A', '--', path];

/**
 * `force`: the pool may look as if another host still had it. zfs-fuse's client compares host ids with its own, which in the plugin is
 * not the one the daemon wrote. The file is this host's, and the state file's lock lets one plugin at it.
 */
export function importArguments(support: Support, pool: string, folder: string, force: boolean): readonly string[] {
  const flags = [...(force ? ['-f'] : []), ...(support.importWithoutMounts ? ['-N'] : [])];
  return ['import', '-o', 'cachefile=none', ...flags, '-d', folder, '--', pool];
}

export function createPoolArguments(support: Support, pool: string, file: string): readonly string[] {
  const ashift = support.ashift ? ['-o', 'ashift=12'] : [];
  // -m and not -O mountpoint: zpool looks at /POOL otherwise, and refuses if there is anything.
  const nowhere = ['-m', 'none', '-O', 'canmount=off', '-O', 'atime=off'];
  return ['create', ...ashift, '-o', 'cachefile=none', ...nowhere, '--', pool, file];
}

export function createPrefixArguments(prefix: string): readonly string[] {
  return ['create', '-p', '-o', 'canmount=off', '-o', 'mountpoint=none', '--', prefix];
}

function assignments(properties: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(properties).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}
