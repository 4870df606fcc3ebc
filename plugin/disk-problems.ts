import { dirname } from 'node:path';
import { type ErrorCode, FlockError, messageOf } from '../controller/model/errors.ts';

/** What a failure to write flock's own files means, with the file system and the way out. Other errors are given back as they are. */

/** Primary result codes of SQLite (sqlite.org/rescode.html); the extended ones have them in their low byte. */
const sqlite = { readOnly: 8, ioError: 10, corrupt: 11, full: 13, cantOpen: 14, notADatabase: 26 } as const;

/** Of the state file. `code`: for whoever is told. */
export function stateProblem(error: unknown, path: string, code: ErrorCode): unknown {
  const result = sqliteCodeOf(error);
  if (result === null) return error;
  const fault = (text: string) => new FlockError(code, text, { path }, { cause: error });
  if (result === sqlite.full) return fault(fullText(path));
  if (result === sqlite.corrupt || result === sqlite.notADatabase)
    return fault(
      `the state file ${path} is damaged (${messageOf(error)}): with the plugin disabled, put a copy of it back, or move it and the files ${path}-wal and ${path}-shm away, and flock adopts the volumes that the pool holds`,
    );
  if (result === sqlite.readOnly || result === sqlite.ioError || result === sqlite.cantOpen)
    return fault(
      `the state file ${path} can't be written (${messageOf(error)}), so nothing was changed: look at "df ${dirname(path)}" and at "dmesg" for the file system that holds it`,
    );
  return error;
}

/** Of a plain file. */
export function fileProblem(error: unknown, path: string): unknown {
  const errno = error instanceof Error && 'code' in error ? error.code : null;
  if (errno === 'ENOSPC' || errno === 'EDQUOT')
    return new FlockError('storage-failed', fullText(path), { path }, { cause: error });
  if (errno === 'EROFS' || errno === 'EIO')
    return new FlockError(
      'storage-failed',
      `${path} can't be written (${messageOf(error)}), so nothing was changed: look at "dmesg" for the file system that holds it`,
      { path },
      { cause: error },
    );
  return error;
}

function fullText(path: string): string {
  return `the file system that holds ${path} is full, so nothing was changed: free some space on it ("df ${dirname(path)}") and try again`;
}

function sqliteCodeOf(error: unknown): number | null {
  return error instanceof Error && 'errcode' in error && typeof error.errcode === 'number'
    ? error.errcode & 0xff
    : null;
}
