import { z } from 'zod';
import { placedSchema, placesOf } from '../../controller/model/container-address.ts';
import { createdAtMsOf } from '../../controller/model/container-spec.ts';
import { isFlockDriver } from '../../controller/model/inspected.ts';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { type Declared, type LabelProblem, readLabels } from './labels.ts';
import { parseHostPattern, parseIp, parseServiceName } from './names.ts';
import { balances, entranceSchema } from './records.ts';

/**
 * What a node's proxy says in the store of one of its containers, at `proxy/containers/NODE/ID`. Only that proxy writes it; it goes
 * with the container, not when that stops.
 */
export type ContainerDoc = ContainerFacts & {
  readonly node: NodeName;
  /** Where other nodes reach it: an address of its node, and the inner port there by port of the container. */
  readonly inner: { readonly address: string; readonly ports: Readonly<Record<string, number>> };
  /** Where on the bridge's address its links begin, by port inside the container. */
  readonly linkPorts: Readonly<Record<string, number>>;
};

/** What Docker says of a container that has labels of flock, or a link made by flockctl. */
export type ContainerFacts = {
  readonly id: string;
  readonly name: string;
  /** Of one that flock has made in another's place: when the first of them was made. */
  readonly createdAtMs: number;
  /** 0: never. */
  readonly startedAtMs: number;
  /** Docker's word: running, paused, exited ... */
  readonly state: string;
  /** Runs and, where it has a health check, has passed it; where it has none, its ports have taken connections. */
  readonly healthy: boolean;
  /** Runs, and its health check has not said anything yet, or its ports take no connections yet. */
  readonly starting?: boolean | undefined;
  /** Of one that is starting without a health check: the ports that it takes no connections at yet, ascending. Absent: none. */
  readonly closedPorts?: readonly number[] | undefined;
  /** It has a flock volume. Absent: no. */
  readonly hasVolume?: boolean | undefined;
  /** Where its node reaches it; null while it has no network. */
  readonly address: string | null;
  /** The node's address on the container's bridge; null where links can't begin, `problems` says why. */
  readonly gateway: string | null;
  readonly declared: Declared;
  readonly problems: readonly LabelProblem[];
};

/** Facts that only this node can use: they are not in the store. */
export type LocalContainer = {
  readonly facts: ContainerFacts;
  /** A health check says how it is. */
  readonly hasCheck: boolean;
  /** Of its first process; null while it does not run. */
  readonly pid: number | null;
  /** Its /etc/hosts, as the host sees it. */
  readonly hostsPath: string | null;
};

/** Of Docker's answer to `GET /containers/ID/json`, what is used here. */
export const inspectedSchema = z.object({
  Id: z.string().regex(/^[0-9a-f]{64}$/),
  Name: z.string(),
  Created: z.string(),
  State: z.object({
    Status: z.string(),
    Pid: z.int().nonnegative().default(0),
    StartedAt: z.string(),
    Health: z.object({ Status: z.string() }).nullish(),
  }),
  Config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }),
  HostConfig: z.object({ NetworkMode: z.string().default('default') }),
  HostsPath: z.string().default(''),
  Mounts: z.array(z.object({ Driver: z.string().nullish() })).nullish(),
  NetworkSettings: z.object({
    Networks: z.record(z.string(), placedSchema).nullish(),
  }),
});
export type Inspected = z.infer<typeof inspectedSchema>;

export const labelPrefix = 'flock.';

/** Labels that the controller reads. */
const othersLabels = ['failover'];

/** Labels may be of any number and length; what is said of them has to fit into a document of the store. */
const problemsMax = 20;
const textCharactersMax = 1_000;

export function hasOurLabels(labels: Readonly<Record<string, string>> | null | undefined): boolean {
  return Object.keys(labels ?? {}).some((label) => label.startsWith(labelPrefix));
}

