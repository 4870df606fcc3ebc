import { firstPart, type ObstacleFacts, obstaclesOf } from './container-obstacles.ts';
import { type InspectedNetwork, type InspectedWorkload, isFlockDriver } from './inspected.ts';
import { isVolumeName, type VolumeName } from './names.ts';
import { type ContainerSpec, specBytesMax, type WorkloadDoc, type WorkloadId } from './workload.ts';
import { failoverOf, portsOf, serviceOf } from './workload-labels.ts';

/** What a workload's document says of its container, as Docker describes it. */
export type Described = Pick<WorkloadDoc, 'name' | 'service' | 'failover' | 'spec' | 'after' | 'obstacles'> & {
  /** Names of its flock volumes, sorted, each once. */
  readonly volumes: readonly VolumeName[];
};

/** What the container's own description does not say. */
export type SpecFacts = Omit<ObstacleFacts, 'networks'> & {
  readonly networks: ReadonlyMap<string, InspectedNetwork>;
  /** Of this host, as Docker gives it to containers on the host's network. */
  readonly hostName: string;
  /** Ports of a service that links of other containers lead to. */
  readonly linkedPorts: (service: string) => readonly number[];
};

/**
 * Which workload a container that flock has made was made for. Such a container is never taken for a new workload. Not below "flock.":
 * those labels are the users'.
 */
export const workloadLabel = 'flock-workload';

/**
 * When the first container of its workload was made, in ms since 1970, and the name of the container that this is said of: people copy
 * labels (`docker commit`). Of two claims to one route or link the older one keeps it: by Docker's word a move would make the older one the
 * younger one, and its clients would get to another service.
 */
export const createdLabel = 'flock-created';

type CreatedFacts = {
  readonly Created: string;
  readonly Name: string;
  readonly Config: { readonly Labels?: Readonly<Record<string, string>> | null | undefined };
};

const createdText = ({ createdAtMs, name }: { readonly createdAtMs: number; readonly name: string }) =>
  `${createdAtMs} ${name}`;

