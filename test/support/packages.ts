/** Debian's packages that tests need, by what they start. */
export const storagePackages = ['btrfs-progs', 'zfs-fuse'];

export const dockerPackages = [
  'docker.io',
  'docker-compose',
  'docker-registry',
  'redis-server',
  'tini',
  'iptables',
  'iproute2',
  'busybox-static',
  ...storagePackages,
];

export const clusterPackages = [...dockerPackages, 'nftables'];
