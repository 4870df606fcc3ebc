import type { VolumeDoc } from '../../controller/model/cluster.ts';
import type { EventKind } from '../../controller/model/events.ts';
import type { DatasetId, NodeName, SnapshotName } from '../../controller/model/names.ts';
import type { SessionId } from '../../controller/store/store.ts';
import type { Snapshot } from '../storage/storage.ts';
import type { ApiRequest } from '../volumes/ownership.ts';

/**
 * What a node's part in the cluster is made of from outside: time, other nodes, and the processes that use volumes. The real ones are
 * wired in plugin/node.ts, the simulation has its own.
 */
export type Clock = {
  /** Of the clock that goes on while a machine is suspended (CLOCK_BOOTTIME). All deadlines are on it. */
  bootMs(): number;
  /** Wall clock, for people only. */
  nowMs(): number;
  /** Resolves after the time or when the signal fires; never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  randomHex(bytes: number): string;
};

/** Tells people what happened (`controller/cluster/event-log.ts`). Never waits and never fails. */
export type Tell = (kind: EventKind, subject: string, text: string) => void;

/** The processes, in containers or not, that have volumes mounted, and all others of their containers. Works without Docker. */
export type Users = {
  /** Which of these are mounted by anybody. */
  using(ids: readonly DatasetId[]): Promise<ReadonlySet<DatasetId>>;
  /** Stops all of them where they are (SIGSTOP); they write nothing more until `thaw`. Returns when all stand. */
  freeze(ids: readonly DatasetId[]): Promise<void>;
  /**
   * Lets them go on, but not those that use a volume among `guarded` too that `mayWrite` denies in the very moment of the signal: between
   * the decision and the signal this process may have stood still for longer than the proof was good for.
   */
  thaw(ids: readonly DatasetId[], guarded: readonly DatasetId[], mayWrite: (id: DatasetId) => boolean): Promise<void>;
  /** Ends all of them (SIGKILL) and returns when they have ended. Throws `volume-in-use` if that takes too long. */
  stop(ids: readonly DatasetId[]): Promise<void>;
};

/** What nodes ask of each other. Each may fail with `node-unreachable`, or with whatever FlockError the other node threw. */
export type PeerCalls = {
  /** From an owner: what the node has of the volume. */
  'copy-state': { readonly ask: CopyRequest; readonly answer: CopyState };
  /**
   * From an owner, to a copy that has what the owner has not: keep it as a stash and go back to the snapshot `common` (its name
   * here), or give up all of the copy (null). Nothing is done where the copy's newest snapshot is not `head` (identity; null: none) any
   * more: what was asked before may come after what has been sent since.
   */
  'rewind-copy': {
    readonly ask: CopyRequest & {
      readonly common: SnapshotName | null;
      readonly isCovered: boolean;
      readonly head?: string | null | undefined;
    };
    readonly answer: CopyState;
  };
  /** From an owner: destroy these snapshots of the copy. */
  'prune-copy': {
    readonly ask: CopyRequest & { readonly snapshots: readonly SnapshotName[] };
    readonly answer: object;
  };
  /** What the node has of a volume, as its owner or as a copy. Changes nothing. */
  'list-snapshots': { readonly ask: { readonly id: DatasetId }; readonly answer: CopyState };
  /** To an owner: hand the volume over to the asking node, whose session this is. `deadlineMs`: how long the asker waits. */
  handoff: {
    readonly ask: { readonly id: DatasetId; readonly session: SessionId; readonly deadlineMs: number };
    readonly answer: HandoffAnswer;
  };
  /** From an owner that can't reach the store: promise not to take these volumes for a guard time from now. Answers those that are promised. */
  promise: {
    readonly ask: { readonly volumes: readonly CopyRequest[] };
    readonly answer: { readonly ids: readonly DatasetId[] };
  };
  /**
   * From an owner: up to when copies on the asked node have everything, on that node's own clock, as it told it in its last answer
   * (`run`; null: it has not yet).
   */
  'as-of': {
    readonly ask: { readonly run: string | null; readonly news: readonly AsOfNews[] };
    readonly answer: AsOfAnswer;
  };
};

/** `identity`: of the snapshot that the copy has as its newest. */
export type AsOfNews = CopyRequest & { readonly identity: string; readonly asOfMs: number };

/** `run`: of the process that says it; times of another one mean nothing to it. */
export type AsOfAnswer = { readonly run: string; readonly bootMs: number };

export type CopyRequest = { readonly id: DatasetId; readonly epoch: number };

export type CopyState = {
  /** The highest epoch that the node has seen of the volume. */
  readonly epoch: number;
  /** Oldest first; null: it has no dataset of the volume. */
  readonly snapshots: readonly Pick<Snapshot, 'name' | 'identity'>[] | null;
  /** The stream of which it has a beginning, from an attempt that broke off. */
  readonly partial?: PartialCopy | null | undefined;
  /** For how long the node has promised the owner not to take the volume; null: it has just started and may have forgotten. */
  readonly promisedMs?: number | null | undefined;
  /** How long ago the copy certainly had everything, as its owner said; null: it did not. */
  readonly asOfAgeMs?: number | null | undefined;
};

/** What makes a stream that one: the snapshot it ends with and the one it starts from. */
export type PartialCopy = { readonly toIdentity: string; readonly from: SnapshotName | null };

export type HandoffAnswer =
  | { readonly kind: 'done'; readonly doc: VolumeDoc }
  /** The transfer goes on in the background; ask again. */
  | { readonly kind: 'running'; readonly sentBytes: number; readonly totalBytes: number | null };

export type Peers = {
  call<Name extends keyof PeerCalls>(
    node: NodeName,
    name: Name,
    ask: PeerCalls[Name]['ask'],
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<PeerCalls[Name]['answer']>;
  /** A request of the REST API that another node's flockctl or Docker made. Answers the body. */
  forward(node: NodeName, request: ApiRequest, signal: AbortSignal): Promise<unknown>;
  /** Sends a snapshot to the node's copy and resolves when the node has verified it. `onProgress`: bytes sent so far. */
  transfer(node: NodeName, transfer: Transfer, onProgress: (bytes: number) => void, signal: AbortSignal): Promise<void>;
};

/** The header of a stream between nodes. */
export type Transfer = {
  readonly doc: VolumeDoc;
  readonly to: SnapshotName;
  readonly toIdentity: string;
  readonly from: SnapshotName | null;
};

export type Answers = {
  readonly [Name in keyof PeerCalls]: (
    peer: NodeName,
    ask: PeerCalls[Name]['ask'],
    signal: AbortSignal,
  ) => Promise<PeerCalls[Name]['answer']>;
};
