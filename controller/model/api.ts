import { z } from 'zod';
import { failoverPolicies, rawOptionsSchema } from './options.ts';

/** What the plugin's own REST API answers and `flockctl` reads. Sizes are bytes, times milliseconds since 1970. */

const bytes = z.number().nonnegative();
const time = z.number().nonnegative();

export const volumeView = z.object({
  name: z.string(),
  id: z.string(),
  phase: z.string(),
  owner: z.string(),
  backend: z.string(),
  createdAtMs: time,
  mountpoint: z.string(),
  mounts: z.number(),
  usedBytes: bytes.nullable(),
  totalBytes: bytes.nullable(),
  sizeBytes: bytes.nullable(),
  snapshots: z.number().nullable(),
  protect: z.boolean(),
  options: z.record(z.string(), z.unknown()),
});
export type VolumeView = z.infer<typeof volumeView>;

export const snapshotView = z.object({
  name: z.string(),
  identity: z.string(),
  createdAtMs: time,
  uniqueBytes: bytes,
  holds: z.array(z.string()),
});
export type SnapshotView = z.infer<typeof snapshotView>;

export const trashView = z.object({
  name: z.string(),
  id: z.string(),
  removedAtMs: time,
  expiresAtMs: time,
  reason: z.string(),
  totalBytes: bytes.nullable(),
});
export type TrashView = z.infer<typeof trashView>;

export const poolView = z.object({
  backend: z.string(),
  name: z.string(),
  state: z.string(),
  /** What is wrong, or wants attention. */
  message: z.string().nullable(),
  sizeBytes: bytes.nullable(),
  freeBytes: bytes.nullable(),
  volumes: z.number(),
  volumesBytes: bytes,
  trashed: z.number(),
  trashedBytes: bytes,
});
export type PoolView = z.infer<typeof poolView>;

export const settingsView = z.object({
  backend: z.string(),
  pool: z.string(),
  poolSizeBytes: bytes,
  trashMs: z.number().nonnegative(),
  stashMs: z.number().nonnegative(),
  transferBytesPerSecond: z.number().nullable(),
  encryption: z.string(),
});
export type SettingsView = z.infer<typeof settingsView>;

/** A node as the cluster knows it. */
export const nodeView = z.object({
  name: z.string(),
  address: z.string(),
  port: z.number(),
  alive: z.boolean(),
  /** Whether its controller is at work: who makes, starts and moves containers there. */
  controller: z.boolean().default(true),
  cordoned: z.boolean(),
  draining: z.boolean().default(false),
  /** Nothing can be written to its pool. */
  poolLost: z.boolean().default(false),
  labels: z.record(z.string(), z.string()),
  format: z.string(),
  joinedAtMs: time,
  /** What its plugin said at its last start; null before the first. */
  version: z.string().nullable(),
  sizeBytes: bytes.nullable(),
  freeBytes: bytes.nullable(),
  /** How many it owns, and of how many others it is to hold a copy. */
  volumes: z.number(),
  copies: z.number(),
});
export type NodeView = z.infer<typeof nodeView>;

/** All null: the host is in no cluster. Figures are null while the store does not answer. */
export const statusView = z.object({
  cluster: z.object({ id: z.string(), profile: z.string().nullable() }).nullable(),
  node: z.object({ name: z.string(), address: z.string(), port: z.number() }).nullable(),
  store: z
    .object({ kind: z.string(), address: z.string(), reachable: z.boolean(), message: z.string().nullable() })
    .nullable(),
  nodes: z.object({ total: z.number(), up: z.number(), down: z.array(z.string()) }).nullable(),
  volumes: z
    .object({ total: z.number(), underReplicated: z.array(z.string()), ownerDead: z.array(z.string()) })
    .nullable(),
});
export type StatusView = z.infer<typeof statusView>;

/** This node as a member of its cluster. */
export const memberView = z.object({ clusterId: z.string(), name: z.string(), address: z.string(), port: z.number() });
export type MemberView = z.infer<typeof memberView>;

/** `token` is told this once; the store has only a hash of it. */
export const tokenView = z.object({ token: z.string(), uses: z.number(), expiresAtMs: time, address: z.string() });
export type TokenView = z.infer<typeof tokenView>;

export const versionView = z.object({ version: z.string(), commit: z.string(), node: z.string() });
export type VersionView = z.infer<typeof versionView>;

/** Every error of the API (shape of RFC 9457 with our stable `code`). */
export const problemView = z.object({ code: z.string(), detail: z.string(), facts: z.record(z.string(), z.unknown()) });
export type ProblemView = z.infer<typeof problemView>;

