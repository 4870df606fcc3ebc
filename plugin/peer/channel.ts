import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { lendSocket } from '../storage/lend-socket.ts';

/**
 * A pair of connected sockets: one end for this process, the other one for a storage command as its stdin or stdout. For bytes that
 * have to pass through here on their way, to be encrypted.
 */
export type Channel = {
  readonly stream: Socket;
  /** Runs the command with the descriptor of the other end. */
  lend<T>(work: (descriptor: number) => Promise<T>): Promise<T>;
  /** Says the end of the stream to the own side. Called when the command that writes is done. */
  finish(): void;
  /** May be called repeatedly. */
  close(): void;
};

const connectMsMax = 5_000;

export async function openChannel(folder: string): Promise<Channel> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, `channel-${randomBytes(8).toString('hex')}`);
  // Nothing is read from either end before somebody asks for it: what Node has taken, the command would miss.
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  server.maxConnections = 1;
  server.listen(path);
  await once(server, 'listening');
  const ends: Socket[] = [];
  // Whoever uses it hears of it by the pump or by the command; without a listener it would end the process.
  const keep = (socket: Socket) => void ends.push(socket.on('error', () => undefined));
  server.on('connection', keep);
  try {
    const signal = AbortSignal.timeout(connectMsMax);
    const far = connect({ path, allowHalfOpen: true });
    keep(far);
    // Before it is connected: a socket that was paused by then does not begin to read.
    far.pause();
    const [[near]] = await Promise.all([once(server, 'connection', { signal }), once(far, 'connect', { signal })]);
    const stream = near as Socket;
    return {
      stream,
      lend: (work) => lendSocket(far, work),
      finish: () => far.end(),
      close() {
        far.destroy();
        stream.destroy();
      },
    };
  } catch (error) {
    for (const socket of ends) socket.destroy();
    throw error;
  } finally {
    server.close();
    await rm(path, { force: true });
  }
}
