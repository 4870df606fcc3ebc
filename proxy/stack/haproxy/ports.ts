import { createServer } from 'node:net';
import { describePort } from '../../gate/listeners.ts';

/**
 * Which of the ports can't be opened, and why: HAProxy refuses its whole configuration for one of them. Each is opened for a moment.
 */
export async function findBlocked(ports: readonly number[]): Promise<ReadonlyMap<number, string>> {
  const blocked = new Map<number, string>();
  for (const port of ports) {
    const problem = await tryPort({ port });
    if (problem !== null) blocked.set(port, describePort('*', port, problem));
  }
  return blocked;
}

/** Not every kernel has it. */
export async function hasIpv6(): Promise<boolean> {
  return (await tryPort({ host: '::1', port: 0 })) === null;
}

/** Without a host: all addresses of both families. Null: it can be opened. */
function tryPort(at: { readonly host?: string; readonly port: number }): Promise<unknown> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', resolve);
    server.listen(at, () => server.close(() => resolve(null)));
  });
}
