/** What every store refuses before it does anything: calls beyond the limits, as `invalid-request`. Pure. */
import { FlockError } from '../model/errors.ts';
import { quote } from '../model/names.ts';
import { type Operation, type SessionRequest, storeLimits } from './store.ts';

const limits = storeLimits;
const indexPattern = /^[1-9][0-9]{0,19}$/;

export function checkKey(key: string): void {
  if (key.length <= limits.keyBytesMax && limits.key.test(key)) return;
  throw invalid(
    `${quote(key)} is no key: use up to ${limits.keyBytesMax} letters, digits, dots, underscores and hyphens in parts joined by slashes`,
  );
}

export function checkPrefix(prefix: string): void {
  if (prefix === '') return;
  if (!prefix.endsWith('/')) throw invalid(`${quote(prefix)} is no prefix: put a slash at its end`);
  checkKey(prefix.slice(0, -1));
}

export function checkOperations(operations: readonly Operation[]): void {
  const count = operations.reduce((sum, operation) => sum + weight(operation), 0);
  if (count === 0) throw invalid('a transaction of no operation: give at least one');
  if (count > limits.operationsMax) {
    throw invalid(`a transaction of ${count} operations: use several of at most ${limits.operationsMax}`);
  }
  let bytes = 0;
  for (const operation of operations) {
    checkKey(operation.key);
    bytes += operation.key.length;
    if ('index' in operation && operation.index !== null && !indexPattern.test(operation.index)) {
      throw invalid(`${quote(operation.index)} is no index of ${operation.key}: use one that the store gave`);
    }
    if ('value' in operation) bytes += checkedBytes(operation.key, operation.value);
  }
  if (bytes > limits.transactionBytesMax) {
    throw invalid(`a transaction of ${bytes} bytes: use several of at most ${limits.transactionBytesMax}`);
  }
}

/** How many of Consul's operations it takes. */
export function weight(operation: Operation): 1 | 2 {
  return operation.kind === 'compare-and-delete' ? 2 : 1;
}

export function checkSessionRequest({ name, ttlMs, lockDelayMs }: SessionRequest): void {
  if (Buffer.byteLength(name) > limits.sessionNameBytesMax) {
    throw invalid(`a session name of more than ${limits.sessionNameBytesMax} bytes: ${quote(name)}`);
  }
  if (!(Number.isInteger(ttlMs) && ttlMs > 0 && ttlMs <= limits.ttlMsMax)) {
    throw invalid(`a session of ${ttlMs} ms: use 1 to ${limits.ttlMsMax}`);
  }
  if (!(Number.isInteger(lockDelayMs) && lockDelayMs >= 0 && lockDelayMs <= limits.lockDelayMsMax)) {
    throw invalid(`a lock delay of ${lockDelayMs} ms: use 0 to ${limits.lockDelayMsMax}`);
  }
}

function checkedBytes(key: string, value: string): number {
  // The bytes of half a surrogate pair would come back as another character.
  if (!value.isWellFormed()) throw invalid(`the value of ${key} is no Unicode text: encode it first`);
  const bytes = Buffer.byteLength(value);
  if (bytes <= limits.valueBytesMax) return bytes;
  throw invalid(`the value of ${key} has ${bytes} bytes: use at most ${limits.valueBytesMax}`);
}

function invalid(text: string): FlockError {
  return new FlockError('invalid-request', text);
}
