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
  'curl',
  'nftables',
  'openssl',
  ...storagePackages,
];

/** Of the suites against every implementation: storage, stores, and the proxy's layers. */
export const contractPackages = [...storagePackages, 'haproxy', 'nftables', 'conntrack', 'iptables', 'iproute2'];

export const clusterPackages = [...dockerPackages, 'wrk', 'chromium'];
