import type { Request, Response } from 'express';
import type { Logger } from 'pino';
import type { z } from 'zod';
import { type ErrorCode, FlockError, messageOf } from '../model/errors.ts';
import { parseProblemOf } from '../model/shape.ts';

/** How every API of flock answers what went wrong: {code, detail, facts}, see problemView in controller/model/api.ts. */

export function noSuchCall(request: Request): never {
  throw new FlockError('invalid-request', `there is no ${request.method} ${request.path}`);
}

/** `unexpected`: the code of what is no FlockError. express knows an error handler by its four parameters. */
export function answerProblems(log: Logger, event: string, unexpected: ErrorCode = 'storage-failed') {
  return (error: unknown, request: Request, response: Response, _next: unknown): void => {
    const known =
      error instanceof FlockError
        ? error
        : new FlockError(isClientError(error) ? 'invalid-request' : unexpected, messageOf(error));
    log.warn({ event, path: request.path, code: known.code, error: known.message }, 'request failed');
    answerProblem(response, known, statusOf(known.code));
  };
}

export function answerProblem(response: Response, error: FlockError, status: number): void {
  if (response.headersSent) response.destroy();
  else if (!response.destroyed)
    response.status(status).json({ code: error.code, detail: error.message, facts: error.facts });
}

export function parseBody<Body>(schema: z.ZodType<Body>, request: Request): Body {
  const parsed = schema.safeParse(request.body ?? {});
  if (parsed.success) return parsed.data;
  throw new FlockError('invalid-request', `the request is malformed: ${parseProblemOf(parsed.error)}`);
}

/** A part of the path, decoded. */
export function param(request: Request, name: string): string {
  return String(request.params[name]);
}

function isClientError(error: unknown): boolean {
  return error instanceof Error && 'status' in error && typeof error.status === 'number' && error.status < 500;
}

export function statusOf(code: ErrorCode): number {
  switch (code) {
    case 'volume-not-found':
    case 'snapshot-not-found':
    case 'node-not-found':
    case 'service-not-found':
    case 'route-not-found':
    case 'link-not-found':
    case 'certificate-not-found':
    case 'move-not-found':
      return 404;
    case 'invalid-name':
    case 'invalid-option':
    case 'invalid-request':
    case 'not-supported':
    case 'quota-below-usage':
    case 'certificate-invalid':
      return 400;
    case 'token-invalid':
      return 403;
    case 'volume-exists':
    case 'volume-in-use':
    case 'volume-protected':
    case 'volume-busy':
    case 'snapshot-exists':
    case 'snapshot-held':
    case 'node-exists':
    case 'in-cluster':
    case 'no-cluster':
    case 'not-owner':
    case 'owner-dead':
    case 'epoch-stale':
    case 'diverged':
    case 'handoff-running':
    case 'document-changed':
    case 'no-place':
    case 'service-paused':
    case 'not-paused':
    case 'route-exists':
    case 'port-taken':
    case 'link-exists':
    case 'made-by-label':
    case 'certificate-in-use':
    case 'move-refused':
    case 'move-failed':
      return 409;
    case 'not-ready':
    case 'pool-missing':
    case 'pool-unusable':
    case 'storage-daemon-down':
    case 'too-many-requests':
    case 'store-unavailable':
    case 'node-unreachable':
    case 'lease-lost':
    case 'not-acknowledged':
      return 503;
    default:
      return 500;
  }
}
