import { type InspectedWorkload, isFlockDriver } from './inspected.ts';
import { failoverProblem } from './workload-labels.ts';

/**
 * What keeps a container from being made on another host. Each text begins with the option of `docker run`, or of Compose, as people
 * know it. Pure.
 */
export function obstaclesOf(inspected: InspectedWorkload, facts: ObstacleFacts): readonly string[] {
  const { Config, HostConfig } = inspected;
  const labels = Config.Labels ?? {};
  const problem = failoverProblem(labels);
  return [
    ...(Object.hasOwn(labels, swarmTaskLabel) ? ['a task of a Swarm service: Swarm itself moves it'] : []),
    ...(problem === null ? [] : [problem]),
    ...(HostConfig.AutoRemove ? ['--rm: Docker removes the container when it stops'] : []),
    ...mountObstacles(inspected),
    ...(HostConfig.Devices ?? []).map(({ PathOnHost }) => `--device ${PathOnHost}: the device is this host's`),
    ...limits.flatMap(([option, of]) =>
      (of(HostConfig) ?? []).map(({ Path }) => `--${option} ${Path}: the device is this host's`),
    ),
    ...((HostConfig.DeviceRequests ?? []).length > 0 ? ["--gpus: the devices are this host's"] : []),
    ...sharedWith(inspected),
    ...networkObstacles(inspected, facts),
    ...(HostConfig.Links ?? [])
      .map((link) => facts.nameOf(firstPart(link)))
      .filter((name) => !facts.isWorkload(name))
      // As with the mounts.
      .toSorted()
      .map((name) => `--link ${name}: flock does not look after that container`),
  ];
}

export type ObstacleFacts = {
  /** The user-defined networks of this host, by name; one that is not there is gone. */
  readonly networks: ReadonlyMap<string, { readonly Driver: string }>;
  /** The name of a container that was named so (by name or id) with `--volumes-from` or `--link`. */
  readonly nameOf: (text: string) => string;
  /** Whether flock looks after the container of this name, too. */
  readonly isWorkload: (name: string) => boolean;
};

/** Of a container that Docker runs as part of a Swarm service: Swarm alone starts and replaces it. */
export const swarmTaskLabel = 'com.docker.swarm.task.id';

type LimitedDevices = InspectedWorkload['HostConfig']['BlkioWeightDevice'];
/** Options that name block devices, which Docker looks up when it starts the container. */
const limits: readonly (readonly [string, (host: InspectedWorkload['HostConfig']) => LimitedDevices])[] = [
  ['blkio-weight-device', (host) => host.BlkioWeightDevice],
  ['device-read-bps', (host) => host.BlkioDeviceReadBps],
  ['device-write-bps', (host) => host.BlkioDeviceWriteBps],
  ['device-read-iops', (host) => host.BlkioDeviceReadIOps],
  ['device-write-iops', (host) => host.BlkioDeviceWriteIOps],
];

/** The same on every host, as far as containers care. */
const everywhere: ReadonlySet<string> = new Set(['/etc/localtime', '/etc/timezone']);
const movable: ReadonlySet<string> = new Set(['bridge', 'overlay', 'host', 'null']);

/** In one order: Docker has none, and what changed with each of its answers would be written to the store again and again. */
function mountObstacles({ Mounts }: InspectedWorkload): readonly string[] {
  const sorted = (Mounts ?? []).toSorted((a, b) => (a.Destination < b.Destination ? -1 : 1));
  return sorted.flatMap(({ Type, Name, Source, Destination, Driver, RW }) => {
    if (Type === 'tmpfs' || isFlockDriver(Driver)) return [];
    if (Type === 'bind')
      return everywhere.has(Source) && !RW ? [] : [`-v ${Source}:${Destination}: the path is on this host only`];
    if (Type !== 'volume') return [`--mount type=${Type},target=${Destination}: it is on this host only`];
    if (/^[0-9a-f]{64}$/.test(Name ?? ''))
      return [
        `-v ${Destination}: an anonymous volume (of the command line or the image's VOLUME) is on this host only`,
      ];
    return [`-v ${Name}:${Destination}: the volume's driver ${Driver} keeps it on this host`];
  });
}

function sharedWith({ HostConfig: { NetworkMode, PidMode, IpcMode } }: InspectedWorkload): readonly string[] {
  return Object.entries({ network: NetworkMode, pid: PidMode, ipc: IpcMode })
    .filter(([, mode]) => mode.startsWith('container:'))
    .map(([option, mode]) => `--${option} ${mode.slice(0, sharedCharacters)}: the other container is on this host`);
}

/** `container:` and a short id. */
const sharedCharacters = 22;

function networkObstacles({ NetworkSettings }: InspectedWorkload, { networks }: ObstacleFacts): readonly string[] {
  return Object.keys(NetworkSettings.Networks ?? {}).flatMap((name) => {
    if (ownNetworks.has(name)) return [];
    const network = networks.get(name);
    if (network === undefined) return [`--network ${name}: there is no such network on this host any more`];
    return movable.has(network.Driver) ? [] : [`--network ${name}: its driver ${network.Driver} ties it to this host`];
  });
}

/** Docker makes these itself, on every host. */
export const ownNetworks: ReadonlySet<string> = new Set(['bridge', 'host', 'none']);

/** `NAME` of `NAME:ro`, and of `/NAME:/other/alias`. */
export function firstPart(text: string): string {
  return (text.replace(/^\//, '').split(':')[0] ?? '').trim();
}