export const createBody = z.strictObject({ name: z.string(), options: rawOptionsSchema.default({}) });
/** `size`, `max-loss`: text such as 10G and 30s, or `none`. */
export const changeBody = z.strictObject({
  size: z.string().optional(),
  protect: z.enum(['true', 'false']).optional(),
  failover: z.string().optional(),
  'max-loss': z.string().optional(),
});
export const snapshotBody = z.strictObject({ name: z.string().nullable().default(null) });
export const rollbackBody = z.strictObject({ snapshot: z.string() });
export const restoreBody = z.strictObject({ name: z.string().nullable().default(null) });
export const settingsBody = z.record(z.string(), z.string());
const memberFields = {
  name: z.string().nullable().default(null),
  /** HOST[:PORT]; null, as for the name: what the host says. */
  address: z.string().nullable().default(null),
  store: z.string().nullable().default(null),
  storeToken: z.string().nullable().default(null),
  /** KEY=VALUE each. */
  labels: z.array(z.string()).default([]),
};
export const initBody = z.strictObject({ ...memberFields, profile: z.enum(['default', 'fast']).default('default') });
export const joinBody = z.strictObject({ ...memberFields, member: z.string(), token: z.string() });
export const tokenBody = z.strictObject({ uses: z.int().default(1), ttlMs: z.int().nullable().default(null) });
/** `labels`: KEY=VALUE or KEY- each. */
export const nodeBody = z.strictObject({
  labels: z.array(z.string()).optional(),
  cordoned: z.boolean().optional(),
  /** A draining node gets nothing new either, and loses what it has. */
  draining: z.boolean().optional(),
});

/** See controller/cluster/removal.ts. */
export const removalBody = z.strictObject({
  force: z.boolean().default(false),
  lost: z.boolean().default(false),
  giveUp: z.array(z.string()).default([]),
});

/** A copy of a volume on another node, as the volume's owner sees it. */
export const copyView = z.object({
  volume: z.string(),
  owner: z.string(),
  node: z.string(),
  state: z.enum(['in-sync', 'behind', 'sending', 'waiting']),
  lagMs: z.number().nullable(),
  snapshot: z.string().nullable(),
  sentBytes: bytes,
  totalBytes: bytes.nullable(),
  problem: z.string().nullable(),
});
export type CopyView = z.infer<typeof copyView>;

/** What a node wrote that did not survive a change of owner. */
export const stashView = z.object({
  id: z.string(),
  volume: z.string(),
  node: z.string(),
  epoch: z.number(),
  common: z.string().nullable(),
  stashedAtMs: time,
  expiresAtMs: time,
  totalBytes: bytes.nullable(),
});
export type StashView = z.infer<typeof stashView>;

export const stashRestoreBody = z.object({ name: z.string() });
export const failoverBody = z.object({ node: z.string().nullable(), force: z.boolean() });
/** What a takeover of a volume would find now. */
export const failoverView = z.object({
  volume: z.string(),
  owner: z.string(),
  isOwnerAlive: z.boolean(),
  /** Somebody has it locked: nobody may take it. */
  isHeld: z.boolean(),
  /** How long the old owner may still write; null while it is held. */
  waitMs: z.number().nullable(),
  policy: z.enum(failoverPolicies),
  maxLossMs: z.number().nullable(),
  /** `lossMs`: writes of so long may be missing there; null: not known. `none`: the first copy has not arrived. */
  copies: z.array(
    z.object({
      node: z.string(),
      state: z.enum(['answers', 'silent', 'dead', 'none']),
      snapshot: z.string().nullable(),
      takenAtMs: time.nullable(),
      lossMs: z.number().nullable(),
    }),
  ),
  best: z.string().nullable(),
  /** Why it has not been taken over by itself. */
  reason: z.string(),
});
export type FailoverView = z.infer<typeof failoverView>;

/**
 * Hands several idle volumes of the node that is asked to another one, together with changes of other documents, in one transaction.
 * `volumes`: names. `index`: of the store, null where the document is to be made. `deadlineMs`: from now on.
 */
export const handoverBody = z.strictObject({
  to: z.string(),
  volumes: z.array(z.string()).min(1),
  operations: z.array(z.strictObject({ key: z.string(), value: z.string(), index: z.string().nullable() })).default([]),
  deadlineMs: z.int().min(1_000).max(100_000).default(20_000),
});
export type HandoverBody = z.infer<typeof handoverBody>;
/** `epoch`: the new one. */
export const handoverView = z.object({ volumes: z.array(z.object({ name: z.string(), epoch: z.number() })) });
export type HandoverView = z.infer<typeof handoverView>;

/** Brings the node `to` a copy of a volume of the node that is asked, used or not. Asked again and again; see copyRoundView. */
export const copyBody = z.strictObject({ volume: z.string(), to: z.string() });
/**
 * `done`: the node has now what the volume was at some time after the call before this one; the next call begins another round. Within
 * half a second otherwise `running`. `sentBytes`: in this round; `totalBytes`: of what is being sent now, null where that is not
 * known; `roundMs`: how long this round took, null while it runs.
 */
export const copyRoundView = z.object({
  state: z.enum(['running', 'done']),
  sentBytes: bytes,
  totalBytes: bytes.nullable(),
  roundMs: z.number().nonnegative().nullable(),
});
export type CopyRoundView = z.infer<typeof copyRoundView>;
/** What a copy would take: `bytes` null where that can't be told. `hasCopy`: something is there, so that only the difference is sent. */
export const copyEstimateView = z.object({ hasCopy: z.boolean(), bytes: bytes.nullable() });
export type CopyEstimateView = z.infer<typeof copyEstimateView>;
