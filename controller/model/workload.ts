import { z } from 'zod';
import {
  type DatasetId,
  type NodeName,
  parseDatasetId,
  parseNodeName,
  parseVolumeName,
  type VolumeName,
} from './names.ts';

/**
 * A container that flock looks after: one that mounts a flock volume or has labels of flock. What the store holds of it is enough to make
 * it again on another node:
 *
 *     workloads/ID       WorkloadDoc
 *
 * Written by the controller of `node` only, with two exceptions, both by compare-and-set: the commit of a move, and another node's
 * claim after `node` has died.
 */
export type WorkloadDoc = {
  readonly id: WorkloadId;
  /** What Docker calls the container; on any node at most one that is wanted there has it. */
  readonly name: string;
  /** The service that its routes and links lead to; null: it has none. */
  readonly service: string | null;
  readonly createdAtMs: number;
  /** Where it is to be. */
  readonly node: NodeName;
  /** Grows by one with each change of `node`. */
  readonly epoch: number;
  /** The container there; null: it is still to be made, from `spec`. */
  readonly containerId: string | null;
  /** `stopped`: a person stopped it, or it ended by itself as it should. */
  readonly wanted: 'running' | 'stopped';
  /** What happens when its node dies, where no volume says it (`flock.failover`). */
  readonly failover: 'auto' | 'manual' | 'none';
  readonly spec: ContainerSpec;
  /** Its flock volumes, without those that are mounted twice. */
  readonly volumes: readonly WorkloadVolume[];
  /** Names or ids of the containers that must run before it (`--volumes-from`, `--link`). */
  readonly after: readonly string[];
  /** What keeps it from being made on another node, for people; each names the option of `docker run`. */
  readonly obstacles: readonly string[];
  /** Containers of this workload that other nodes still have to put away, since it moved on without them. */
  readonly former: readonly FormerContainer[];
  /**
   * Flock has stopped its container, for a move that came to nothing, and Docker may take that for a person's wish: it is to be started
   * whatever Docker says of its end, unless it was started since this time (wall clock). Absent once it was seen running.
   */
  readonly stoppedByFlockAtMs?: number | undefined;
  /** The move that it is part of. */
  readonly move: string | null;
  readonly revision: number;
};

export type WorkloadId = string & { readonly workload: unique symbol };

export type WorkloadVolume = { readonly id: DatasetId; readonly name: VolumeName };

export type FormerContainer = {
  readonly node: NodeName;
  readonly containerId: string;
  /** `moved`: all of it is elsewhere, so it is removed. `left`: its node was dead, so it is kept, stopped, under another name. */
  readonly why: 'moved' | 'left';
};

/** What is needed to make the container again. */
export type ContainerSpec = {
  /** As the user named it, and what it was then: Docker's content-addressed id. */
  readonly image: string;
  readonly imageId: string;
  /** The bodies of Docker's API: `POST /containers/create` with its HostConfig, and the endpoints of its further networks. */
  readonly create: Readonly<Record<string, unknown>>;
  /** Networks that the container is connected to beside that of its HostConfig. */
  readonly networks: Readonly<Record<string, unknown>>;
  /** User-defined networks that must exist: made with this body of `POST /networks/create` where they do not. */
  readonly networksNeeded: Readonly<Record<string, unknown>>;
  /** Ports inside the container that routes or links lead to: it is ready when they take connections, and its health check has nothing against it. */
  readonly ports: readonly number[];
  /** Of `docker stop`, in seconds. */
  readonly stopSeconds: number;
};

export const workloadKeys = {
  workloads: 'workloads',
  workload: (id: WorkloadId) => `workloads/${id}`,
} as const;

/** A document of the store holds at most 128 KiB; a container with more than this of environment and labels can't be recorded. */
export const specBytesMax = 96 * 1024;

const record = z.record(z.string(), z.unknown());
const count = z.int().nonnegative();
const text = z.string();
const nodeName = z.string().transform(parseNodeName);
export const workloadIdSchema = z
  .string()
  .regex(/^[0-9a-f]{16}$/)
  .transform((id) => id as WorkloadId);
export const workloadVolumeSchema: z.ZodType<WorkloadVolume> = z.object({
  id: z.string().transform(parseDatasetId),
  name: z.string().transform(parseVolumeName),
});

export const specSchema: z.ZodType<ContainerSpec> = z.object({
  image: text,
  imageId: text,
  create: record,
  networks: record,
  networksNeeded: record,
  ports: z.array(z.int().min(1).max(65_535)),
  stopSeconds: count,
});

const workloadSchema: z.ZodType<WorkloadDoc> = z.object({
  id: workloadIdSchema,
  name: text,
  service: text.nullable(),
  createdAtMs: count,
  node: nodeName,
  epoch: count,
  containerId: text.nullable(),
  wanted: z.enum(['running', 'stopped']),
  failover: z.enum(['auto', 'manual', 'none']),
  spec: specSchema,
  volumes: z.array(workloadVolumeSchema),
  after: z.array(text),
  obstacles: z.array(text),
  former: z.array(z.object({ node: nodeName, containerId: text, why: z.enum(['moved', 'left']) })),
  stoppedByFlockAtMs: z.int().optional(),
  move: text.nullable(),
  revision: count,
});

/** Parses what JSON.stringify wrote, and throws on anything else. */
export function decodeWorkload(value: string): WorkloadDoc {
  return workloadSchema.parse(JSON.parse(value));
}

/** Of a container's first id: 64 hex digits, of which no two that ever meet have the same beginning. */
export function workloadIdFor(containerId: string): WorkloadId {
  return workloadIdSchema.parse(containerId.slice(0, 16));
}

/** On another node from now on. `containerId`: made there already; null: still to be made. */
export function placedOn(
  doc: WorkloadDoc,
  node: NodeName,
  containerId: string | null,
  why: FormerContainer['why'],
): WorkloadDoc {
  const old = doc.containerId === null ? [] : [{ node: doc.node, containerId: doc.containerId, why }];
  return {
    ...doc,
    node,
    epoch: doc.epoch + 1,
    containerId,
    former: [...doc.former.filter((one) => one.node !== node), ...old].slice(-formerMax),
    revision: doc.revision + 1,
  };
}

/** More moves than that while a node is away leave containers there that it has to find by their names. */
const formerMax = 16;