/** `nodeAddress`: where a container on the host's own network is reached. */
export function readContainer(inspected: Inspected, nodeAddress: string): LocalContainer {
  const { State: state, NetworkSettings, HostConfig } = inspected;
  const { declared, problems } = readLabels(inspected.Config.Labels ?? {}, othersLabels);
  const isRunning = state.Status === 'running';
  const health = state.Health?.Status ?? 'none';
  const place = placeOf(HostConfig.NetworkMode, NetworkSettings.Networks ?? {}, nodeAddress);
  const startedAtMs = Math.max(0, Date.parse(state.StartedAt) || 0);
  const noNetwork = isRunning && place.problem !== null ? linkAndRouteProblems(declared, place) : [];
  return {
    facts: {
      id: inspected.Id,
      name: inspected.Name.replace(/^\//, ''),
      createdAtMs: createdAtMsOf(inspected),
      startedAtMs,
      state: state.Status,
      healthy: isRunning && (health === 'none' || health === 'healthy') && place.address !== null,
      ...((inspected.Mounts ?? []).some(({ Driver }) => isFlockDriver(Driver)) ? { hasVolume: true } : {}),
      starting: isRunning && health === 'starting' && place.address !== null,
      address: state.Pid > 0 ? place.address : null,
      gateway: state.Pid > 0 ? place.gateway : null,
      declared,
      problems: [...problems, ...noNetwork]
        .slice(0, problemsMax)
        .map((one) => ({ label: one.label.slice(0, textCharactersMax), text: one.text.slice(0, textCharactersMax) })),
    },
    hasCheck: health !== 'none',
    pid: state.Pid > 0 ? state.Pid : null,
    // On another container's network it has that one's file, too: what is in there is not its own.
    hostsPath:
      inspected.HostsPath === '' || HostConfig.NetworkMode.startsWith('container:') ? null : inspected.HostsPath,
  };
}

type Place = { readonly address: string | null; readonly gateway: string | null; readonly problem: string | null };

function placeOf(mode: string, networks: NonNullable<Inspected['NetworkSettings']['Networks']>, host: string): Place {
  if (mode === 'host') {
    const problem = 'the container is on the host’s network, whose localhost belongs to the host: it can have no links';
    return { address: host, gateway: null, problem };
  }
  if (mode.startsWith('container:')) {
    const owner = mode.slice('container:'.length, 'container:'.length + 12);
    const problem = `the container uses the network of container ${owner}: give that one the labels`;
    return { address: null, gateway: null, problem };
  }
  const [first] = placesOf(mode, networks);
  const address = parseIp(first?.address ?? '');
  if (first === undefined || address === null)
    return { address: null, gateway: null, problem: 'the container has no network, so nobody can reach it' };
  const gateway = parseIp(first.gateway);
  const problem = gateway === null ? `its network ${first.name} has no address of the host: no links` : null;
  return { address, gateway, problem };
}

function linkAndRouteProblems(declared: Declared, { address, problem }: Place): readonly LabelProblem[] {
  const label = address === null && declared.service !== null ? 'flock.service' : declared.links[0]?.label;
  return label === undefined || problem === null ? [] : [{ label, text: `label ${label}: ${problem}` }];
}

const port = z.int().min(1).max(65_535);
const timeMs = z.number().nonnegative();
const text = z.string().max(4096);
const ip = z.string().refine((value) => parseIp(value) !== null, 'not an IP address');
const ports = z.record(z.string().regex(/^\d{1,5}$/), port);
const service = z.string().transform(parseServiceName);

const declaredSchema: z.ZodType<Declared> = z.object({
  service: service.nullable(),
  balance: z.enum(balances),
  stateful: z.boolean(),
  routes: z.array(z.object({ label: text, entrance: entranceSchema, targetPort: port })),
  links: z.array(
    z.object({ label: text, host: z.string().transform(parseHostPattern), port, service, targetPort: port }),
  ),
});

export const containerSchema: z.ZodType<ContainerDoc> = z.object({
  id: z.string().regex(/^[0-9a-f]{64}$/),
  name: text,
  createdAtMs: timeMs,
  startedAtMs: timeMs,
  state: text,
  healthy: z.boolean(),
  // Older proxies do not say it.
  starting: z.boolean().optional(),
  closedPorts: z.array(port).optional(),
  hasVolume: z.boolean().optional(),
  address: ip.nullable(),
  gateway: ip.nullable(),
  declared: declaredSchema,
  problems: z.array(z.object({ label: text, text })),
  node: z.string().transform(parseNodeName),
  inner: z.object({ address: ip, ports }),
  linkPorts: ports,
});
