import { type ErrorCode, FlockError } from '../../../controller/model/errors.ts';
import { CommandError } from '../../exec.ts';
import { poolOf, type ZfsConfig } from './config.ts';

/** What a tool's text says, finer than the code; kept in `facts.reason` for the places that act on it. */
export type Reason =
  | 'daemon-down'
  | 'no-pool'
  | 'missing'
  | 'exists'
  | 'busy'
  | 'has-clones'
  | 'not-a-clone'
  | 'tag-exists'
  | 'no-tag'
  | 'modified'
  | 'dead-mount'
  | 'caches-kept'
  | 'other';

type Rule = { readonly pattern: RegExp; readonly code: ErrorCode; readonly reason: Reason };

/** The first match counts. Texts of zfs-fuse 0.7.0 and OpenZFS 2.1 to 2.3; lines may be wrapped, hence `\s+`. */
const rules: readonly Rule[] = [
  rule(/zfs-fuse daemon is running|failed to initialize ZFS library/, 'storage-daemon-down', 'daemon-down'),
  rule(
    /ZFS modules (are not |cannot be auto-)loaded|modprobe zfs|\/dev\/zfs and/,
    'storage-daemon-down',
    'daemon-down',
  ),
  rule(/Transport endpoint is not connected|Software caused connection abort/, 'storage-daemon-down', 'dead-mount'),
  rule(/drop_caches/, 'storage-failed', 'caches-kept'),
  rule(/I\/O is currently suspended|pool is suspended/i, 'pool-unusable', 'other'),
  rule(/(pool|file ?system) is read-only|Read-only file system/i, 'pool-read-only', 'other'),
  rule(/size is less than current used or reserved space/, 'quota-below-usage', 'other'),
  rule(/out of space|No space left on device/i, 'pool-full', 'other'),
  rule(/no such pool/, 'pool-missing', 'no-pool'),
  rule(/does not\s+match incremental source/, 'no-common-snapshot', 'other'),
  rule(/has been modified\s+since most recent snapshot/, 'no-common-snapshot', 'modified'),
  rule(/failed to read from stream|invalid backup stream|invalid stream|incomplete stream/, 'stream-invalid', 'other'),
  rule(/checksum mismatch|bad magic number|stream (has|contains|uses) /, 'stream-invalid', 'other'),
  rule(/incremental source \(@?[^)]*\) does not exist/, 'snapshot-not-found', 'missing'),
  rule(/tag already exists/, 'storage-failed', 'tag-exists'),
  rule(/no such tag/, 'storage-failed', 'no-tag'),
  rule(/has dependent clones/, 'storage-failed', 'has-clones'),
  rule(/not a cloned filesystem/, 'storage-failed', 'not-a-clone'),
  rule(/could not find any snapshots/, 'snapshot-not-found', 'missing'),
  rule(/dataset does not exist|parent does not exist|could not send .*: does not exist/, 'dataset-missing', 'missing'),
  rule(/destination '[^']*' exists|already exists/, 'storage-failed', 'exists'),
  rule(/is busy|already mounted|target is busy/, 'volume-busy', 'busy'),
  rule(/must be upgraded|not supported|feature .* (disabled|not enabled)/, 'not-supported', 'other'),
  rule(/invalid property|bad property (list|value)|bad numeric value/, 'invalid-option', 'other'),
  rule(/'[^']*' must be |can only be set |is readonly|value too long|must not (end|start)/, 'invalid-option', 'other'),
];

function rule(pattern: RegExp, code: ErrorCode, reason: Reason): Rule {
  return { pattern, code, reason };
}

/** What a tool's stderr means. Pure. */
export function classify(stderr: string): { readonly code: ErrorCode; readonly reason: Reason } {
  const { code, reason } = rules.find(({ pattern }) => pattern.test(stderr)) ?? {
    code: 'storage-failed',
    reason: 'other',
  };
  return { code, reason };
}

/** A failed command as a FlockError; other errors as they are. */
export function toFlockError(error: unknown, config: ZfsConfig): unknown {
  if (!(error instanceof CommandError)) return error;
  const silent = error.timedOut ? silence(config) : classify(error.stderr);
  const advice = adviceFor(silent.code, silent.reason, config);
  // Where it is known what to do, the command and its arguments say nothing more.
  const text = advice === null ? error.message : `${advice} (${error.stderr.trim() || error.message})`;
  const facts = { reason: silent.reason, command: error.file, stderr: error.stderr.slice(0, 2_000) };
  return new FlockError(silent.code, text, facts, { cause: error });
}

/** A command that does not end: zfs-fuse's daemon is stopped, or the module waits for a suspended pool. */
function silence(config: ZfsConfig): { readonly code: ErrorCode; readonly reason: Reason } {
  if (config.variant === 'zfs-fuse') return { code: 'storage-daemon-down', reason: 'daemon-down' };
  return { code: 'pool-unusable', reason: 'other' };
}

function adviceFor(code: ErrorCode, reason: Reason, config: ZfsConfig): string | null {
  if (code === 'storage-daemon-down') return daemonAdvice(config);
  if (code === 'pool-full')
    return `the pool ${poolOf(config)} has no room left; remove volumes or snapshots, or enlarge it`;
  if (code === 'pool-read-only')
    return `the pool ${poolOf(config)} is read-only; export it and import it without readonly=on`;
  if (code === 'pool-unusable')
    return `the pool ${poolOf(config)} does not answer; see "zpool status ${poolOf(config)}", mend the disk, then run "zpool clear ${poolOf(config)}"`;
  if (reason === 'busy') return 'the dataset is in use: mounted somewhere, or being sent or received';
  return null;
}

export function daemonAdvice(config: ZfsConfig): string {
  return config.variant === 'zfs-fuse'
    ? 'the zfs-fuse daemon does not answer: run "systemctl restart zfs-fuse" on this host (without systemd: "zfs-fuse" as root); the volumes are mounted again when they are next used, but containers that had one mounted must be restarted'
    : 'the kernel has no ZFS: run "modprobe zfs" on this host (package zfs-dkms or zfs-modules of its distribution)';
}

/** The reason that the table gave, or null for anything that is not a tool's failure. */
export function reasonOf(error: unknown): Reason | null {
  return error instanceof FlockError && typeof error.facts['reason'] === 'string'
    ? (error.facts['reason'] as Reason)
    : null;
}
