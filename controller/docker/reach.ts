import { connect } from 'node:net';

/** Whether something takes connections there. Never rejects. */
export type Reach = (address: string, port: number, signal: AbortSignal) => Promise<boolean>;

const reachMsMax = 1_000;

/** From this host, within a second. */
export const reach: Reach = (host, port, signal) =>
  new Promise((resolve) => {
    const socket = connect({ host, port, signal: AbortSignal.any([signal, AbortSignal.timeout(reachMsMax)]) });
    const end = (isOpen: boolean) => {
      socket.destroy();
      resolve(isOpen);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
  });
