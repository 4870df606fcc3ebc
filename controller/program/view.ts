import type { NodeDoc, VolumeDoc } from '../model/cluster.ts';
import type { DatasetId, NodeName } from '../model/names.ts';
import type { WorkloadDoc, WorkloadId } from '../model/workload.ts';

/** A document with the index that a compare-and-set of it starts from. */
export type Stored<Doc> = { readonly doc: Doc; readonly index: string };

/** What the store said last of everything that controllers look at. May be late; whoever writes compares. */
export type Seen = {
  /** Empty on a host that is in no cluster. */
  readonly nodes: ReadonlyMap<NodeName, NodeDoc>;
  readonly alive: ReadonlySet<NodeName>;
  /** Nodes whose session is over, and since when this node has seen that without a break (boot clock). */
  readonly deadSinceMs: ReadonlyMap<NodeName, number>;
  readonly volumes: ReadonlyMap<DatasetId, VolumeDoc>;
  readonly workloads: ReadonlyMap<WorkloadId, Stored<WorkloadDoc>>;
  readonly profile: 'default' | 'fast';
};

export type ClusterView = {
  /** Null until everything has been seen once. */
  seen(): Seen | null;
  /** Why the store does not answer; null: it does. */
  fault(): string | null;
  /** Called after each change, at once; answers how to stop that. Must not throw. */
  onChange(listener: () => void): () => void;
  /** Watches until the signal fires. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
};
