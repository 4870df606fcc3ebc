import { join } from 'node:path';

/** Where everything is, as the controller's container sees it: the host's /run is /host/run there, /var/lib/flock is the host's own. */
export type ControllerPaths = {
  /** The host's membership in a cluster, kept by the plugin. */
  readonly cluster: string;
  /** The store of a host that is in no cluster. */
  readonly store: string;
  /** Docker Engine's own socket. */
  readonly engineSocket: string;
  /** The sockets of flockctl: of this program, and of the two that it asks. */
  readonly apiSocket: string;
  readonly pluginSocket: string;
  readonly proxySocket: string;
  readonly version: string;
};

export function controllerPathsBelow(root: string): ControllerPaths {
  const at = (path: string) => join(root, path);
  return {
    cluster: at('/var/lib/flock/cluster'),
    store: at('/var/lib/flock/controller.db'),
    engineSocket: at('/host/run/docker.sock'),
    apiSocket: at('/host/run/flock/controller-api.sock'),
    pluginSocket: at('/host/run/flock/flock.sock'),
    proxySocket: at('/host/run/flock/proxy-api.sock'),
    version: at('/flock/version.json'),
  };
}
