import { chmod, mkdir, rm } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import { dirname } from 'node:path';

/**
 * Serves on a unix socket that only root can open, in place of a socket that a dead predecessor left. One request a connection:
 * Docker makes a new client for every call and never closes its idle connections, and a connection that is closed just as Docker
 * uses it again makes Docker repeat the call with an empty body.
 */
export async function listen(socketPath: string, handler: RequestListener): Promise<Server> {
  await mkdir(dirname(socketPath), { recursive: true });
  await rm(socketPath, { force: true });
  // A body that never ends must not hold a connection for ever; answers have their own limits.
  const server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000 }, handler);
  server.maxRequestsPerSocket = 1;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, resolve);
  });
  await chmod(socketPath, 0o600);
  return server;
}
