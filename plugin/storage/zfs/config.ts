/** Where a zfs pool is and with which tools it is worked on. */
export type ZfsConfig = {
  /** The dataset below which flock's are, such as `flock/volumes`; its first component is the zpool. */
  readonly prefix: string;
  /** The file that is the pool's only vdev, made and imported by flock; null where the operator looks after the pool. */
  readonly poolFile: string | null;
  /** Volumes are mounted at `mountRoot/ID`. */
  readonly mountRoot: string;
  /** zfs-fuse only: the daemon, which runs on the host, mounts at `daemonMountRoot/ID`; that is then bound to `mountRoot/ID`. */
  readonly daemonMountRoot: string;
  readonly variant: 'openzfs' | 'zfs-fuse';
  readonly tools: { readonly zfs: string; readonly zpool: string; readonly mount: string; readonly umount: string };
};

export function poolOf(config: ZfsConfig): string {
  return config.prefix.split('/')[0] ?? config.prefix;
}
