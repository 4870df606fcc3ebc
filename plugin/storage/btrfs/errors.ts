import { type ErrorCode, FlockError } from '../../../controller/model/errors.ts';
import { CommandError } from '../../exec.ts';

/** The only place where error texts of btrfs, mkfs.btrfs, mount, umount and losetup are read (LC_ALL=C). First match wins. */
const table: readonly { readonly pattern: RegExp; readonly code: ErrorCode }[] = [
  { pattern: /appears to contain (an existing filesystem|a partition table)/, code: 'pool-unusable' },
  { pattern: /is mounted$|is too small to make a usable filesystem|cannot check mount status/m, code: 'pool-unusable' },
  { pattern: /cannot find parent subvolume|did not find source subvol/, code: 'no-common-snapshot' },
  { pattern: /empty stream is not considered valid|short read from stream/, code: 'stream-invalid' },
  { pattern: /unexpected EOF in stream|unexpected header|crc32 mismatch in command/, code: 'stream-invalid' },
  { pattern: /invalid tlv in cmd|attribute \d+ requested but not present|stream version/, code: 'stream-invalid' },
  { pattern: /Disk quota exceeded/, code: 'storage-failed' },
  { pattern: /No space left on device/, code: 'pool-full' },
  { pattern: /Read-only file system/, code: 'pool-read-only' },
  { pattern: /special device .* does not exist|can't find in \/etc\/fstab/, code: 'pool-missing' },
  { pattern: /wrong fs type, bad option, bad superblock/, code: 'pool-unusable' },
  { pattern: /can't read superblock|Input\/output error|Structure needs cleaning/, code: 'pool-unusable' },
  { pattern: /target is busy|Device or resource busy/, code: 'volume-busy' },
];

const byErrno: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'pool-full',
  EROFS: 'pool-read-only',
  EIO: 'pool-unusable',
  EUCLEAN: 'pool-unusable',
  EBUSY: 'volume-busy',
};

/** What a failed command or system call means. A mistake of ours (any other error) is given back as it is. */
export function translate(error: unknown, otherwise: ErrorCode = 'storage-failed'): unknown {
  if (error instanceof CommandError) {
    const code = codeOf(error.stderr) ?? otherwise;
    return new FlockError(code, error.message, { exitCode: error.exitCode }, { cause: error });
  }
  const errno = errnoOf(error);
  if (errno === null || !(error instanceof Error)) return error;
  return new FlockError(byErrno[errno] ?? otherwise, error.message, { errno }, { cause: error });
}

/** The code of an error text, or null for one that is not known. Pure. */
export function codeOf(stderr: string): ErrorCode | null {
  return table.find(({ pattern }) => pattern.test(stderr))?.code ?? null;
}

/** `ENOENT` and so on of a failed system call. */
export function errnoOf(error: unknown): string | null {
  if (!(error instanceof Error) || !('code' in error) || !('syscall' in error)) return null;
  return typeof error.code === 'string' ? error.code : null;
}

export async function translated<T>(work: () => Promise<T>, otherwise?: ErrorCode): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw translate(error, otherwise);
  }
}

/** For a system call where a missing file is an answer. */
export async function nullIfMissing<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
}
