import type { SlotKind, Stock } from './slots.ts';

/**
 * What HAProxy is to have, as plain data. Everything but `structure` can be changed while it runs; a change of the structure needs a
 * reload.
 */
export type Wanted = {
  readonly structure: Structure;
  /** By the map's name: key to backend. */
  readonly maps: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** By backend, by the server's name. */
  readonly servers: ReadonlyMap<string, ReadonlyMap<string, Server>>;
};

export type Structure = {
  readonly http: readonly number[];
  readonly tls: readonly TlsPort[];
  /** Files of certificates by name. */
  readonly certificates: ReadonlyMap<string, Pem>;
  readonly stock: Stock;
};

/** `certificates`: those with which TLS of this port is ended. */
export type TlsPort = { readonly port: number; readonly certificates: readonly string[] };

/** Certificate (with its chain) and key in one file; `digest` of both. */
export type Pem = { readonly text: string; readonly digest: string };

export type Server = {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly proxyProtocol: boolean;
};

/** Of a map: a target that is there, and leads nowhere. No backend has this name. */
export const nowhere = 'none';

export const mapNames = {
  paused: 'paused',
  /** Of a listener for requests: `host/path/`, and the same of what is below a wildcard's name. */
  requests: (protocol: 'http' | 'https', port: number) => ({
    exact: `${protocol}-${port}`,
    below: `${protocol}-${port}-below`,
  }),
  /** Of server names in TLS's first message. */
  names: (port: number) => ({ exact: `tls-${port}`, below: `tls-${port}-below` }),
} as const;

export const backendNames = {
  slot: (kind: SlotKind, index: number) => `${kind}${index}`,
  /** Where a slot's WebSockets run, so that they are counted apart. */
  upgrades: (slot: string) => `${slot}u`,
  gate: (protocol: 'http' | 'https' | 'tls', port: number) => `gate-${protocol}-${port}`,
  /** The way to where TLS is ended with a certificate. */
  ended: (port: number, certificate: string) => `https-${port}-${certificate}`,
} as const;

/** Of a slot's backend, or of that of its WebSockets. */
export function slotOf(backend: string): string {
  return backend.endsWith('u') ? backend.slice(0, -1) : backend;
}
