import { join } from 'node:path';

/** Where everything is, as the plugin sees it. On the host `/host/run` is `/run`; `/var/lib` and `/dev` are the host's own. */
export type Paths = {
  /** State, settings and the default pool. */
  readonly folder: string;
  readonly state: string;
  readonly settings: string;
  /** The socket that Docker calls, in the folder that Docker binds for each plugin. */
  readonly dockerSocket: string;
  /** The socket of flockctl. */
  readonly apiSocket: string;
  /** Docker Engine's own socket. */
  readonly engineSocket: string;
  /** Volumes are mounted here; below the manifest's propagatedMount, or containers would not see them. */
  readonly mountRoot: string;
  /** The top level of a btrfs pool. */
  readonly poolMount: string;
  /** zfs-fuse's daemon, which runs on the host, mounts here. */
  readonly daemonMountRoot: string;
  readonly zfsDevice: string;
  readonly zfsFuseTools: string;
  readonly version: string;
  /** Until when volumes may be written, for the watchdog. On the host's tmpfs, so it outlives the plugin and no reboot. */
  readonly deadlines: string;
  readonly watchdog: string;
  readonly carrier: string;
};

export function pathsBelow(root: string): Paths {
  const at = (path: string) => join(root, path);
  return {
    folder: at('/var/lib/flock'),
    state: at('/var/lib/flock/state.db'),
    settings: at('/var/lib/flock/settings.json'),
    dockerSocket: at('/run/docker/plugins/flock.sock'),
    apiSocket: at('/host/run/flock/flock.sock'),
    engineSocket: at('/host/run/docker.sock'),
    mountRoot: at('/mnt/flock/volumes'),
    poolMount: at('/run/flock/pool'),
    daemonMountRoot: at('/var/lib/flock/mnt'),
    zfsDevice: at('/dev/zfs'),
    zfsFuseTools: at('/usr/lib/zfs-fuse'),
    version: at('/flock/version.json'),
    deadlines: at('/host/run/flock/deadlines.json'),
    watchdog: at('/flock/watchdog.js'),
    carrier: at('/flock/carrier.js'),
  };
}

/** The same mounts as they show in the plugin, on the host below Docker's folders, and from zfs-fuse's daemon. */
export function ownFoldersOf(paths: Paths): readonly string[] {
  return [paths.mountRoot, '/propagated-mount/volumes', paths.daemonMountRoot];
}
