/** What is in each image: the plugin's, and the proxy's. */
import { type Entries, pluginEntries, proxyEntries } from './bundle.ts';
import { proxyRootfsDir, rootfsDir } from './paths.ts';
import { iptablesExtensions, libraryPath, type PackageSet, pluginTools, proxyTools, type Tool } from './tools.ts';

export type ImagePlan = {
  /** Its root file system, as a folder. */
  readonly dir: string;
  readonly entries: Entries;
  readonly tools: readonly Tool[];
  /** Folders of packages that are taken as they are. */
  readonly folders: readonly Tool[];
  /** Empty folders: what is mounted over, and what programs expect to exist. */
  readonly directories: readonly string[];
  readonly links: Readonly<Record<string, string>>;
  readonly files: Readonly<Record<string, string>>;
  /** Files and folders of the repository whose last commit names the build. */
  readonly sources: readonly string[];
};

const directories = [
  ...['/dev', '/proc', '/sys', '/tmp', '/root', '/etc', '/run/lock', '/var/lib', '/host/run'],
  ...['/usr/bin', '/usr/sbin', `/usr${libraryPath}`, '/usr/lib64', '/flock'],
];

const links: Readonly<Record<string, string>> = {
  '/bin': 'usr/bin',
  '/sbin': 'usr/sbin',
  '/lib': 'usr/lib',
  '/lib64': 'usr/lib64',
  '/var/run': '/run',
  '/var/lock': '/run/lock',
  '/etc/mtab': '/proc/self/mounts',
};

const files: Readonly<Record<string, string>> = {
  '/etc/passwd': 'root:x:0:0:root:/root:/usr/sbin/nologin\n',
  '/etc/group': 'root:x:0:\n',
  // glibc has "files" and "dns" built in, so no libnss_*.so is needed.
  '/etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
};

const commonSources = ['controller', 'packaging', 'package-lock.json'];

export const pluginImage: ImagePlan = {
  dir: rootfsDir,
  entries: pluginEntries,
  tools: pluginTools,
  folders: [],
  directories: [...directories, '/run/docker/plugins', '/run/flock', '/mnt/flock', '/etc/zfs'],
  // zfs-fuse's clients look for the daemon's socket below /var/run/zfs; the daemon runs on the host.
  links: { ...links, '/run/zfs': '/host/run/zfs' },
  files,
  sources: [...commonSources, 'plugin', 'config.json'],
};

export const proxyImage: ImagePlan = {
  dir: proxyRootfsDir,
  entries: proxyEntries,
  tools: proxyTools,
  folders: [iptablesExtensions],
  directories: [...directories, '/host/run/flock/proxy', '/var/lib/flock'],
  // A socket that is bound by itself would be a dead one after its daemon's restart, so the folders are, below /host.
  links: { ...links, '/run/flock': '/host/run/flock', '/run/docker.sock': '/host/run/docker.sock', ...iptablesNames() },
  files,
  sources: [...commonSources, 'proxy'],
};

/**
 * http-proxy uses a function of Node that is deprecated, and many held requests fit into less memory if few young objects are kept.
 * Scripts are run by it: /flock/proxy.js, /flock/haproxy.js.
 */
export const proxyEntrypoint = ['/usr/bin/node', '--disable-warning=DEP0060', '--max-semi-space-size=2'];

/** The package sets that an image has something of. */
export function setsOf({ tools, folders }: ImagePlan): readonly PackageSet[] {
  return [...new Set([...tools, ...folders].map(({ set }) => set))].toSorted();
}

/** One program for each kind of iptables: it does what it is called. */
function iptablesNames(): Readonly<Record<string, string>> {
  const names = ['iptables', 'ip6tables'].flatMap((command) =>
    ['nft', 'legacy'].flatMap((kind) =>
      ['', '-save', '-restore'].map((verb) => [`/usr/sbin/${command}-${kind}${verb}`, `xtables-${kind}-multi`]),
    ),
  );
  return Object.fromEntries(names);
}
