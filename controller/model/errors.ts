/**
 * Every error a user can meet has one of these codes; docs/errors.md explains each with its way out.
 * Errors are told apart by code, never by their text.
 */
export const errorCodes = [
  'invalid-name',
  'invalid-option',
  'invalid-request',
  'volume-not-found',
  'volume-exists',
  'volume-in-use',
  'volume-protected',
  'volume-busy',
  'snapshot-not-found',
  'snapshot-exists',
  'snapshot-held',
  'dataset-missing',
  'no-common-snapshot',
  'stream-invalid',
  'quota-below-usage',
  'not-supported',
  'pool-missing',
  'pool-full',
  'pool-read-only',
  'pool-unusable',
  'storage-daemon-down',
  'storage-failed',
  'not-ready',
  'deadline-exceeded',
  'caller-gone',
  'too-many-requests',
  'store-unavailable',
  'no-cluster',
  'in-cluster',
  'token-invalid',
  'node-not-found',
  'node-exists',
  'node-unreachable',
  'not-owner',
  'owner-dead',
  'epoch-stale',
  'lease-lost',
  'diverged',
  'handoff-running',
  'document-changed',
  'no-place',
  'service-not-found',
  'service-paused',
  'not-paused',
  'not-acknowledged',
  'route-not-found',
  'route-exists',
  'port-taken',
  'link-not-found',
  'link-exists',
  'made-by-label',
  'certificate-not-found',
  'certificate-invalid',
  'certificate-in-use',
  'proxy-failed',
  'docker-failed',
  'move-refused',
  'move-failed',
  'move-not-found',
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** An expected failure with a stable code, a text for people that names the way out, and the facts behind it. */
export class FlockError extends Error {
  readonly code: ErrorCode;
  readonly facts: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    facts: Readonly<Record<string, unknown>> = {},
    options: { readonly cause?: unknown } = {},
  ) {
    super(message, options);
    this.name = 'FlockError';
    this.code = code;
    this.facts = facts;
  }
}

export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is FlockError {
  return error instanceof FlockError && codes.includes(error.code);
}

/** The text of anything thrown, for people. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Ends a switch over a union: the compiler proves that it is never reached. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`);
}
