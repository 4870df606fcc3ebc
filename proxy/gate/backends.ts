import type { Balance } from '../model/records.ts';
import type { Endpoint } from '../model/table.ts';

/** An endpoint in use. The object stays the same for as long as tables have the endpoint. */
export type Backend = {
  readonly endpoint: Endpoint;
  /** Requests and connections that it serves now. */
  active: number;
  /** On the clock of `nowMs`: until then others are preferred. */
  coolUntilMs: number;
  /** Set by who keeps something for it, such as idle connections; called when it has left the table. */
  retire: (() => void) | null;
};

/** The backends of one port of a service. */
export type Backends = { readonly all: readonly Backend[]; cursor: number };

/** Makes the list for these endpoints, with the backends of the old list where they are the same. */
export function renewBackends(old: Backends | undefined, endpoints: readonly Endpoint[]): Backends {
  const known = new Map(old?.all.map((backend) => [keyOf(backend.endpoint), backend]));
  const all = endpoints.map((endpoint) => {
    const key = keyOf(endpoint);
    const backend = known.get(key) ?? { endpoint, active: 0, coolUntilMs: 0, retire: null };
    known.delete(key);
    return backend;
  });
  for (const gone of known.values()) gone.retire?.();
  return { all, cursor: old?.cursor ?? 0 };
}

/**
 * The next backend: in turn, or the one that serves least (in turn among equals). Those that have just failed come last, those
 * in `tried` never.
 */
export function choose(backends: Backends, balance: Balance, tried: readonly Backend[], nowMs: number): Backend | null {
  const { all, cursor } = backends;
  let best: Backend | null = null;
  let bestScore = Number.POSITIVE_INFINITY;
  for (let step = 0; step < all.length; step += 1) {
    const index = (cursor + step) % all.length;
    const backend = all[index];
    if (backend === undefined || tried.includes(backend)) continue;
    const cooling = backend.coolUntilMs > nowMs ? coolingPenalty : 0;
    const score = cooling + (balance === 'least-connections' ? backend.active : 0);
    if (score >= bestScore) continue;
    best = backend;
    bestScore = score;
    backends.cursor = index + 1;
    if (score === 0) break;
  }
  return best;
}

/** More than any number of connections. */
const coolingPenalty = 1e9;

function keyOf({ id, host, port }: Endpoint): string {
  return `${id} ${host} ${port}`;
}
