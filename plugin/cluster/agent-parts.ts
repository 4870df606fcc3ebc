import type { FailoverView } from '../../controller/model/api.ts';
import type { AliveDoc, VolumeDoc } from '../../controller/model/cluster.ts';
import type { DatasetId, NodeName, VolumeName } from '../../controller/model/names.ts';
import type { Timing } from '../../controller/model/timing.ts';
import type { VolumeRecord } from '../../controller/model/volume.ts';
import type { SessionId, Store } from '../../controller/store/store.ts';
import type { Snapshot } from '../storage/storage.ts';
import type { Context } from '../volumes/context.ts';
import type { ApiRequest, Ownership } from '../volumes/ownership.ts';
import type { Directory } from './directory.ts';
import type { Moving } from './moving.ts';
import type { Answers, Clock, Peers, Tell, Transfer, Users } from './ports.ts';
import type { CopyStatus } from './replication-work.ts';

/** One node's part in the cluster, put together. Everything that is not deterministic comes in from outside. */
export type Agent = {
  /** For the use cases of volumes. */
  readonly ownership: Ownership;
  /** What other nodes may ask. */
  readonly answers: Answers;
  readonly directory: Directory;
  receive(
    peer: NodeName,
    transfer: Transfer,
    read: (receive: (source: number, signal: AbortSignal) => Promise<Snapshot>) => Promise<Snapshot>,
    signal: AbortSignal,
  ): Promise<void>;
  /** For this node's controller. */
  readonly moving: Moving;
  takeOver(name: VolumeName, options: { readonly force: boolean }, signal: AbortSignal): Promise<VolumeRecord>;
  previewFailover(name: VolumeName, signal: AbortSignal): Promise<FailoverView>;
  copies(id: DatasetId): readonly CopyStatus[];
  problems(id: DatasetId): readonly string[];
  isFrozen(id: DatasetId): boolean;
  /** A request of the REST API for another node. */
  forward(node: NodeName, request: ApiRequest, signal: AbortSignal): Promise<unknown>;
  /** Whether the store answers and knows this node: until when its session is proven, in ms from now. */
  provenForMs(): number;
  run(signal: AbortSignal): Promise<void>;
};

export type AgentParts = {
  readonly node: NodeName;
  readonly alive: AliveDoc;
  readonly timing: Timing;
  readonly store: Store;
  /** The same store with a shorter limit for each call, for what is worth nothing when it comes late. */
  readonly leaseStore?: Store;
  readonly clock: Clock;
  readonly users: Users;
  readonly peers: Peers;
  readonly context: Context;
  /** What must survive a restart of the plugin: the session, and the documents last seen. */
  readonly memory: {
    loadSession(): SessionId | null;
    saveSession(session: SessionId): void;
    loadDocs(): readonly VolumeDoc[];
    saveDocs(put: readonly VolumeDoc[], gone: readonly DatasetId[]): void;
    loadNodes(): string | null;
    saveNodes(text: string): void;
  };
  /** Deadlines that were published before a restart, and the place to publish them. */
  readonly deadlines: {
    load(): ReadonlyMap<DatasetId, number>;
    publish(deadlines: ReadonlyMap<DatasetId, number>): Promise<void>;
  };
  readonly stashMs: () => number;
  readonly tell: Tell;
};
