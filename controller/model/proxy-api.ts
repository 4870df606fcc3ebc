import { z } from 'zod';

/** What the proxy's REST API answers and `flockctl` reads. Times are milliseconds since 1970, durations milliseconds. */

const time = z.number().nonnegative();
const count = z.int().nonnegative();
const port = z.int().min(1).max(65_535);
/** Whether a drain waits for tunnels and ends them when its time is over, or leaves them alone. */
const tunnels = z.enum(['wait', 'leave']);

export const originView = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('label'), label: z.string(), container: z.string(), node: z.string() }),
  z.object({ kind: z.literal('flockctl') }),
]);
export type OriginView = z.infer<typeof originView>;

export const routeView = z.object({
  id: z.string(),
  /** As people write it: http://www.example.com/shop. */
  address: z.string(),
  service: z.string(),
  port,
  /** Of https only. */
  certificate: z.string().nullable(),
  proxyProtocol: z.boolean(),
  origin: originView,
  createdAtMs: time,
  /** serving, paused, conflict, problem, no-container: as the asked node sees it. */
  state: z.string(),
  reason: z.string().nullable(),
});
export type RouteView = z.infer<typeof routeView>;

/** `id` of one that flockctl made is the same for every container that is called so. */
export const linkView = z.object({
  id: z.string(),
  container: z.string(),
  node: z.string().nullable(),
  /** What it is called inside the container, and the port there. */
  host: z.string(),
  port,
  service: z.string(),
  servicePort: port,
  origin: originView,
  createdAtMs: time,
  state: z.string(),
  reason: z.string().nullable(),
});
export type LinkView = z.infer<typeof linkView>;

/** What has been made; `notes`: what keeps it from working, or soon will. */
export const madeRouteView = z.object({ route: routeView, notes: z.array(z.string()) });
export type MadeRouteView = z.infer<typeof madeRouteView>;
export const madeLinkView = z.object({ link: linkView, notes: z.array(z.string()) });
export type MadeLinkView = z.infer<typeof madeLinkView>;

export const serviceView = z.object({
  name: z.string(),
  stateful: z.boolean(),
  balance: z.string(),
  /** `starting`: neither healthy nor known not to be; they serve while none is healthy. */
  containers: z.object({ total: count, healthy: count, starting: count.default(0) }),
  /** Where they are. */
  nodes: z.array(z.string()),
  routes: count,
  links: count,
  pause: z.object({ id: z.string(), untilMs: time, drain: z.object({ untilMs: time, tunnels }).nullable() }).nullable(),
  /** Through the asked node; null: not known. */
  inFlight: z.object({ requests: count, tunnels: count, held: count }).nullable(),
});
export type ServiceView = z.infer<typeof serviceView>;

/** What one node's proxy says of a pause. `problem`: why it may be late. */
export const pausedNodeView = z.object({ name: z.string(), done: z.boolean(), problem: z.string().nullable() });
export type PausedNodeView = z.infer<typeof pausedNodeView>;

/** What was left on a node when a drain's time was over. */
export const drainedNodeView = z.object({
  name: z.string(),
  requests: count,
  tunnels: count,
  /** Of the tunnels, how many were ended then. */
  tunnelsClosed: count,
});
export type DrainedNodeView = z.infer<typeof drainedNodeView>;

export const serviceDetailView = z.object({
  service: serviceView,
  containers: z.array(
    z.object({
      id: z.string(),
      name: z.string(),
      node: z.string(),
      /** Docker's word. */
      state: z.string(),
      /** The same for people, with what a running one waits for. Older proxies do not say it. */
      condition: z.string().optional(),
      healthy: z.boolean(),
      address: z.string().nullable(),
    }),
  ),
  routes: z.array(routeView),
  links: z.array(linkView),
  /** Whether each living node holds the pause; empty without one. */
  paused: z.array(pausedNodeView),
  drained: z.array(drainedNodeView),
  problems: z.array(z.string()),
});
export type ServiceDetailView = z.infer<typeof serviceDetailView>;

export const pauseView = z.object({
  service: z.string(),
  id: z.string(),
  untilMs: time,
  nodes: z.array(pausedNodeView),
});
export type PauseView = z.infer<typeof pauseView>;

export const drainView = z.object({ service: z.string(), untilMs: time, nodes: z.array(drainedNodeView) });
export type DrainView = z.infer<typeof drainView>;

/** `wasPaused`: false where there was nothing to release. */
export const releaseView = z.object({ service: z.string(), wasPaused: z.boolean(), nodes: z.array(pausedNodeView) });
export type ReleaseView = z.infer<typeof releaseView>;

/** Never with its key. */
export const certificateView = z.object({
  name: z.string(),
  /** Host names and addresses that it is for. */
  covers: z.array(z.string()),
  issuer: z.string(),
  validFromMs: time,
  validUntilMs: time,
  /** SHA-256 of the certificate, as browsers and openssl show it. */
  fingerprint: z.string(),
  /** Addresses of routes. */
  routes: z.array(z.string()),
  addedAtMs: time,
  notes: z.array(z.string()),
});
export type CertificateView = z.infer<typeof certificateView>;

const problem = z.object({ where: z.string(), text: z.string() });
export type ProblemOf = z.infer<typeof problem>;

export const proxyStatusView = z.object({
  nodes: z.array(
    z.object({
      name: z.string(),
      alive: z.boolean(),
      /** Null: no proxy has ever run there. */
      proxy: z
        .object({
          address: z.string(),
          version: z.string(),
          startedAtMs: time,
          pauses: count,
          problems: z.array(problem),
        })
        .nullable(),
    }),
  ),
  /** Of labels, services and links. */
  problems: z.array(problem),
});
export type ProxyStatusView = z.infer<typeof proxyStatusView>;

/** `force`: also where the service is not there yet. */
export const routeBody = z.strictObject({ route: z.string(), force: z.boolean().default(false) });
export const linkBody = z.strictObject({ container: z.string(), link: z.string(), force: z.boolean().default(false) });

/** How long one request or connection waits, however long the pause is: clients have given up by then. */
export const heldMsMax = 30_000;
/** A pause that is longer would keep clients waiting that have given up. */
export const pauseMsMax = 120_000;
const acknowledgeMs = 10_000;
const acknowledgeMsMax = 60_000;
const waitLimits = `waits at most ${acknowledgeMsMax / 1000}s for the nodes`;
const waitMs = z.int().min(0, waitLimits).max(acknowledgeMsMax, waitLimits).default(acknowledgeMs);
const pauseLimits = `a pause lasts from 1s to ${pauseMsMax / 1000}s`;
const drainLimits = `a drain lasts at most ${pauseMsMax / 1000}s`;

export const pauseBody = z.strictObject({
  forMs: z.int().min(1_000, pauseLimits).max(pauseMsMax, pauseLimits).default(30_000),
  /** How long all nodes may take to say that they hold it. */
  waitMs,
  /** Do not take back a pause that was not acknowledged in time. */
  keep: z.boolean().default(false),
  /** In place of the pause that there is. */
  extend: z.boolean().default(false),
});
export const drainBody = z.strictObject({
  forMs: z.int().min(0, drainLimits).max(pauseMsMax, drainLimits).default(10_000),
  tunnels: tunnels.default('wait'),
});
export const releaseBody = z.strictObject({ waitMs });
/** PEM texts. `key` null: it is in the same text. */
export const certificateBody = z.strictObject({
  name: z.string(),
  certificate: z.string(),
  key: z.string().nullable(),
});
