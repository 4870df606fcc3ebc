import { z } from 'zod';
import { FlockError, unreachable } from './errors.ts';
import {
  type DatasetId,
  type NodeName,
  parseDatasetId,
  parseNodeName,
  parseSnapshotName,
  parseVolumeName,
  quote,
  type SnapshotName,
  type VolumeName,
} from './names.ts';
import { failoverPolicies, type VolumeOptions } from './options.ts';

/**
 * Where a volume is in its life. Every arrow is one transaction in the state file; the work on the pool between two arrows can be
 * repeated, so a crash anywhere is finished at the next start (docs/design.md, "Life of a volume").
 *
 *     creating -> ready -> trashed -> destroying -> (gone)
 *                 ready <-> rolling-back     trashed -> ready
 *     in a cluster: ready -> handing-over -> replica -> ready     replica -> destroying
 *                   ready -> replica, with what only this node has as a new dataset: stashed -> ready or destroying
 */
export type Phase =
  | {
      readonly kind: 'creating';
      readonly source: { readonly id: DatasetId; readonly snapshot: SnapshotName | null } | null;
    }
  | {
      readonly kind: 'ready';
      /** Its dataset may not have the limit that the options say, and is to get it soon. `larger`: it holds more, and is limited to that. */
      readonly unlimited?: true | 'larger' | undefined;
    }
  | { readonly kind: 'rolling-back'; readonly snapshot: SnapshotName; readonly aside: DatasetId }
  | {
      readonly kind: 'trashed';
      readonly removedAtMs: number;
      readonly expiresAtMs: number;
      readonly reason: 'removed' | 'rolled back';
    }
  | { readonly kind: 'destroying' }
  /** Its final snapshot is taken and nothing is written any more; whether the new owner has it yet is for the store to say. */
  | { readonly kind: 'handing-over'; readonly to: NodeName }
  /** A copy of another node's volume; never mounted. `epoch` of the record is the highest that a stream came with. */
  | {
      readonly kind: 'replica';
      readonly owner: NodeName;
      /**
       * What the owner has not got is being made the dataset `aside`, from after the snapshot `common` on (null: all of it). `isCovered`:
       * the owner has all that it holds in newer snapshots, so nothing of it is kept.
       */
      readonly stashing: {
        readonly aside: DatasetId;
        readonly common: SnapshotName | null;
        readonly isCovered: boolean;
      } | null;
      /** The store is being asked to make this node the owner, or was by a process that did not live to see the answer. */
      readonly taking?: true | undefined;
      /** Its dataset has no limit for certain, whatever size the options say: that is the volume's. */
      readonly unlimited?: true | undefined;
    }
  /** What this node had written that is not in the surviving history of the volume `of`. */
  | {
      readonly kind: 'stashed';
      readonly of: DatasetId;
      readonly stashedAtMs: number;
      readonly expiresAtMs: number;
      /** The last snapshot that the surviving history has too; null: none. */
      readonly common: SnapshotName | null;
    };

export type VolumeRecord = {
  readonly id: DatasetId;
  readonly name: VolumeName;
  readonly createdAtMs: number;
  readonly options: VolumeOptions;
  /** Of the ownership that this dataset's content belongs to (docs/design.md, "Ownership"); 0 on a host without a cluster. */
  readonly epoch: number;
  /** Snapshots that replication makes are named by later times: of those that a rollback took away, some copies may still have all. */
  readonly namesAfterMs?: number | undefined;
  readonly phase: Phase;
};

/** Volumes in these phases own their name; in the others the name is free. */
export function ownsName(record: VolumeRecord): boolean {
  switch (record.phase.kind) {
    case 'creating':
    case 'ready':
    case 'rolling-back':
    case 'handing-over':
      return true;
    case 'trashed':
    case 'destroying':
    case 'replica':
    case 'stashed':
      return false;
    default:
      return unreachable(record.phase);
  }
}

const datasetId = z.string().transform(parseDatasetId);
const snapshotName = z.string().transform(parseSnapshotName);
const nodeName = z.string().transform(parseNodeName);
const volumeName = z.string().transform(parseVolumeName);
const count = z.int().nonnegative();

