import type { Logger } from 'pino';
import type { Reach } from '../docker/reach.ts';
import type { CopyEstimateView, CopyRoundView, HandoverBody } from '../model/api.ts';
import type { NodeName } from '../model/names.ts';
import type { DrainView } from '../model/proxy-api.ts';
import type { Docker } from '../program/docker.ts';
import type { Clock, Images, Maker } from '../program/home.ts';
import type { HostNet } from '../program/host-net.ts';
import type { LocalContainers } from '../program/local.ts';
import type { Store } from '../store/store.ts';

/** What the steps of a move are done with, so that tests can put other things in their places. */
export type MoveTools = {
  readonly node: NodeName;
  readonly store: Store;
  readonly docker: MoveDocker;
  readonly locals: Pick<LocalContainers, 'describeOne'>;
  readonly images: Images;
  readonly maker: Maker;
  readonly plugin: PluginCalls;
  readonly proxy: ProxyCalls;
  readonly reach: Reach;
  readonly net: Pick<HostNet, 'sockets' | 'isOwn'>;
  readonly clock: Clock;
  readonly log: Logger;
};

export type MoveDocker = Pick<Docker, 'list' | 'inspect' | 'start' | 'stop' | 'remove' | 'tail' | 'execute'>;

/** What this node's plugin is asked. Failures are FlockErrors: its own, or `not-ready` and `deadline-exceeded` where it does not answer. */
export type PluginCalls = {
  /** Brings `to` a copy, or goes on with that; see copyRoundView. */
  copy(volume: string, to: NodeName, signal: AbortSignal): Promise<CopyRoundView>;
  estimate(volume: string, to: NodeName, signal: AbortSignal): Promise<CopyEstimateView>;
  /** Hands idle volumes over, with other documents, in one transaction. After a failure it may have been done, or be done later. */
  handOver(body: HandoverBody, signal: AbortSignal): Promise<void>;
};

/** What this node's proxy is asked. Failures are FlockErrors: its own, or `not-ready` and `deadline-exceeded` where it does not answer. */
export type ProxyCalls = {
  /** `extend`: in place of the pause that there is. Resolves when all living nodes hold it. */
  pause(service: string, times: PauseTimes, signal: AbortSignal): Promise<void>;
  /** Waits for requests, not for connections that stay open. */
  drain(service: string, forMs: number, signal: AbortSignal): Promise<DrainView>;
  /** Released already is fine. */
  release(service: string, waitMs: number, signal: AbortSignal): Promise<void>;
};

export type PauseTimes = { readonly forMs: number; readonly waitMs: number; readonly extend: boolean };
