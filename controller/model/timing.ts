import type { ClusterDoc } from './cluster.ts';

/**
 * The times on which "one writer" rests. All are measured on the boot clock of the host they are used on (CLOCK_BOOTTIME, the
 * first number of /proc/uptime): the wall clock jumps, and the monotonic clock stands still while a virtual machine is suspended,
 * so that an owner that wakes up would think that its lease still runs. After any wake-up the deadline is compared first.
 *
 *     owner       sends a renew at t; answered OK -> writes until t + fenceAfterMs at most, has stopped by + fenceMs more
 *     candidate   sees the lock free -> waits guardMs on its own clock -> takes it
 */
export type Timing = {
  /** R: between two renews of the node's session. */
  readonly renewMs: number;
  /** F: after the sending of the last renew that was acknowledged, the owner begins to fence itself. */
  readonly fenceAfterMs: number;
  /** S: the most that fencing takes, until nothing writes any more. */
  readonly fenceMs: number;
  /** D: Consul's own delay before a lock that was lost can be taken. Kept in a server's memory, so a restart of it loses it. */
  readonly lockDelayMs: number;
  /** W: what a candidate waits from the moment it first sees the lock free. */
  readonly guardMs: number;
  /**
   * Consul ends a session at the earliest after this without a renew (in fact after twice that, and from the start again when it
   * has a new leader), unless a health check fails before. It is what finds a node whose Consul agent lives on.
   */
  readonly sessionTtlMs: number;
  /** rho: how far the rates of two hosts' clocks are apart at most. NTP may slew one by 0.0005; this is twenty times that. */
  readonly clockRateErrorMax: number;
  /** eps: for timers that fire late and what is rounded. */
  readonly slackMs: number;
  /** k: renews in a row that may fail without the owner being stopped. */
  readonly renewsLostMax: number;
  /** How long Consul may be without a leader while it elects one, with raft_multiplier 1. */
  readonly electionMs: number;
  /** The longest that a renew may take. */
  readonly rpcMs: number;
  /** How Consul finds dead nodes; what its configuration must say. */
  readonly gossip: {
    readonly probeIntervalMs: number;
    readonly probeTimeoutMs: number;
    readonly suspicionMult: number;
    readonly raftMultiplier: number;
    readonly sessionTtlMinMs: number;
  };
};

export type Profile = ClusterDoc['profile'];

/**
 * `default` takes a dead node's volumes over after about 14 to 17 s (6 to 9 s until Consul notices, then the guard); `fast` after
 * 7 to 8 s, for networks where a leader election takes little more than a second: a longer one stops the owners' containers for
 * a moment, though it loses nothing.
 */
export const timings: Readonly<Record<Profile, Timing>> = {
  default: {
    renewMs: 1000,
    fenceAfterMs: 5000,
    fenceMs: 1000,
    lockDelayMs: 7000,
    guardMs: 7000,
    sessionTtlMs: 10_000,
    clockRateErrorMax: 0.01,
    slackMs: 500,
    renewsLostMax: 1,
    electionMs: 3000,
    rpcMs: 1000,
    gossip: {
      probeIntervalMs: 1000,
      probeTimeoutMs: 500,
      suspicionMult: 4,
      raftMultiplier: 1,
      sessionTtlMinMs: 10_000,
    },
  },
  fast: {
    renewMs: 500,
    fenceAfterMs: 2500,
    fenceMs: 500,
    lockDelayMs: 3500,
    guardMs: 3500,
    sessionTtlMs: 2000,
    clockRateErrorMax: 0.01,
    slackMs: 250,
    renewsLostMax: 1,
    electionMs: 1500,
    rpcMs: 500,
    gossip: { probeIntervalMs: 500, probeTimeoutMs: 250, suspicionMult: 3, raftMultiplier: 1, sessionTtlMinMs: 2000 },
  },
};

/** Consul's own limits. */
const lockDelayMsMax = 60_000;
const sessionTtlMsMax = 86_400_000;

/** What is wrong with these times, in words for people; empty: nothing. */
export function checkTiming(timing: Profile | Timing): readonly string[] {
  const t = typeof timing === 'string' ? timings[timing] : timing;
  const { gossip, ...times } = t;
  for (const [name, value] of Object.entries({ ...times, ...gossip }))
    if (!Number.isFinite(value) || value < 0) return [`${name} is ${value}: it must be a number of at least 0`];

  const stoppedMs = (t.fenceAfterMs + t.fenceMs) * (1 + t.clockRateErrorMax) + t.slackMs;
  const neededMs = t.renewsLostMax * t.renewMs + t.electionMs + t.rpcMs;
  const problems: string[] = [];
  const check = (ok: boolean, problem: string) => {
    if (!ok) problems.push(problem);
  };
  // (A). The guard must do it alone, without the lock delay: that is gone when a Consul server restarts. The session's TTL counts
  // for nothing here, because a failed health check ends a session right after a renew.
  check(
    t.guardMs >= stoppedMs,
    `safety: a candidate waits ${t.guardMs} ms (guardMs), but the owner may write for ${Math.ceil(stoppedMs)} ms after its last renew ((fenceAfterMs + fenceMs) * (1 + clockRateErrorMax) + slackMs): two nodes could write at once`,
  );
  // (D)
  check(
    t.fenceAfterMs >= neededMs,
    `liveness: the owner stops after ${t.fenceAfterMs} ms without a renew (fenceAfterMs), but an election of Consul's leader takes up to ${neededMs} ms (renewsLostMax * renewMs + electionMs + rpcMs): each would stop every volume`,
  );
  check(t.renewMs > 0, 'renewMs must be above 0');
  check(t.fenceMs > 0, 'fenceMs must be above 0: nothing stops in no time');
  check(
    t.sessionTtlMs >= (t.renewsLostMax + 1) * t.renewMs + t.rpcMs,
    'sessionTtlMs is too short for renewsLostMax renews to fail ((renewsLostMax + 1) * renewMs + rpcMs)',
  );
  check(
    t.sessionTtlMs >= gossip.sessionTtlMinMs && t.sessionTtlMs <= sessionTtlMsMax,
    `sessionTtlMs must be from ${gossip.sessionTtlMinMs} (session_ttl_min) to ${sessionTtlMsMax}: Consul refuses others`,
  );
  check(t.lockDelayMs <= lockDelayMsMax, `lockDelayMs is above ${lockDelayMsMax}, Consul's limit`);
  check(t.electionMs === 0 || gossip.raftMultiplier === 1, 'raftMultiplier must be 1, or elections take far longer');
  return problems;
}