export const volumeOptionsSchema: z.ZodType<VolumeOptions> = z.object({
  sizeBytes: count.nullable(),
  compression: z.string().nullable(),
  recordSizeBytes: count.nullable(),
  mode: count.nullable(),
  uid: count.nullable(),
  gid: count.nullable(),
  protect: z.boolean(),
  from: z.object({ name: volumeName, snapshot: snapshotName.nullable() }).nullable(),
  properties: z.record(z.string(), z.string()),
  // Records and stamps from before there were clusters have none of these.
  replicas: count.nullable().default(null),
  remoteReplicas: count.nullable().default(null),
  intervalMs: count.nullable().default(null),
  retain: z
    .array(z.object({ forMs: count, everyMs: count }))
    .nullable()
    .default(null),
  nodes: z.array(nodeName).nullable().default(null),
  locality: z.record(z.string(), z.string()).nullable().default(null),
  failover: z.enum(failoverPolicies).nullable().default(null),
  maxLossMs: count.nullable().default(null),
});

const phaseSchema: z.ZodType<Phase> = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('creating'),
    source: z.object({ id: datasetId, snapshot: snapshotName.nullable() }).nullable(),
  }),
  z.object({ kind: z.literal('ready'), unlimited: z.literal([true, 'larger']).optional() }),
  z.object({ kind: z.literal('rolling-back'), snapshot: snapshotName, aside: datasetId }),
  z.object({
    kind: z.literal('trashed'),
    removedAtMs: count,
    expiresAtMs: count,
    reason: z.enum(['removed', 'rolled back']),
  }),
  z.object({ kind: z.literal('destroying') }),
  z.object({ kind: z.literal('handing-over'), to: nodeName }),
  z.object({
    kind: z.literal('replica'),
    owner: nodeName,
    stashing: z
      .object({ aside: datasetId, common: snapshotName.nullable(), isCovered: z.boolean().default(false) })
      .nullable(),
    taking: z.literal(true).optional(),
    unlimited: z.literal(true).optional(),
  }),
  z.object({
    kind: z.literal('stashed'),
    of: datasetId,
    stashedAtMs: count,
    expiresAtMs: count,
    common: snapshotName.nullable(),
  }),
]);

const recordSchema = z.object({
  id: datasetId,
  name: volumeName,
  createdAtMs: count,
  options: volumeOptionsSchema,
  // Records from before there were clusters have none.
  epoch: count.default(0),
  // There is none before a rollback.
  namesAfterMs: count.optional(),
  phase: phaseSchema,
});

export function encodeRecord(record: VolumeRecord): string {
  return JSON.stringify(record);
}

/** Parses what `encodeRecord` wrote. Throws on anything else. */
export function decodeRecord(text: string): VolumeRecord {
  return recordSchema.parse(JSON.parse(text));
}

/**
 * What is written on the dataset itself, so that a pool that comes to a host without flock's state is understood there: name, time
 * and options. Short, because ZFS pool version 23 holds 1024 bytes.
 */
export function encodeStamp(record: VolumeRecord, bytesMax: number): string {
  const { name, createdAtMs, options } = record;
  const set = Object.fromEntries(
    Object.entries(options).filter(([key, value]) => value !== null && value !== false && key !== 'from'),
  );
  const text = JSON.stringify({ name, created: createdAtMs, options: set });
  const bytes = new TextEncoder().encode(text).length;
  if (bytes <= bytesMax) return text;
  throw new FlockError(
    'invalid-option',
    `the options of volume ${quote(name)} take ${bytes} bytes, at most ${bytesMax} fit: use fewer zfs. properties`,
  );
}

/** What becomes a volume again: as a copy, or set aside, it has needed no limit. Pure. */
export function readyAnew({ sizeBytes }: VolumeOptions): Phase {
  return sizeBytes === null ? { kind: 'ready' } : { kind: 'ready', unlimited: true };
}

const stampSchema = z.object({ name: volumeName, created: count, options: z.record(z.string(), z.unknown()) });

/** The record of a dataset that carries a stamp, or null where the text is not one of ours. */
export function recordFromStamp(id: DatasetId, stamp: string, defaults: VolumeOptions): VolumeRecord | null {
  try {
    const parsed = stampSchema.parse(JSON.parse(stamp));
    const options = volumeOptionsSchema.parse({ ...defaults, ...parsed.options });
    return { id, name: parsed.name, createdAtMs: parsed.created, options, epoch: 0, phase: { kind: 'ready' } };
  } catch {
    return null;
  }
}
