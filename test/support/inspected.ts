import {
  type InspectedNetwork,
  type InspectedWorkload,
  inspectedWorkloadSchema,
} from '../../controller/model/inspected.ts';

/** What Docker 20.10 answers to `docker inspect`, whole: most fields are passed on as they are. */

export const containerId = 'c0ffee'.padEnd(64, '0');
export const imageId = `sha256:${'1a'.repeat(32)}`;

/** `docker run -d --name db -v pgdata:/var/lib/postgresql/data -e POSTGRES_PASSWORD=x -m 512m --restart unless-stopped postgres:15` */
export const hostConfig = {
  Binds: ['pgdata:/var/lib/postgresql/data'],
  ContainerIDFile: '',
  LogConfig: { Type: 'json-file', Config: { 'max-size': '10m' } },
  NetworkMode: 'default',
  PortBindings: { '5432/tcp': [{ HostIp: '', HostPort: '15432' }] },
  RestartPolicy: { Name: 'unless-stopped', MaximumRetryCount: 0 },
  AutoRemove: false,
  VolumeDriver: 'flock',
  VolumesFrom: null,
  CapAdd: ['SYS_NICE'],
  CapDrop: null,
  CgroupnsMode: 'private',
  Dns: [],
  DnsOptions: [],
  DnsSearch: [],
  ExtraHosts: ['mail:192.0.2.7'],
  GroupAdd: null,
  IpcMode: 'private',
  Cgroup: '',
  Links: null,
  OomScoreAdj: 0,
  PidMode: '',
  Privileged: false,
  PublishAllPorts: false,
  ReadonlyRootfs: false,
  SecurityOpt: null,
  UTSMode: '',
  UsernsMode: '',
  ShmSize: 134217728,
  Runtime: 'runc',
  ConsoleSize: [0, 0],
  Isolation: '',
  CpuShares: 0,
  Memory: 536870912,
  NanoCpus: 1500000000,
  CgroupParent: '',
  BlkioWeight: 0,
  BlkioWeightDevice: [],
  BlkioDeviceReadBps: null,
  CpuPeriod: 0,
  CpuQuota: 0,
  CpusetCpus: '',
  CpusetMems: '',
  Devices: [],
  DeviceCgroupRules: null,
  DeviceRequests: null,
  KernelMemory: 0,
  KernelMemoryTCP: 0,
  MemoryReservation: 0,
  MemorySwap: 1073741824,
  MemorySwappiness: null,
  OomKillDisable: false,
  PidsLimit: null,
  Ulimits: [{ Name: 'nofile', Hard: 65536, Soft: 65536 }],
  CpuCount: 0,
  Tmpfs: { '/run/postgresql': 'mode=0775' },
  Init: true,
  MaskedPaths: ['/proc/asound', '/proc/kcore'],
  ReadonlyPaths: ['/proc/bus', '/proc/sys'],
};

export const config = {
  Hostname: containerId.slice(0, 12),
  Domainname: '',
  User: '',
  AttachStdin: false,
  AttachStdout: false,
  AttachStderr: false,
  ExposedPorts: { '5432/tcp': {} },
  Tty: false,
  OpenStdin: false,
  StdinOnce: false,
  Env: ['POSTGRES_PASSWORD=x', 'PATH=/usr/bin:/bin', 'PGDATA=/var/lib/postgresql/data'],
  Cmd: ['postgres'],
  Healthcheck: { Test: ['CMD-SHELL', 'pg_isready'], Interval: 5000000000 },
  Image: 'postgres:15',
  Volumes: { '/var/lib/postgresql/data': {} },
  WorkingDir: '',
  Entrypoint: ['docker-entrypoint.sh'],
  OnBuild: null,
  Labels: { 'com.example.team': 'shop' },
  StopSignal: 'SIGINT',
  StopTimeout: 60,
};

export const flockMount = {
  Type: 'volume',
  Name: 'pgdata',
  Source: '/var/lib/docker/plugins/9a/propagated-mount/volumes/pgdata.0a1b2c3d',
  Destination: '/var/lib/postgresql/data',
  Driver: 'flock:latest',
  Mode: 'z',
  RW: true,
  Propagation: '',
};

const bridge = {
  IPAMConfig: null,
  Links: null,
  Aliases: null,
  NetworkID: 'b0'.repeat(32),
  EndpointID: 'e0'.repeat(32),
  Gateway: '172.17.0.1',
  IPAddress: '172.17.0.2',
  IPPrefixLen: 16,
  IPv6Gateway: '',
  GlobalIPv6Address: '',
  GlobalIPv6PrefixLen: 0,
  MacAddress: '02:42:ac:11:00:02',
  DriverOpts: null,
};

export type Changes = {
  readonly id?: string;
  readonly name?: string;
  /** Its id. */
  readonly image?: string;
  readonly config?: object;
  readonly hostConfig?: object;
  readonly mounts?: readonly object[];
  readonly networks?: Readonly<Record<string, object>>;
  readonly state?: object;
  readonly restartCount?: number;
};

/** The answer as it comes. */
export function inspectAnswer(changes: Changes = {}): Readonly<Record<string, unknown>> {
  return {
    Id: changes.id ?? containerId,
    Created: '2026-01-01T00:00:00.000000001Z',
    Path: 'docker-entrypoint.sh',
    Args: ['postgres'],
    State: {
      Status: 'running',
      Running: true,
      Paused: false,
      Restarting: false,
      OOMKilled: false,
      Dead: false,
      Pid: 4321,
      ExitCode: 0,
      Error: '',
      StartedAt: '2026-01-01T00:00:01.1Z',
      FinishedAt: '0001-01-01T00:00:00Z',
      ...changes.state,
    },
    Image: changes.image ?? imageId,
    Name: `/${changes.name ?? 'db'}`,
    RestartCount: changes.restartCount ?? 0,
    Driver: 'overlay2',
    Platform: 'linux',
    HostConfig: { ...hostConfig, ...changes.hostConfig },
    Mounts: changes.mounts ?? [flockMount],
    Config: { ...config, ...changes.config },
    NetworkSettings: {
      Networks: Object.fromEntries(
        Object.entries(changes.networks ?? { bridge: {} }).map(([name, endpoint]) => [
          name,
          { ...bridge, ...endpoint },
        ]),
      ),
    },
  };
}

export function inspected(changes: Changes = {}): InspectedWorkload {
  return inspectedWorkloadSchema.parse(inspectAnswer(changes));
}

export function network(name: string, changes: Partial<InspectedNetwork> = {}): InspectedNetwork {
  return {
    Name: name,
    Driver: 'bridge',
    Scope: 'local',
    EnableIPv6: false,
    Internal: false,
    Attachable: false,
    IPAM: { Driver: 'default', Options: null, Config: [{ Subnet: '172.20.0.0/16', Gateway: '172.20.0.1' }] },
    Options: {},
    Labels: { 'com.docker.compose.network': name },
    ...changes,
  };
}
