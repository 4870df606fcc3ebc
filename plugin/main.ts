import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { listen } from '../controller/server/listen.ts';
import { pathsBelow } from './paths.ts';

/**
 * Where the managed plugin starts. Docker dials half a second after it has started the process, then every three seconds, and disables
 * a plugin that dies in between; so the socket listens before the rest of the program is even loaded, and calls wait for it.
 */
async function main(): Promise<void> {
  const stop = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort());
  const paths = pathsBelow(process.env['FLOCK_ROOT'] ?? '/');
  const answering = Promise.withResolvers<RequestListener>();
  const docker = await listen(paths.dockerSocket, (request, response) => {
    // A rejection ends the process below.
    answering.promise.then((answer) => answer(request, response)).catch(() => response.destroy());
  });
  const { run } = await import('./program.ts');
  await run(paths, process.env, answering.resolve, stop.signal);
  // Docker kills what is left after ten seconds; containers keep their mounts either way.
  docker.close();
  docker.closeAllConnections();
  await once(docker, 'close');
}

await main();
