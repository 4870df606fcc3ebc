import { join } from 'node:path';
import type { Listener, Table } from '../model/table.ts';

/**
 * Where the gate takes the connections of a listener. Alone it listens on the listener's own address and port. Behind HAProxy, which
 * has the ports of http and tls listeners, it listens on unix sockets, and believes what HAProxy says of the clients.
 */
export type Door = {
  /** Of a listener's first door it is `Listener.key`. */
  readonly key: string;
  /** The listener's key, or the number of the inner port. */
  readonly of: string;
  /** `https`: requests whose encryption was ended before. `tls`: encrypted bytes, for whoever their server name says. */
  readonly kind: 'http' | 'https' | 'tls' | 'tcp' | 'inner';
  readonly at: { readonly address: string; readonly port: number } | { readonly path: string };
};

/** `folder`: of the unix sockets behind HAProxy; null: there is no HAProxy. */
export function doorsOf(listener: Listener, folder: string | null): readonly Door[] {
  const { key, kind, address, port } = listener;
  if (folder === null || kind === 'tcp') return [{ key, of: key, kind, at: { address, port } }];
  const paths = doorPaths(folder, port);
  if (kind === 'http') return [{ key, of: key, kind, at: { path: paths.http } }];
  return [
    { key, of: key, kind: 'https', at: { path: paths.https } },
    { key: `${key} as it is`, of: key, kind: 'tls', at: { path: paths.tls } },
  ];
}

/** For the other nodes' proxies, where there is no kernel layer. */
export function innerDoors({ inner }: Table): readonly Door[] {
  return [...inner.keys()].map((port) => ({
    key: `inner ${port}`,
    of: String(port),
    kind: 'inner',
    at: { address: '*', port },
  }));
}

/** `http` and `https` take HTTP/1.1, `tls` takes a PROXY protocol v2 header and then what the client has sent. */
export function doorPaths(
  folder: string,
  port: number,
): { readonly http: string; readonly https: string; readonly tls: string } {
  const at = (kind: string) => join(folder, `${kind}-${port}.sock`);
  return { http: at('http'), https: at('https'), tls: at('tls') };
}
