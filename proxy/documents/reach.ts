import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import type { PeerAddress } from '../../controller/model/identity.ts';
import type { NodeName } from '../../controller/model/names.ts';

/**
 * Nodes whose session is over and that answer all the same, because they are cut off from the store only. Their plugins may prove
 * with promises that their volumes are theirs, so their containers serve on, and nobody else may take their place.
 */
export type Reach = {
  /**
   * Who is to be asked, in place of all before. A node that was not asked before counts as answering until it has not answered once: what a
   * dead node's session was over for is known a second later.
   */
  follow(nodes: ReadonlyMap<NodeName, PeerAddress>): void;
  answers(node: NodeName): boolean;
  /** Asks until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};

export type ReachParts = {
  readonly onChange: () => void;
  /** Whether the plugin there answers within `askMsMax`. Never rejects. */
  readonly ask?: (at: PeerAddress, signal: AbortSignal) => Promise<boolean>;
  readonly everyMs?: number;
};

const everyMsDefault = 1_000;
const askMsMax = 1_000;

export function createReach({ onChange, ask = shakeHands, everyMs = everyMsDefault }: ReachParts): Reach {
  let asked: ReadonlyMap<NodeName, PeerAddress> = new Map();
  const silent = new Set<NodeName>();

  async function askOne(node: NodeName, at: PeerAddress, signal: AbortSignal): Promise<void> {
    const isThere = await ask(at, AbortSignal.any([signal, AbortSignal.timeout(askMsMax)]));
    if (signal.aborted || !asked.has(node) || isThere === !silent.has(node)) return;
    if (isThere) silent.delete(node);
    else silent.add(node);
    onChange();
  }

  return {
    follow(nodes) {
      asked = nodes;
      for (const node of silent) if (!nodes.has(node)) silent.delete(node);
    },
    answers: (node) => asked.has(node) && !silent.has(node),
    async run(signal) {
      while (!signal.aborted) {
        await Promise.all([...asked].map(([node, at]) => askOne(node, at, signal)));
        await sleep(everyMs, undefined, { signal }).catch(() => {});
      }
    },
  };
}

/** A kernel takes connections for a process that stands still, so the plugin itself has to say something. Who it is does not matter. */
function shakeHands({ address, port }: PeerAddress, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, rejectUnauthorized: false });
    const end = (isThere: boolean) => {
      signal.removeEventListener('abort', give);
      socket.destroy();
      resolve(isThere);
    };
    const give = () => end(false);
    if (signal.aborted) return give();
    signal.addEventListener('abort', give);
    socket.once('secureConnect', () => end(true));
    socket.on('error', () => end(false));
  });
}
