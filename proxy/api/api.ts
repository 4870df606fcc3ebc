import { type Express, type Request, Router } from 'express';
import { FlockError } from '../../controller/model/errors.ts';
import {
  certificateBody,
  drainBody,
  linkBody,
  pauseBody,
  releaseBody,
  routeBody,
} from '../../controller/model/proxy-api.ts';
import { createApiServer } from '../../controller/server/api-server.ts';
import { param, parseBody } from '../../controller/server/problems.ts';
import { parseServiceName } from '../model/names.ts';
import { addCertificate, listCertificates, removeCertificate } from './certificates.ts';
import { addLink, removeLink } from './links.ts';
import { type ProxyApiParts, seenBy, selfOf } from './parts.ts';
import { drainService, pauseService, releaseService } from './pauses.ts';
import { addRoute, removeRoute } from './routes.ts';
import { linkRows, routeRows } from './rows.ts';
import { inspectService, listServices, proxyStatus } from './services.ts';

export type { ProxyApiParts } from './parts.ts';

/** A pause and a drain have shorter limits of their own; flockctl waits longer. */
const answerMsMax = 128_000;

type Handler = (request: Request, signal: AbortSignal) => Promise<unknown> | unknown;

/**
 * What flockctl asks the proxy: routes, links, services, certificates. To be served on a socket that only root can open. Whichever
 * node is asked answers for all; states are as that node sees them.
 */
export function createProxyApi(parts: ProxyApiParts): Express {
  const router = Router();
  const route = (method: 'get' | 'post' | 'delete', path: string, handler: Handler) =>
    router[method](path, async (request, response) => {
      const gone = new AbortController();
      response.on('close', () => gone.abort(new FlockError('caller-gone', 'the caller closed the connection')));
      const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(answerMsMax)]);
      response.json((await handler(request, signal)) ?? {});
    });
  const service = (request: Request) => parseServiceName(param(request, 'name'));
  const isForced = (request: Request) => request.query['force'] === 'true';

  route('get', '/v1/routes', () => routeRows(seenBy(parts)));
  route('post', '/v1/routes', (request, signal) => {
    const { route: text, force } = parseBody(routeBody, request);
    return addRoute(parts, text, force, signal);
  });
  route('delete', '/v1/routes/:id', (request, signal) => removeRoute(parts, param(request, 'id'), signal));

  route('get', '/v1/links', () => linkRows(seenBy(parts)));
  route('post', '/v1/links', (request, signal) => addLink(parts, parseBody(linkBody, request), signal));
  route('delete', '/v1/links/:id', (request, signal) => removeLink(parts, param(request, 'id'), signal));

  route('get', '/v1/services', () => listServices(parts));
  route('get', '/v1/services/:name', (request) => inspectService(parts, service(request)));
  route('post', '/v1/services/:name/pause', (request, signal) =>
    pauseService(parts, service(request), parseBody(pauseBody, request), signal),
  );
  route('post', '/v1/services/:name/drain', (request, signal) =>
    drainService(parts, service(request), parseBody(drainBody, request), signal),
  );
  route('post', '/v1/services/:name/release', (request, signal) =>
    releaseService(parts, service(request), parseBody(releaseBody, request).waitMs, signal),
  );

  route('get', '/v1/certificates', () => listCertificates(seenBy(parts), parts.nowMs()));
  route('post', '/v1/certificates', (request, signal) =>
    addCertificate(parts, parseBody(certificateBody, request), signal),
  );
  route('delete', '/v1/certificates/:name', (request, signal) =>
    removeCertificate(parts, param(request, 'name'), isForced(request), signal),
  );

  route('get', '/v1/proxies', () => proxyStatus(seenBy(parts), selfOf(parts)));

  return createApiServer([router], parts.log, 'proxy-failed');
}
