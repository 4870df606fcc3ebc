import { z } from 'zod';
import { type NodeName, parseNodeName } from '../../controller/model/names.ts';
import { type HostPattern, parseHostPattern, parseIp, parseServiceName, type ServiceName } from './names.ts';
import { certificateName, type Pause, pauseSchema } from './records.ts';

/**
 * What proxies and flockctl keep in the store:
 *
 *     proxy/containers/NODE/ID    ContainerDoc, written by the node's proxy only
 *     proxy/nodes/NODE            ProxyNodeDoc, written by the node's proxy only
 *     proxy/routes/ID             RouteDoc, made by flockctl
 *     proxy/links/ID              StoredLink, made by flockctl
 *     proxy/services/NAME         ServiceSettings, made by flockctl
 *     proxy/certificates/NAME     StoredCertificate, made by flockctl
 */
export const proxyKeys = {
  containers: 'proxy/containers',
  container: (node: NodeName, id: string) => `proxy/containers/${node}/${id}`,
  nodes: 'proxy/nodes',
  node: (name: NodeName) => `proxy/nodes/${name}`,
  routes: 'proxy/routes',
  route: (id: string) => `proxy/routes/${id}`,
  links: 'proxy/links',
  link: (id: string) => `proxy/links/${id}`,
  services: 'proxy/services',
  service: (name: ServiceName) => `proxy/services/${name}`,
  certificates: 'proxy/certificates',
  certificate: (name: string) => `proxy/certificates/${name}`,
} as const;

/** What people have made: it goes along when a host becomes a member of a cluster. */
export const madeByPeople = [proxyKeys.routes, proxyKeys.links, proxyKeys.services, proxyKeys.certificates] as const;

/** A link whose container is known by its name or its id: it holds for each container that is called so, now or later. */
export type StoredLink = {
  readonly id: string;
  readonly container: string;
  readonly createdAtMs: number;
  readonly host: HostPattern;
  readonly port: number;
  readonly service: ServiceName;
  readonly targetPort: number;
};

export type ServiceSettings = { readonly name: ServiceName; readonly pause: Pause | null };

/** PEM texts: the chain, leaf first, and its key. */
export type StoredCertificate = {
  readonly name: string;
  readonly createdAtMs: number;
  readonly certificate: string;
  readonly key: string;
};

/** What a node's proxy serves. Times are the node's wall clock. */
export type ProxyNodeDoc = {
  readonly name: NodeName;
  /** Where connections of this node come from and go to. */
  readonly address: string;
  readonly version: string;
  readonly startedAtMs: number;
  /** Ids of the pauses that hold here: nothing new reaches their services through this node. */
  readonly pauses: readonly string[];
  readonly drains: readonly DrainReport[];
  /** By listener or layer: what does not work on this node. */
  readonly problems: Readonly<Record<string, string>>;
};

/** What was left of a service when the drain's time was over, and how many tunnels were ended then. */
export type DrainReport = {
  readonly pause: string;
  /** Of the drain that was asked for: it tells one from the next. */
  readonly untilMs: number;
  readonly requests: number;
  readonly tunnels: number;
  readonly tunnelsClosed: number;
};

const port = z.int().min(1).max(65_535);
const timeMs = z.number().nonnegative();
const count = z.int().nonnegative();
const id = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/);
const text = z.string().max(4096);
const service = z.string().transform(parseServiceName);

export const storedLinkSchema: z.ZodType<StoredLink> = z.object({
  id,
  container: z.string().min(1).max(200),
  createdAtMs: timeMs,
  host: z.string().transform(parseHostPattern),
  port,
  service,
  targetPort: port,
});

export const serviceSettingsSchema: z.ZodType<ServiceSettings> = z.object({
  name: service,
  pause: pauseSchema.nullable(),
});

export const storedCertificateSchema: z.ZodType<StoredCertificate> = z.object({
  name: certificateName,
  createdAtMs: timeMs,
  certificate: z.string(),
  key: z.string(),
});

export const proxyNodeSchema: z.ZodType<ProxyNodeDoc> = z.object({
  name: z.string().transform(parseNodeName),
  address: z.string().refine((value) => parseIp(value) !== null, 'not an IP address'),
  version: text,
  startedAtMs: timeMs,
  pauses: z.array(text),
  drains: z.array(z.object({ pause: text, untilMs: timeMs, requests: count, tunnels: count, tunnelsClosed: count })),
  problems: z.record(z.string(), text),
});
