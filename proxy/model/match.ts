import type { HostIndex, Listener, PathIndex, Table, Target } from './table.ts';

/**
 * The target of a request at a listener: an exact host before the nearest wildcard above it before the route for every host, and
 * of its paths the longest prefix by whole segments. Without a fitting path the search goes on with the next wider host. The cost
 * depends on the depth of the host and of the routes' paths, not on the number of routes.
 *
 * `host` is what `requestTarget` gives; `path` may have a query. Percent escapes and dot segments are compared as they came: a
 * path picks a service, it protects none.
 */
export function matchHost(hosts: HostIndex, host: string, path: string): Target | null {
  const exact = hosts.exact.get(host);
  const found = exact === undefined ? null : matchPath(exact, path);
  if (found !== null) return found;
  if (hosts.below.size > 0) {
    for (let dot = host.indexOf('.'); dot >= 0; dot = host.indexOf('.', dot + 1)) {
      const paths = hosts.below.get(host.slice(dot + 1));
      const target = paths === undefined ? null : matchPath(paths, path);
      if (target !== null) return target;
    }
  }
  return hosts.any === null ? null : matchPath(hosts.any, path);
}

/** As matchHost, at the listener of this key; the target of a tcp listener whatever is asked. */
export function matchRoute(table: Table, listenerKey: string, host: string, path: string): Target | null {
  const listener = table.listeners.get(listenerKey);
  return listener === undefined ? null : matchListener(listener, host, path);
}

export function matchListener(listener: Listener, host: string, path: string): Target | null {
  return listener.kind === 'tcp' ? listener.target : matchHost(listener.hosts, host, path);
}

function matchPath(paths: PathIndex, path: string): Target | null {
  if (paths.segments > 0) {
    const end = lengthWithoutQuery(path);
    let longest: Target | null = null;
    // Each slash but the first ends a prefix, and so does the end.
    let slash = 0;
    for (let segment = 1; segment <= paths.segments && slash < end; segment += 1) {
      const next = path.indexOf('/', slash + 1);
      slash = next < 0 || next > end ? end : next;
      longest = paths.targets.get(path.slice(0, slash)) ?? longest;
    }
    if (longest !== null) return longest;
  }
  return paths.targets.get('/') ?? null;
}

function lengthWithoutQuery(path: string): number {
  const query = path.indexOf('?');
  return query < 0 ? path.length : query;
}
