import { join } from 'node:path';

/** Where everything is, as the proxy's container sees it: the host's /run is /host/run there, /var/lib/flock is the host's own. */
export type ProxyPaths = {
  /** The host's membership in a cluster, kept by the plugin. */
  readonly cluster: string;
  /** The store of a host that is in no cluster. */
  readonly store: string;
  /** What the last table was made of. */
  readonly saved: string;
  readonly settings: string;
  /** Certificates that are not in the store: NAME.crt and NAME.key. */
  readonly certificates: string;
  /** Docker Engine's own socket. */
  readonly engineSocket: string;
  /** The socket of flockctl. Not in HAProxy's folder, which that container sees. */
  readonly apiSocket: string;
  /** HAProxy's configuration, maps, certificates and sockets. */
  readonly haproxy: string;
  /** The gate's sockets, where HAProxy sends what it does not serve itself. */
  readonly gate: string;
  /** For the texts of nft's transactions. */
  readonly kernel: string;
  /** The host's own file system, for paths that Docker names. */
  readonly hostRoot: string;
  readonly version: string;
};

export function proxyPathsBelow(root: string): ProxyPaths {
  const at = (path: string) => join(root, path);
  return {
    cluster: at('/var/lib/flock/cluster'),
    store: at('/var/lib/flock/proxy.db'),
    saved: at('/var/lib/flock/proxy-table.json'),
    settings: at('/var/lib/flock/proxy-settings.json'),
    certificates: at('/var/lib/flock/certificates'),
    engineSocket: at('/host/run/docker.sock'),
    apiSocket: at('/host/run/flock/proxy-api.sock'),
    haproxy: at('/host/run/flock/proxy/haproxy'),
    gate: at('/host/run/flock/proxy/gate'),
    kernel: at('/tmp/flock-kernel'),
    hostRoot: at('/proc/1/root'),
    version: at('/flock/version.json'),
  };
}
