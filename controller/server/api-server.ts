import express, { type Express, type Router } from 'express';
import type { Logger } from 'pino';
import type { ErrorCode } from '../model/errors.ts';
import { answerProblems, noSuchCall } from './problems.ts';

/** A move's transaction is in a body of the plugin's, with documents as texts: each of their quotation marks is up to four characters then. */
const bodyBytesMax = 1024 * 1024;

/**
 * A REST API of flockctl, on a socket that only root can open. Answers are views of controller/model. `unexpected`: the code of errors
 * that are not FlockErrors.
 */
export function createApiServer(routers: readonly Router[], log: Logger, unexpected?: ErrorCode): Express {
  const app = express();
  app.disable('x-powered-by').disable('etag');
  app.use(express.json({ limit: bodyBytesMax }));
  app.use(...routers);
  app.use(noSuchCall);
  app.use(answerProblems(log, 'api.failed', unexpected));
  return app;
}
