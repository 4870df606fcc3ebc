import { join } from 'node:path';
import type { DatasetId, HoldTag, SnapshotName } from '../../../controller/model/names.ts';

/**
 * Where things are below the top level of the pool. Pure.
 *
 *     volumes/ID              live subvolume; a dataset exists if and only if this does
 *     snapshots/ID/NAME/      plain directory: one snapshot with its holds, so that both move and vanish together
 *     snapshots/ID/NAME/NAME  read-only subvolume; its name travels in the stream
 *     snapshots/ID/NAME/+TAG  hold
 *     meta/ID                 stamp, as the target of a symbolic link
 *     meta/ID+made            likewise: which state of the live subvolume is that of the snapshot it was made from, see pristine.ts
 *     incoming/ID.WHAT        work in progress, swept when the pool is opened
 *     kept/ID.NUMBER          live content that a stream has replaced, with subvolumes in it that are nowhere else; for people
 *
 * The plain directory is there because a read-only subvolume can't be renamed into another directory (EROFS: `..` would change).
 */
export type Layout = ReturnType<typeof layoutBelow>;

/** `live`: about to be the live subvolume; `old`: replaced by it; the others hold a snapshot or a link about to be moved in place. */
export type Work = 'live' | 'old' | 'snapshot' | 'receive' | 'stamp' | 'made';

export const folders = ['volumes', 'snapshots', 'meta', 'incoming'] as const;

export function layoutBelow(top: string) {
  const snapshotFolder = (id: DatasetId, name: SnapshotName) => join(top, 'snapshots', id, name);
  return {
    top,
    volumes: join(top, 'volumes'),
    incoming: join(top, 'incoming'),
    kept: join(top, 'kept'),
    live: (id: DatasetId) => join(top, 'volumes', id),
    snapshotsOf: (id: DatasetId) => join(top, 'snapshots', id),
    snapshotFolder,
    snapshot: (id: DatasetId, name: SnapshotName) => join(snapshotFolder(id, name), name),
    hold: (id: DatasetId, name: SnapshotName, tag: HoldTag) => join(snapshotFolder(id, name), `${holdPrefix}${tag}`),
    stamp: (id: DatasetId) => join(top, 'meta', id),
    made: (id: DatasetId) => join(top, 'meta', `${id}+made`),
    work: (id: DatasetId, what: Work) => join(top, 'incoming', `${id}.${what}`),
  };
}

/** No snapshot name begins like this. */
export const holdPrefix = '+';

/** `mountinfo` shows a deleted subvolume as ROOT//deleted, which is below ROOT. */
export function isRootOf(root: string, id: DatasetId): boolean {
  return root === `/volumes/${id}` || root.startsWith(`/volumes/${id}/`);
}

/**
 * `nodiscard`, because a discard would punch holes into the pool file, which is fully allocated so that a full host disk can't
 * damage the pool. These options hold for the whole file system: the first mount decides.
 */
const mountOptions = 'noatime,nodiscard,user_subvol_rm_allowed';

export const mountArguments = {
  top: (device: string, topMount: string) => ['-t', 'btrfs', '-o', `${mountOptions},subvolid=5`, device, topMount],
  volume: (device: string, id: DatasetId, path: string) => [
    '-t',
    'btrfs',
    '-o',
    `${mountOptions},subvol=volumes/${id}`,
    device,
    path,
  ],
};

/** Without -f it refuses whatever has a known signature. -K: no discard, see mountOptions. */
export const mkfsArguments = (path: string) => ['-q', '-K', '-L', 'flock', path];

/** `-j` finds a device by inode, also where the file has another path in this container. */
export const findLoopArguments = (path: string) => ['-j', path];
/** `--nooverlap` once more gives back an existing device, should another process have been faster. */
export const attachLoopArguments = (path: string) => ['--nooverlap', '--find', '--show', path];

export const createArguments = (path: string) => ['subvolume', 'create', path];
export const snapshotArguments = (source: string, target: string) => ['subvolume', 'snapshot', source, target];
export const readOnlySnapshotArguments = (source: string, target: string) => [
  'subvolume',
  'snapshot',
  '-r',
  source,
  target,
];
export const deleteArguments = (paths: readonly string[]) => ['subvolume', 'delete', ...paths];
export const showArguments = (path: string) => ['subvolume', 'show', '--raw', path];
/** Generations (`gen`: of the last change; `cgen`: of the making) and UUIDs of every subvolume. */
export const listArguments = (top: string) => ['subvolume', 'list', '-cguqR', top];
export const usageArguments = (top: string) => ['qgroup', 'show', '--raw', '-re', top];
/**
 * The quota group is named by number and the top level by its path: with the path of a subvolume that is over its limit the change
 * itself is refused, because it would be written on that subvolume's account (EDQUOT, also for `none`).
 */
export const limitArguments = (bytes: number | null, subvolumeId: number, top: string) => [
  'qgroup',
  'limit',
  bytes === null ? 'none' : String(bytes),
  `0/${subvolumeId}`,
  top,
];
export const dropQgroupArguments = (subvolumeId: number, top: string) => ['qgroup', 'destroy', `0/${subvolumeId}`, top];
export const syncArguments = (path: string) => ['filesystem', 'sync', path];
/** Prints the generation of the subvolume's last commit; there are no files younger than this one to be listed. */
export const generationArguments = (path: string) => ['subvolume', 'find-new', path, String(2 ** 62)];
/** `compression=zstd`, or nothing. */
export const readCompressionArguments = (path: string) => ['property', 'get', path, 'compression'];
/** `off` must be said, because a clone inherits the property of its source. */
export const compressionArguments = (path: string, value: string) => [
  'property',
  'set',
  path,
  'compression',
  value === 'off' ? 'none' : value,
];

/** The parent is always named: it is the one that was verified, and btrfs's own choice has been wrong (btrbk #371). */
export function sendArguments(paths: {
  readonly snapshot: string;
  readonly parent: string | null;
  readonly compressed: boolean;
}): readonly string[] {
  const protocol = paths.compressed ? ['--proto', '2', '--compressed-data'] : [];
  const parent = paths.parent === null ? [] : ['-p', paths.parent];
  return ['send', '-q', ...protocol, ...parent, paths.snapshot];
}

/** -e: ends with the stream's own end mark, as zfs does, so the descriptor may carry on with something else. */
export const receiveArguments = (folder: string) => ['receive', '-q', '-e', folder];
