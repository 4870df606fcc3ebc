/**
 * Ports that a node's proxy gives away itself: inner ports and link ports. A port stays with what it was given for, for as long as
 * that is wanted.
 */
export const portRange = { first: 24_000, last: 27_999 } as const;

export type PortState = {
  /** By what it is for, such as `inner CONTAINER 8080`. */
  readonly held: Readonly<Record<string, number>>;
  /** The last one that was given away. */
  readonly last: number;
};

export const noPorts: PortState = { held: {}, last: portRange.last };

/**
 * Keeps what is held, gives up what is not wanted any more, and gives the rest the next free ports. A port that was given up comes
 * last: another node may lead there for a moment yet. So do those that documents name (`told`), whoever has had them: an earlier
 * process may have given them up. `missing`: for which there is none.
 */
export function allocatePorts(
  wanted: Iterable<string>,
  state: PortState,
  told: Iterable<number> = [],
): { readonly state: PortState; readonly missing: readonly string[] } {
  const held: Record<string, number> = {};
  const used = new Set<number>();
  const rest: string[] = [];
  for (const key of new Set(wanted)) {
    const port = state.held[key];
    if (port === undefined || used.has(port) || !isInRange(port)) rest.push(key);
    else {
      held[key] = port;
      used.add(port);
    }
  }
  let last = state.last;
  const avoided = new Set([...used, ...told]);
  const missing: string[] = [];
  for (const key of rest) {
    const port = nextFree(last, avoided) ?? nextFree(last, used);
    if (port === null) missing.push(key);
    else {
      held[key] = port;
      used.add(port);
      avoided.add(port);
      last = port;
    }
  }
  return { state: { held, last }, missing };
}

/** What documents say that were written before, where the state does not know better. */
export function recallPorts(state: PortState, documents: Readonly<Record<string, number>>): PortState {
  return { held: { ...documents, ...state.held }, last: state.last };
}

export const portKeys = {
  inner: (container: string, port: number | string) => `inner ${container} ${port}`,
  link: (container: string, port: number | string) => `link ${container} ${port}`,
} as const;

function nextFree(after: number, used: ReadonlySet<number>): number | null {
  const size = portRange.last - portRange.first + 1;
  if (used.size >= size) return null;
  const start = isInRange(after) ? after - portRange.first + 1 : 0;
  for (let step = 0; step < size; step += 1) {
    const port = portRange.first + ((start + step) % size);
    if (!used.has(port)) return port;
  }
  return null;
}

function isInRange(port: number): boolean {
  return Number.isInteger(port) && port >= portRange.first && port <= portRange.last;
}
