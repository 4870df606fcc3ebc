import { createConsulStore } from './consul.ts';
import type { Store } from './store.ts';

/** Before every key of flock in a cluster's Consul. */
export const storePrefix = 'flock/';

/** The store of a cluster, through Consul's agent at this address. Opens nothing: an agent that is not there shows in the calls. */
export function openStore(address: string, token: string | null, timeoutMs?: number): Store {
  return createConsulStore({
    address,
    prefix: storePrefix,
    ...(token === null ? {} : { token }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
}
