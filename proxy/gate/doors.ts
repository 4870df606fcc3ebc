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
  const doors = (doorKind: 'http' | 'https' | 'tls', name: string) =>
    paths[doorKind].map((path, index): Door => {
      const at = { path };
      return { key: index === 0 ? name : `${name} ${index + 1}`, of: key, kind: doorKind, at };
    });
  return kind === 'http' ? doors('http', key) : [...doors('https', key), ...doors('tls', `${key} as it is`)];
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

/**
 * `http` and `https` take HTTP/1.1, `tls` takes a PROXY protocol v2 header and then what the client has sent. Several of each, because
 * the kernel keeps 4,096 connections at most for a socket until they are taken, and a pause meets all clients at once.
 */
export function doorPaths(
  folder: string,
  port: number,
): { readonly [Kind in 'http' | 'https' | 'tls']: readonly [string, ...string[]] } {
  const at = (kind: string): readonly [string, ...string[]] => [
    join(folder, `${kind}-${port}.sock`),
    join(folder, `${kind}-${port}-2.sock`),
    join(folder, `${kind}-${port}-3.sock`),
  ];
  return { http: at('http'), https: at('https'), tls: at('tls') };
}
