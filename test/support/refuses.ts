import assert from 'node:assert/strict';
import { type ErrorCode, FlockError } from '../../controller/model/errors.ts';

/** The FlockError of this code that the call throws; fails if it throws none or another. */
export function refuses(call: () => unknown, code: ErrorCode): FlockError {
  try {
    call();
  } catch (error) {
    return ofCode(error, code);
  }
  throw new assert.AssertionError({ message: `expected ${code}, but nothing was thrown` });
}

/** As refuses, for a promise. */
export async function rejects(promise: Promise<unknown>, code: ErrorCode): Promise<FlockError> {
  try {
    await promise;
  } catch (error) {
    return ofCode(error, code);
  }
  throw new assert.AssertionError({ message: `expected ${code}, but the promise was fulfilled` });
}

function ofCode(error: unknown, code: ErrorCode): FlockError {
  if (error instanceof FlockError && error.code === code) return error;
  throw new assert.AssertionError({
    message: `expected ${code}, got ${error instanceof Error ? error.stack : String(error)}`,
  });
}
