import { z } from 'zod';
import {
  type DatasetId,
  type NodeName,
  parseDatasetId,
  parseNodeName,
  parseVolumeName,
  type VolumeName,
} from './names.ts';
import type { VolumeOptions } from './options.ts';
import { volumeOptionsSchema } from './volume.ts';

/**
 * What the nodes of a cluster share through the store. Keys below `flock/` in Consul:
 *
 *     cluster            ClusterDoc
 *     nodes/NODE         NodeDoc: who is in the cluster, changed by people only
 *     alive/NODE         AliveDoc, locked by the node's session for as long as it lives; on its end the key stays, unlocked
 *     controllers/NODE   AliveDoc of its controller, locked in the same way by a session of that
 *     volumes/ID         VolumeDoc, locked by the session of its owner
 *     names/NAME         the ID of the volume that has the name
 *     space/NODE         SpaceDoc, about twice a minute at most; nobody watches it
 *     tokens/HASH        join tokens
 *
 * Progress and lag are no state: nodes tell each other, and whoever wants to see them asks.
 */
export type ClusterDoc = {
  readonly id: string;
  readonly createdAtMs: number;
  readonly profile: 'default' | 'fast';
  /** PEM. */
  readonly caCertificate: string;
};

export type NodeDoc = {
  readonly name: NodeName;
  /** Where its peers reach it: host or IP address, and port. */
  readonly address: string;
  readonly port: number;
  /** `dc` and `rack` are labels like any other; placement knows them. */
  readonly labels: Readonly<Record<string, string>>;
  /** It gets no new volumes and copies. */
  readonly cordoned: boolean;
  /** It is to be emptied: it may hold no copies, and its volumes are moved away. */
  readonly draining: boolean;
  /** Copies can only be exchanged between nodes of one format. */
  readonly format: StreamFormat;
  /** Nothing can be written to its pool, as it says itself: others may take its volumes though it lives. Absent: no. */
  readonly poolLost?: boolean | undefined;
  readonly joinedAtMs: number;
};

export type StreamFormat = 'zfs' | 'btrfs';

export type AliveDoc = {
  /** New with each start of the node's plugin, or controller. */
  readonly incarnation: string;
  readonly version: string;
};

export type SpaceDoc = { readonly sizeBytes: number; readonly freeBytes: number };

/** A volume as the cluster knows it. Only its owner changes it, in transactions that check the owner's session. */
export type VolumeDoc = {
  readonly id: DatasetId;
  readonly name: VolumeName;
  readonly createdAtMs: number;
  readonly options: VolumeOptions;
  readonly owner: NodeName;
  /** Grows by one with each change of owner; 1 at creation. */
  readonly epoch: number;
  /** The nodes that are to hold a copy, without the owner. */
  readonly replicas: readonly NodeName[];
  /** Grows with every change, so that no two values are the same and an old transaction that comes late fits nowhere. */
  readonly revision: number;
  readonly trashed: { readonly removedAtMs: number; readonly expiresAtMs: number } | null;
  /** Wall clock of the last time when a node took it by itself from a dead owner; absent: never. */
  readonly failedOverAtMs?: number | undefined;
  /** What the last epochs began with, oldest first; those of which that is not known have none. */
  readonly bases?: readonly Base[] | undefined;
};

/** A replication snapshot, by what its name says: everything of this epoch up to this time (and what the epoch itself began with). */
export type Reached = { readonly epoch: number; readonly timeMs: number };
/** The owner of the epoch `began` had nothing but this when it became the owner. */
export type Base = Reached & { readonly began: number };

export const keys = {
  cluster: 'cluster',
  nodes: 'nodes',
  node: (name: NodeName) => `nodes/${name}`,
  alives: 'alive',
  alive: (name: NodeName) => `alive/${name}`,
  volumes: 'volumes',
  volume: (id: DatasetId) => `volumes/${id}`,
  name: (name: VolumeName) => `names/${name}`,
  names: 'names',
  allRemoved: 'removed',
  removed: (id: DatasetId) => `removed/${id}`,
  controller: (name: NodeName) => `controllers/${name}`,
  controllers: 'controllers',
  space: (name: NodeName) => `space/${name}`,
  spaces: 'space',
  token: (hash: string) => `tokens/${hash}`,
  tokens: 'tokens',
} as const;

const count = z.int().nonnegative();
const nodeName = z.string().transform(parseNodeName);
const labels = z.record(z.string(), z.string());

const clusterSchema: z.ZodType<ClusterDoc> = z.object({
  id: z.string(),
  createdAtMs: count,
  profile: z.enum(['default', 'fast']),
  caCertificate: z.string(),
});

const nodeSchema: z.ZodType<NodeDoc> = z.object({
  name: nodeName,
  address: z.string(),
  port: count,
  labels,
  cordoned: z.boolean(),
  // Documents from before nodes could be drained have none.
  draining: z.boolean().default(false),
  format: z.enum(['zfs', 'btrfs']),
  poolLost: z.boolean().optional(),
  joinedAtMs: count,
});

const aliveSchema: z.ZodType<AliveDoc> = z.object({ incarnation: z.string(), version: z.string() });
const spaceSchema: z.ZodType<SpaceDoc> = z.object({ sizeBytes: count, freeBytes: count });

const volumeSchema: z.ZodType<VolumeDoc> = z.object({
  id: z.string().transform(parseDatasetId),
  name: z.string().transform(parseVolumeName),
  createdAtMs: count,
  options: volumeOptionsSchema,
  owner: nodeName,
  epoch: count,
  replicas: z.array(nodeName),
  revision: count,
  trashed: z.object({ removedAtMs: count, expiresAtMs: count }).nullable(),
  failedOverAtMs: z.int().optional(),
  bases: z.array(z.object({ began: count, epoch: count, timeMs: z.int() })).optional(),
});

const decoder =
  <T>(schema: z.ZodType<T>) =>
  (text: string): T =>
    schema.parse(JSON.parse(text));

/** Each parses what JSON.stringify wrote, and throws on anything else. */
export const decodeCluster = decoder(clusterSchema);
export const decodeNode = decoder(nodeSchema);
export const decodeAlive = decoder(aliveSchema);
export const decodeSpace = decoder(spaceSchema);
export const decodeVolume = decoder(volumeSchema);
