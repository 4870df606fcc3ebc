import type { Router } from 'express';
import type { Logger } from 'pino';
import type { z } from 'zod';
import type { EventLog } from '../cluster/event-log.ts';
import type { NodeName } from '../model/names.ts';
import type { WorkloadDoc } from '../model/workload.ts';
import type { Store } from '../store/store.ts';
import type { Docker } from './docker.ts';
import type { HostNet } from './host-net.ts';
import type { ControllerPaths } from './paths.ts';
import type { ClusterView } from './view.ts';

/**
 * What every part of the program works with, for as long as this host's place stays the same: in a cluster, or alone with a store of
 * its own. When that changes, everything is stopped by its signal and made anew.
 */
export type Home = {
  readonly node: NodeName;
  /** Null: the host is in no cluster. */
  readonly clusterId: string | null;
  readonly store: Store;
  readonly docker: Docker;
  /** What the store said last. */
  readonly view: ClusterView;
  readonly images: Images;
  readonly askController: AskController;
  readonly maker: Maker;
  readonly net: HostNet;
  readonly events: EventLog;
  readonly clock: Clock;
  readonly paths: ControllerPaths;
  readonly log: Logger;
};

/** A part of the program. `run` works until the signal fires, and never rejects; the routers are served on the controller's socket. */
export type Part = {
  readonly routers?: readonly Router[];
  /** Served to the controllers of other nodes. */
  readonly peerRouters?: readonly Router[];
  /** What Prometheus is told beside the program's own figures, in its text format. */
  readonly figures?: () => Promise<string>;
  run(signal: AbortSignal): Promise<void>;
};

/** Asks the controller of another node. Throws `node-unreachable`, `node-not-found`, and the signal's reason. */
export type AskController = <T>(
  node: NodeName,
  question: { readonly path: string; readonly body: unknown; readonly schema: z.ZodType<T> },
  signal: AbortSignal,
) => Promise<T>;

export type Clock = {
  /** Since boot, suspend included: for everything that waits. */
  bootMs(): number;
  /** Wall clock, for people and other nodes. */
  nowMs(): number;
  randomHex(bytes: number): string;
  /** Resolves after the time or when the signal fires; never rejects. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
};

export type Images = {
  /**
   * Has this host's Docker have the image of a workload, by its name if that is free: from the first of the nodes that has it, unless it
   * is here. One transfer at a time; the others wait, but for one that needs another image and has waited a minute. Throws `docker-failed`, `too-many-requests`, and the signal's reason.
   */
  ensure(workload: Pick<WorkloadDoc, 'name' | 'spec'>, from: readonly NodeName[], signal: AbortSignal): Promise<void>;
};

export type Maker = {
  /**
   * Makes a workload's container on this host, with its networks, not started. The image must be here. Answers its id, also of one that
   * an earlier call has made and nobody has started or changed. Throws `docker-failed`: another container has the name, a network can't be
   * made ...
   */
  make(workload: WorkloadDoc): Promise<string>;
  /** Whether a container has its name here that does not make way for it. */
  isNameTaken(workload: WorkloadDoc): Promise<boolean>;
};
