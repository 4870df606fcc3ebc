import { z } from 'zod';
import { eventSchema } from './events.ts';
import { moveSchema } from './move.ts';

/** What the controller's REST API answers and `flockctl` reads. Times are milliseconds since 1970, durations milliseconds. */

const time = z.number().nonnegative();
const count = z.int().nonnegative();

export const workloadView = z.object({
  id: z.string(),
  name: z.string(),
  service: z.string().nullable(),
  node: z.string(),
  epoch: count,
  wanted: z.enum(['running', 'stopped']),
  failover: z.enum(['auto', 'manual', 'none']),
  volumes: z.array(z.string()),
  obstacles: z.array(z.string()),
  /** The move that it is part of. */
  move: z.string().nullable(),
});
export type WorkloadView = z.infer<typeof workloadView>;

export const moveView = moveSchema;

/** What a move would do. `bytes`: what it would send, null where that can't be told; `obstacles`: why it would be refused. */
export const movePlanView = z.object({
  service: z.string(),
  from: z.string(),
  to: z.string(),
  /** `published`: ports of the host that lead to it, such as `8080/tcp`. `bringsImage`: the target does not have it yet. */
  containers: z.array(
    z.object({
      name: z.string(),
      image: z.string(),
      bringsImage: z.boolean().default(false),
      published: z.array(z.string()).default([]),
    }),
  ),
  volumes: z.array(z.object({ name: z.string(), hasCopy: z.boolean(), bytes: count.nullable() })),
  services: z.array(z.string()),
  obstacles: z.array(z.string()),
  /** What keeps nobody from moving it, and is good to know. */
  warnings: z.array(z.string()).default([]),
});
export type MovePlanView = z.infer<typeof movePlanView>;

/** The answer to a request for a move: what it would do, and with `dryRun` nothing else. */
export const movedView = z.object({ plan: movePlanView, move: moveView.nullable() });

export const moveBody = z.strictObject({
  /** A service's or a container's name. */
  service: z.string(),
  node: z.string(),
  dryRun: z.boolean().default(false),
  prepareMs: count.optional(),
  copyMs: count.optional(),
  pauseMs: count.optional(),
  drainMs: count.optional(),
});

export const abortBody = z.strictObject({ reason: z.string().max(200).default('a person asked for it') });

/** `cursor`: give it as `after` to get what is written next, however old its time is. */
export const eventsView = z.object({ events: z.array(eventSchema), cursor: z.string() });
export type EventsView = z.infer<typeof eventsView>;

/** What is still on a node that is being drained. */
export const drainNodeView = z.object({
  node: z.string(),
  draining: z.boolean(),
  /** By a person, beside the draining. */
  cordoned: z.boolean().default(false),
  startedAtMs: time.nullable(),
  containers: z.array(z.object({ name: z.string(), state: z.string() })),
  volumes: z.array(z.object({ name: z.string(), state: z.string() })),
  /** Copies of other nodes' volumes that have to be made elsewhere. */
  copies: z.array(z.string()),
  problems: z.array(z.string()),
  /** What a drain leaves there: no reason against a reboot, but against "node rm". */
  stays: z.array(z.string()).default([]),
  /** Nothing has to leave any more: the node may be rebooted. */
  done: z.boolean(),
});
export type DrainNodeView = z.infer<typeof drainNodeView>;
