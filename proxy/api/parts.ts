import type { Logger } from 'pino';
import { FlockError } from '../../controller/model/errors.ts';
import type { NodeName } from '../../controller/model/names.ts';
import type { Store } from '../../controller/store/store.ts';
import type { InFlight } from '../gate/services.ts';
import type { ServiceName } from '../model/names.ts';
import type { Seen } from '../model/status.ts';

/** What the API needs of the program around it. Functions where the answer changes while the program runs. */
export type ProxyApiParts = {
  /** The one that is used now: another one after the host has become a member of a cluster. */
  readonly store: () => Store;
  /** What the last table was made from; null: there is none yet, and calls are answered `not-ready`. */
  readonly seen: () => Seen | null;
  /** Null as long as `seen` is. */
  readonly self: () => NodeName | null;
  /** What runs through this node's proxy. May reject for a service that it does not know. */
  readonly inFlight: (service: ServiceName) => Promise<InFlight>;
  /** Wall clock. */
  readonly nowMs: () => number;
  readonly log: Logger;
  /** How long a drain waits for the nodes' reports after its time. */
  readonly reportMsMax?: number;
};

export function seenBy(parts: ProxyApiParts): Seen {
  return parts.seen() ?? notReady();
}

export function selfOf(parts: ProxyApiParts): NodeName {
  return parts.self() ?? notReady();
}

function notReady(): never {
  throw new FlockError(
    'not-ready',
    'the proxy serves nothing yet: try again in a moment; if that does not help, "docker logs flock-proxy" says what it waits for',
  );
}
