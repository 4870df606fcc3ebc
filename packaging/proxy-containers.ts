/** How the containers of the proxy's image are started: the proxy, its HAProxy, and the controller. Pure. */

/** Not below "flock.", which is for the labels that users give to their containers. */
export const labels = { program: 'flock-program', build: 'flock-build' } as const;

export type ProxyProgram = 'proxy' | 'haproxy' | 'controller';

export type ContainerPlan = {
  readonly program: ProxyProgram;
  readonly name: string;
  /** Of all that makes this container what it is: it stays as long as this does. */
  readonly digest: string;
  /** Of `docker run`. */
  readonly args: readonly string[];
};

export type ProxyParts = {
  readonly image: string;
  /** Of the whole image, and of what HAProxy's container uses of it. */
  readonly digests: Readonly<Record<ProxyProgram, string>>;
  /** The docker client's major version. */
  readonly clientMajor: number;
};

export const haproxyFolder = '/run/flock/proxy';
const haproxyFiles = `${haproxyFolder}/haproxy`;

const common = [
  ...['--restart', 'always', '--network', 'host', '--userns', 'host'],
  ...['--log-driver', 'json-file', '--log-opt', 'max-size=10m', '--log-opt', 'max-file=2'],
];

/** Of `docker run`: takes away what the proxy has left on the host, when its containers have gone. */
export function removalArgs(image: string, clientMajor: number): readonly string[] {
  return [
    '--rm',
    '--network',
    'host',
    '--userns',
    'host',
    ...proxyOptions(clientMajor),
    image,
    '/flock/proxy.js',
    'remove',
  ];
}

/** In the order of their start. HAProxy is a container of its own: what it serves goes on while the proxy is killed or replaced. */
export function containerPlans(parts: ProxyParts, digestOf: (text: string) => string): readonly ContainerPlan[] {
  const plan = (program: ProxyProgram, options: readonly string[], command: readonly string[]): ContainerPlan => {
    const name = `flock-${program}`;
    const digest = digestOf(JSON.stringify([parts.digests[program], common, options, command]));
    const marks = ['--label', `${labels.program}=${program}`, '--label', `${labels.build}=${digest}`];
    return {
      program,
      name,
      digest,
      args: ['-d', '--name', name, ...common, ...marks, ...options, parts.image, ...command],
    };
  };
  return [
    plan('haproxy', haproxyOptions, [
      ...['/flock/haproxy.js', `${haproxyFiles}/haproxy.cfg`],
      ...['-W', '-db', '-S', `${haproxyFiles}/master.sock,mode,600`],
    ]),
    plan('proxy', proxyOptions(parts.clientMajor), ['/flock/proxy.js']),
    plan('controller', [...controllerOptions, ...hostFolders(parts.clientMajor)], ['/flock/controller.js']),
  ];
}

/** It talks to everybody, so it may do little: it sees its own folder, and not the plugin's and Docker's sockets. */
const haproxyOptions = [
  ...['--read-only', '--cap-drop', 'ALL', '--cap-add', 'NET_BIND_SERVICE', '--security-opt', 'no-new-privileges'],
  ...['-v', `${haproxyFolder}:/host${haproxyFolder}`],
];

/** The kernel's tables, and those in the containers' network namespaces. Not "privileged": some hosts can't give that. */
function proxyOptions(clientMajor: number): readonly string[] {
  return [
    ...['--pid', 'host', '--cap-add', 'NET_ADMIN', '--cap-add', 'SYS_ADMIN', '--cap-add', 'SYS_PTRACE'],
    // Docker's profiles forbid setns, /proc/PID and /proc/sys to those who have these capabilities, too.
    ...['apparmor', 'seccomp', 'systempaths'].flatMap((guard) => ['--security-opt', `${guard}=unconfined`]),
    ...['--security-opt', 'label=disable'],
    ...hostFolders(clientMajor),
  ];
}

/** It asks others to do things, over their sockets. */
const controllerOptions = [
  ...['--read-only', '--cap-drop', 'ALL'],
  ...['--security-opt', 'no-new-privileges', '--security-opt', 'label=disable'],
];

/** Without what is mounted below: volumes there would be kept busy. */
function hostFolders(clientMajor: number): readonly string[] {
  const alone = clientMajor >= 25 ? 'bind-recursive=disabled' : 'bind-nonrecursive=true';
  return [
    ...['--mount', `type=bind,src=/var/lib/flock,dst=/var/lib/flock,${alone}`],
    ...['--mount', `type=bind,src=/run,dst=/host/run,${alone}`],
  ];
}
