import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatPeerAddress, type PeerAddress } from '../../controller/model/identity.ts';

/**
 * Whether the host of a call that waits for its answer is still there. A host that lost its power answers nothing, also not to what is
 * sent on a connection that was made before, and the kernel would repeat it for minutes. So whoever waits dials anew now and then: the
 * kernel of a living host accepts at once, however busy the process behind it is.
 */
export type Lookout = {
  /** Resolves with what is wrong when the host does not answer, so many times in a row, and with null when the signal fires. */
  lost(at: PeerAddress, misses: number, signal: AbortSignal): Promise<Error | null>;
};

/** Most calls are answered before. */
const firstMs = 500;
const againMs = 2_000;
/** A lost packet is sent again after one second. */
export const connectMsMax = 2_000;

export function createLookout(): Lookout {
  const dialling = new Map<string, Promise<Error | null>>();

  function dial(at: PeerAddress): Promise<Error | null> {
    const key = formatPeerAddress(at);
    const present = dialling.get(key);
    if (present !== undefined) return present;
    const made = knock(at).finally(() => dialling.delete(key));
    dialling.set(key, made);
    return made;
  }

  return {
    async lost(at, misses, signal) {
      let missed = 0;
      for (let pauseMs = firstMs; ; pauseMs = againMs) {
        await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
        if (signal.aborted) return null;
        const problem = await dial(at);
        missed = problem === null ? 0 : missed + 1;
        if (problem !== null && missed >= misses) return signal.aborted ? null : problem;
      }
    },
  };
}

function knock({ address, port }: PeerAddress): Promise<Error | null> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port });
    const finish = (problem: Error | null) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(problem);
    };
    const timer = setTimeout(() => finish(noConnection()), connectMsMax);
    socket.once('connect', () => finish(null));
    socket.on('error', finish);
  });
}

export function noConnection(): Error {
  return new Error(`its host took no connection within ${connectMsMax / 1000} s`);
}