/** When the first container of its workload was made, in ms since 1970; for one that flock has not made, when it was itself. Pure. */
export function createdAtMsOf({ Created, Name, Config }: CreatedFacts): number {
  const own = Math.max(0, Date.parse(Created) || 0);
  const [, ms = '', name = ''] = /^(\d{1,15}) (.+)$/.exec(Config.Labels?.[createdLabel] ?? '') ?? [];
  return name === Name.replace(/^\//, '') ? Math.min(own, Number(ms)) : own;
}

export function describeContainer(inspected: InspectedWorkload, facts: SpecFacts): Described {
  const labels = inspected.Config.Labels ?? {};
  const service = serviceOf(labels);
  const after = [...(inspected.HostConfig.VolumesFrom ?? []), ...(inspected.HostConfig.Links ?? [])]
    .map((text) => facts.nameOf(firstPart(text)))
    .toSorted();
  const spec = specOf(inspected, facts, service);
  const bytes = new TextEncoder().encode(JSON.stringify(spec)).length;
  const isTooLarge = bytes > specBytesMax;
  const obstacles = [
    ...obstaclesOf(inspected, facts),
    ...(isTooLarge
      ? [`-e, -l: environment, labels and options take ${bytes} bytes, of which flock can keep ${specBytesMax}`]
      : []),
  ];
  return {
    name: inspected.Name.replace(/^\//, ''),
    service,
    failover: failoverOf(labels),
    spec: isTooLarge ? { ...spec, create: {}, networks: {}, networksNeeded: {} } : spec,
    after: [...new Set(after)],
    obstacles,
    volumes: volumeNamesOf(inspected),
  };
}

/** Whether flock looks after this container: it has a flock volume, or labels of flock. */
export function isOurs(labels: Readonly<Record<string, string>>, volumeDrivers: readonly string[]): boolean {
  return Object.keys(labels).some((label) => label.startsWith('flock.')) || volumeDrivers.some(isFlockDriver);
}

/** The body of `POST /containers/create`. `image`: a name or an id, whatever means the image on this host. */
export function createBodyOf(
  spec: ContainerSpec,
  made: { readonly workload: WorkloadId; readonly createdAtMs: number; readonly name: string; readonly image: string },
): Readonly<Record<string, unknown>> {
  const labels = spec.create['Labels'];
  const own = { [workloadLabel]: made.workload, [createdLabel]: createdText(made) };
  return {
    ...spec.create,
    Image: made.image,
    Labels: { ...(typeof labels === 'object' ? labels : {}), ...own },
  };
}

function volumeNamesOf({ Mounts }: InspectedWorkload): readonly VolumeName[] {
  const names = (Mounts ?? []).filter(({ Driver }) => isFlockDriver(Driver)).map(({ Name }) => Name);
  return [...new Set(names.filter(isVolumeName))].toSorted();
}

function specOf(inspected: InspectedWorkload, facts: SpecFacts, service: string | null): ContainerSpec {
  const { Config } = inspected;
  const { mode, main, others } = networksOf(inspected);
  const needed = [main, ...Object.keys(others)].flatMap((name) => {
    const network = name === null ? undefined : facts.networks.get(name);
    return network === undefined || network.Driver !== 'bridge' ? [] : [[network.Name, networkBody(network)] as const];
  });
  const ports = [...portsOf(Config.Labels ?? {}), ...(service === null ? [] : facts.linkedPorts(service))];
  return {
    image: Config.Image,
    imageId: inspected.Image,
    create: {
      ...configOf(inspected, facts),
      HostConfig: hostConfigOf(inspected, facts, mode),
      ...(main === null ? {} : { NetworkingConfig: { EndpointsConfig: { [main]: endpointOf(inspected, main) } } }),
    },
    networks: others,
    networksNeeded: Object.fromEntries(needed),
    ports: [...new Set(ports)].toSorted((a, b) => a - b),
    stopSeconds: stopSecondsOf(Config.StopTimeout ?? stopSecondsDefault),
  };
}

const stopSecondsDefault = 10;
/** Longer than any pause; timers of a Node.js process end before 25 days. */
const stopSecondsMax = 86_400;

/** Below 0 (`--stop-timeout -1`) Docker is never to kill the container, whatever its stopping takes. */
function stopSecondsOf(asked: number): number {
  return asked < 0 ? stopSecondsMax : Math.min(asked, stopSecondsMax);
}

/**
 * `main`: the user-defined network that the container is made in; null: one of Docker's own. `others`: further ones, with endpoints. One that
 * it was made in and people have taken it out of (`docker network disconnect`) is neither, if there is another: it would be in that again.
 * `mode`: of the HostConfig.
 */
function networksOf(inspected: InspectedWorkload): {
  readonly mode: string;
  readonly main: string | null;
  readonly others: Readonly<Record<string, unknown>>;
} {
  const mode = inspected.HostConfig.NetworkMode;
  if (mode === 'host' || mode === 'none' || mode.startsWith('container:')) return { mode, main: null, others: {} };
  const networks = Object.entries(inspected.NetworkSettings.Networks ?? {});
  const own = mode === 'default' || mode === 'bridge';
  const asked = own ? 'bridge' : mode;
  const found = networks.find(([name, { NetworkID }]) => name === asked || NetworkID === asked) ?? networks[0];
  const made = found?.[0] ?? asked;
  const main = made === 'bridge' ? null : made;
  const others = networks.map(([name]) => name).filter((name) => name !== made);
  return {
    mode: own && main === null ? mode : made,
    main,
    others: Object.fromEntries(others.map((name) => [name, endpointOf(inspected, name)])),
  };
}

/**
 * What was asked for, without what Docker has given: addresses, its own aliases. No MacAddress: Docker shows there the one in use, be it
 * asked for or made up (since 28 by chance), and none while the container does not run. One that was asked for is in `Config`, see there.
 */
function endpointOf(inspected: InspectedWorkload, network: string): Readonly<Record<string, unknown>> {
  const { IPAMConfig, Aliases, Links, DriverOpts, GwPriority } = inspected.NetworkSettings.Networks?.[network] ?? {};
  // Of the id only as Docker shortens it: `db` and `be` are how ids begin, too.
  const aliases = (Aliases ?? []).filter((alias) => alias !== inspected.Id.slice(0, idCharacters));
  return {
    ...(IPAMConfig == null || Object.keys(IPAMConfig).length === 0 ? {} : { IPAMConfig }),
    ...(aliases.length === 0 ? {} : { Aliases: aliases.toSorted() }),
    ...(Links == null || Links.length === 0 ? {} : { Links }),
    ...(DriverOpts == null || Object.keys(DriverOpts).length === 0 ? {} : { DriverOpts }),
    ...(GwPriority ? { GwPriority } : {}),
  };
}

const idCharacters = 12;

function networkBody(network: InspectedNetwork): Readonly<Record<string, unknown>> {
  const { Name, Driver, EnableIPv4, EnableIPv6, Internal, Attachable, IPAM, Options, Labels } = network;
  return {
    ...{ Name, Driver, EnableIPv6, Internal, Attachable },
    // Before Docker 28 there is no network without.
    ...(EnableIPv4 === false ? { EnableIPv4 } : {}),
    // Before Docker 25 there can be two networks of one name.
    CheckDuplicate: true,
    IPAM: { Driver: IPAM?.Driver ?? 'default', Options: IPAM?.Options ?? {}, Config: IPAM?.Config ?? [] },
    Options: Options ?? {},
    Labels: Labels ?? {},
  };
}

/**
 * `Config`, without what is the image's, this one container's, or only good once. `MacAddress` is what was asked for: Docker 25 to 28 keep
 * it with the first network, and answer and take it here all the same where no version of the API is named; 29 does neither.
 */
function configOf(
  { Config, HostConfig }: InspectedWorkload,
  { hostName }: SpecFacts,
): Readonly<Record<string, unknown>> {
  const { Image: _image, OnBuild: _onBuild, Hostname, MacAddress, Labels, Entrypoint, ...rest } = Config;
  const { [workloadLabel]: _workload, [createdLabel]: _created, ...labels } = Labels ?? {};
  // Also where Docker chose it: programs keep their data under it (RabbitMQ), or say it to others. Not the host's.
  const isTheHosts = HostConfig.UTSMode === 'host' || (HostConfig.NetworkMode === 'host' && Hostname === hostName);
  const isItsOwn = Hostname !== '' && !isTheHosts;
  return {
    ...rest,
    ...(isItsOwn ? { Hostname } : {}),
    ...(MacAddress ? { MacAddress } : {}),
    Labels: labels,
    // null would mean the image's.
    Entrypoint: Entrypoint ?? [],
  };
}

function hostConfigOf(inspected: InspectedWorkload, facts: SpecFacts, mode: string): Readonly<Record<string, unknown>> {
  const {
    ContainerIDFile: _file,
    VolumesFrom: _from,
    VolumeDriver: _driver,
    Binds,
    Mounts,
    Links,
    Ulimits,
    ...rest
  } = inspected.HostConfig;
  return {
    ...rest,
    // With the daemon's own (default-ulimits), in another order each time that Docker is asked, as are the links.
    Ulimits: Ulimits?.toSorted((a, b) => (a.Name < b.Name ? -1 : 1)) ?? null,
    NetworkMode: mode,
    Binds: [...(Binds ?? []).filter((bind) => bind.startsWith('/')), ...bindsFromOthers(inspected)],
    Mounts: [...(Mounts ?? []).filter(({ Type }) => Type !== 'volume'), ...flockMountsOf(inspected)],
    Links: (Links ?? []).map((link) => linkOf(link, facts)).toSorted(),
  };
}

/** Paths that are the same everywhere, of containers named with `--volumes-from`. */
function bindsFromOthers({ Mounts, HostConfig }: InspectedWorkload): readonly string[] {
  if ((HostConfig.VolumesFrom ?? []).length === 0) return [];
  const own = [
    ...(HostConfig.Binds ?? []).map((bind) => bind.split(':')[1] ?? ''),
    ...(HostConfig.Mounts ?? []).map(({ Target }) => Target),
  ].map(cleaned);
  return (Mounts ?? [])
    .filter(({ Type, Destination }) => Type === 'bind' && !own.includes(Destination))
    .map(({ Source, Destination, RW }) => `${Source}:${Destination}${RW ? '' : ':ro'}`)
    .toSorted();
}

/**
 * Every flock volume, wherever it came from, with its driver: without it Docker would make an empty local volume of that name where the
 * plugin does not answer. No copying from the image: that would mount the volume before the container starts.
 */
function flockMountsOf({ Mounts, HostConfig }: InspectedWorkload): readonly Readonly<Record<string, unknown>>[] {
  return (Mounts ?? [])
    .filter(({ Driver }) => isFlockDriver(Driver))
    .toSorted((a, b) => (a.Destination < b.Destination ? -1 : 1))
    .map(({ Name, Destination, Driver, RW }) => {
      // Docker shows the destination cleaned, and what was asked for as it was.
      const asked = HostConfig.Mounts?.find(({ Target }) => cleaned(Target) === Destination);
      const subpath = asked?.VolumeOptions?.Subpath;
      return {
        Type: 'volume',
        Source: Name,
        Target: Destination,
        ReadOnly: !RW,
        VolumeOptions: { NoCopy: true, DriverConfig: { Name: Driver }, ...(subpath ? { Subpath: subpath } : {}) },
      };
    });
}

function cleaned(path: string): string {
  return `/${path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')}`;
}

/** Docker shows `/db:/web/alias` of what was given as `db:alias`. */
function linkOf(link: string, facts: SpecFacts): string {
  return `${facts.nameOf(firstPart(link))}:${link.slice(link.lastIndexOf('/') + 1)}`;
}
