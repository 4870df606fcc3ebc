import { heldMsMax } from '../../controller/model/proxy-api.ts';

/** Everything in a gate that could grow or last has its bound here. */
export type GateLimits = {
  /** Requests and connections that one paused service may hold. */
  readonly heldCountMax: number;
  /** What all held ones of a service may take: headers, and of each body what is read before the reading stops. */
  readonly heldBytesMax: number;
  /** Of one held body or connection. Node reads at most one piece of 64 KiB more. */
  readonly heldBodyBytesMax: number;
  /** Of what one connection has sent ahead: requests that wait for the answer to the one before, which no queue counts. */
  readonly aheadBytesMax: number;
  /** Of such requests of all connections of a gate. */
  readonly aheadCountMax: number;
  /** How long one request or connection waits. */
  readonly heldMsMax: number;
  /** A longer pause is cut to this. */
  readonly pauseMsMax: number;
  /** How many of the held ones run at a time after a release, so that they don't fall upon a service that has just started. */
  readonly releasedMax: number;
  /** A held one that runs longer (a long poll) no longer counts in `releasedMax`: those behind it must not wait for it. */
  readonly releaseSlotMsMax: number;
  readonly connectMsMax: number;
  /** Silence of a service in the middle of a request. Long polls live with this. */
  readonly serviceSilenceMsMax: number;
  /** Silence of a client in the middle of a request or its answer. */
  readonly clientSilenceMsMax: number;
  readonly headerBytesMax: number;
  /** From the first byte of a request to the end of its headers. */
  readonly headersMsMax: number;
  /** How long an idle connection of a client is kept. */
  readonly clientIdleMsMax: number;
  /** How long an idle connection to a service is kept: below the 5 s after which Node and Apache servers close theirs. */
  readonly serviceIdleMsMax: number;
  /** Idle connections kept to one container. */
  readonly serviceIdleMax: number;
  readonly connectionsPerListenerMax: number;
  /** Containers that are tried for one request or connection. */
  readonly attemptsMax: number;
  /** A container that refused a connection gets none for so long, unless there is no other. */
  readonly coolDownMs: number;
  /** From the polite end of a tunnel to its cut. */
  readonly tunnelEndMsMax: number;
  /** After one side has ended, how long the other may be silent. */
  readonly halfOpenMsMax: number;
};

/** Held count, bytes, time and concurrency are those of docs/design.md; the other times are what clients and servers commonly bear. */
export const defaultLimits: GateLimits = {
  heldCountMax: 10_000,
  heldBytesMax: 64 * 1024 * 1024,
  heldBodyBytesMax: 64 * 1024,
  aheadBytesMax: 256 * 1024,
  aheadCountMax: 10_000,
  heldMsMax,
  pauseMsMax: 120_000,
  releasedMax: 256,
  releaseSlotMsMax: 1_000,
  connectMsMax: 5_000,
  serviceSilenceMsMax: 300_000,
  clientSilenceMsMax: 600_000,
  headerBytesMax: 64 * 1024,
  headersMsMax: 10_000,
  clientIdleMsMax: 60_000,
  serviceIdleMsMax: 4_000,
  serviceIdleMax: 256,
  connectionsPerListenerMax: 50_000,
  attemptsMax: 3,
  coolDownMs: 1_000,
  tunnelEndMsMax: 1_000,
  halfOpenMsMax: 600_000,
};
