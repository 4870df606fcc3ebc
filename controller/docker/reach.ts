import { connect } from 'node:net';

/** Whether something takes connections there. Never rejects. */
export type Reach = (address: string, port: number, signal: AbortSignal) => Promise<boolean>;

const reachMsMax = 1_000;

/**
 * From this host, within a second. What a server says first is read, and the end is told: one that is hung up on while it greets may die of
 * that.
 */
export const reach: Reach = (host, port, signal) =>
  new Promise((resolve) => {
    const socket = connect({ host, port, signal: AbortSignal.any([signal, AbortSignal.timeout(reachMsMax)]) });
    socket.on('error', () => resolve(false));
    socket.once('connect', () => {
      resolve(true);
      socket.resume();
      socket.end();
    });
  });
