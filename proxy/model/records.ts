import { z } from 'zod';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import {
  type HostPattern,
  type PathPrefix,
  parseHostPattern,
  parseIp,
  parsePathPrefix,
  parseServiceName,
  type ServiceName,
} from './names.ts';

/** What routes and links lead to. */
export type ServiceDoc = {
  readonly name: ServiceName;
  readonly createdAtMs: number;
  readonly balance: Balance;
  /** Runs in one place at a time; its requests never go to two containers. */
  readonly stateful: boolean;
  /** While it is set, gates hold what is new. `id` tells one pause from the next; it ends by itself at `untilMs` (wall clock). */
  readonly pause: Pause | null;
};

export type Balance = 'round-robin' | 'least-connections';
/** `drain`: proxies wait until then (wall clock) for what is in flight, and then end the service's tunnels. */
export type Pause = { readonly id: string; readonly untilMs: number; readonly drain: PauseDrain | null };
export type PauseDrain = { readonly untilMs: number; readonly tunnels: DrainTunnels };
/** `leave`: tunnels are neither waited for nor ended; whoever stops the containers does that. */
export type DrainTunnels = 'wait' | 'leave';

/** A public address that leads to port `targetPort` of a service's containers. */
export type RouteDoc = {
  readonly id: string;
  readonly service: ServiceName;
  readonly createdAtMs: number;
  readonly entrance: Entrance;
  readonly targetPort: number;
};

export type Entrance =
  | { readonly protocol: 'http'; readonly host: HostPattern; readonly port: number; readonly path: PathPrefix }
  | {
      readonly protocol: 'https';
      readonly host: HostPattern;
      readonly port: number;
      readonly path: PathPrefix;
      /** The name of the certificate in the store or the certificate folder. */
      readonly certificate: string;
    }
  /** TLS that the service ends itself; the name in the client's hello picks it. */
  | {
      readonly protocol: 'tls';
      readonly host: HostPattern;
      readonly port: number;
      /** The service is told the client's address in a PROXY protocol v2 header before the first byte. */
      readonly proxyProtocol: boolean;
    }
  /** `address`: an address of the node, or `*` for all. */
  | { readonly protocol: 'tcp'; readonly address: string; readonly port: number; readonly proxyProtocol: boolean };

/** Inside container `client`, `localhost:port` and `host:port` reach `targetPort` of `service`. Nobody else sees it. */
export type LinkDoc = {
  readonly id: string;
  readonly client: string;
  readonly createdAtMs: number;
  readonly host: HostPattern | null;
  readonly port: number;
  readonly service: ServiceName;
  readonly targetPort: number;
  readonly place: LinkPlace;
};

/** Where a link begins: the node and the address of its container, and where on that node's side of the bridge it is led to first. */
export type LinkPlace = {
  readonly node: NodeName;
  readonly client: string;
  readonly gateway: string;
  readonly port: number;
};

/** One container of a service. */
export type UpstreamDoc = {
  readonly container: string;
  readonly service: ServiceName;
  readonly node: NodeName;
  readonly startedAtMs: number;
  readonly healthy: boolean;
  /** Not yet healthy: used while its service has no healthy one. */
  readonly starting?: boolean | undefined;
  /** Where its own node reaches the container. */
  readonly address: string;
  /** Where other nodes reach it: an address of its node, and the inner port there for each port of the container. */
  readonly inner: { readonly address: string; readonly ports: Readonly<Record<string, number>> };
};

/** Everything that the table is built from. `generation` grows with every change of any of it. */
export type ProxyRecords = {
  readonly generation: number;
  readonly services: readonly ServiceDoc[];
  readonly routes: readonly RouteDoc[];
  readonly links: readonly LinkDoc[];
  readonly upstreams: readonly UpstreamDoc[];
  /** Addresses of all nodes: their proxies may use inner ports. */
  readonly peers: readonly string[];
};

const port = z.int().min(1).max(65_535);
const timeMs = z.number().nonnegative();
const id = z.string().min(1).max(200);
const serviceName = z.string().transform(parseServiceName);
const host = z.string().transform(parseHostPattern);
const path = z.string().transform(parsePathPrefix);
const ip = z.string().refine((text) => parseIp(text) !== null, 'not an IP address');

export const drainTunnels = ['wait', 'leave'] as const satisfies readonly DrainTunnels[];
export const balances = ['round-robin', 'least-connections'] as const;
/** Names of certificates become names of files. */
export const certificateName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'use up to 63 lower-case letters, digits, dots, underscores or hyphens');

export const pauseSchema: z.ZodType<Pause> = z.object({
  id,
  untilMs: timeMs,
  // Documents of before there was a choice have none.
  drain: z.object({ untilMs: timeMs, tunnels: z.enum(drainTunnels).default('wait') }).nullable(),
});

export const serviceSchema: z.ZodType<ServiceDoc> = z.object({
  name: serviceName,
  createdAtMs: timeMs,
  balance: z.enum(balances),
  stateful: z.boolean(),
  pause: pauseSchema.nullable(),
});

export const entranceSchema: z.ZodType<Entrance> = z.discriminatedUnion('protocol', [
  z.object({ protocol: z.literal('http'), host, port, path }),
  z.object({ protocol: z.literal('https'), host, port, path, certificate: certificateName }),
  z.object({ protocol: z.literal('tls'), host, port, proxyProtocol: z.boolean() }),
  z.object({ protocol: z.literal('tcp'), address: z.union([z.literal('*'), ip]), port, proxyProtocol: z.boolean() }),
]);

export const routeSchema: z.ZodType<RouteDoc> = z.object({
  id,
  service: serviceName,
  createdAtMs: timeMs,
  entrance: entranceSchema,
  targetPort: port,
});

export const linkSchema: z.ZodType<LinkDoc> = z.object({
  id,
  client: id,
  createdAtMs: timeMs,
  host: host.nullable(),
  port,
  service: serviceName,
  targetPort: port,
  place: z.object({ node: z.string().transform(parseNodeName), client: ip, gateway: ip, port }),
});

export const upstreamSchema: z.ZodType<UpstreamDoc> = z.object({
  container: id,
  service: serviceName,
  node: z.string().transform(parseNodeName),
  startedAtMs: timeMs,
  healthy: z.boolean(),
  starting: z.boolean().optional(),
  address: ip,
  inner: z.object({ address: ip, ports: z.record(z.string(), port) }),
});

/** Reads what a record's text holds. Throws a ZodError for another shape, a FlockError for a bad name, a SyntaxError for no JSON. */
export function decode<T>(schema: z.ZodType<T>, text: string): T {
  return schema.parse(JSON.parse(text));
}
