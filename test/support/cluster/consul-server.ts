import { request } from 'node:http';
import { join } from 'node:path';
import { type Timing, timings } from '../../../controller/model/timing.ts';
import { ensureConsul } from '../../../packaging/consul.ts';
import type { Host } from '../host/host.ts';
import { addressOf } from './network.ts';

/** The Consul server of one host; its data is on the host's disk. */
export type ConsulServer = {
  /** Command lines of its process start with it. */
  readonly program: string;
  readonly address: string;
  start(host: Host): Promise<void>;
  /** One request to the host's agent; answers the decoded JSON, or the text if it is none. Throws if the status is not 2xx. */
  api(method: 'GET' | 'PUT' | 'DELETE', path: string, body?: string): Promise<unknown>;
};

export type ConsulOptions = {
  readonly number: number;
  readonly count: number;
  /** The host's disk. */
  readonly disk: string;
  readonly speed: ConsulSpeed;
};

/**
 * default: sessions may end after 10 s as everywhere else; fast: after 2 s, for tests that wait for it; fast-gossip: dead hosts are found
 * sooner, too, as the README has it for `--profile fast`. A machine that is busy with other tests would miss these probes.
 */
export type ConsulSpeed = 'default' | 'fast' | 'fast-gossip';

const apiMsMax = 3_000;

export async function createConsulServer(options: ConsulOptions): Promise<ConsulServer> {
  const { number, count, disk, speed } = options;
  const program = await ensureConsul();
  const address = addressOf(number);
  // A socket is reached from outside of the host's network too, also when that is cut.
  const socketPath = join(disk, 'consul.sock');
  const settings = {
    addresses: { http: `127.0.0.1 ${address} unix://${socketPath}` },
    performance: { raft_multiplier: 1 },
    session_ttl_min: `${(speed === 'default' ? timings.default : timings.fast).gossip.sessionTtlMinMs}ms`,
    ...(speed === 'fast-gossip' ? { gossip_lan: gossipOf(timings.fast) } : {}),
    // A dead server stays a member, or it would come back without a vote; one whose host is busy with other tests is well.
    autopilot: { cleanup_dead_servers: false, last_contact_threshold: '2s' },
    leave_on_terminate: false,
    disable_update_check: true,
    connect: { enabled: false },
    ports: { grpc: -1 },
  };
  const others = Array.from({ length: count }, (_, index) => `-retry-join=${addressOf(index + 1)}`);
  const args = [
    'agent',
    '-server',
    `-bootstrap-expect=${count}`,
    `-node=n${number}`,
    '-disable-host-node-id',
    `-bind=${address}`,
    `-client=127.0.0.1 ${address}`,
    `-data-dir=${join(disk, 'consul')}`,
    '-retry-interval=1s',
    ...others,
    // HCL takes JSON too.
    `-hcl=${JSON.stringify(settings)}`,
  ];
  return {
    program,
    address,
    start: async (host) => void (await host.daemon('consul', program, args)),
    api: (method, path, body) => call(socketPath, method, path, body),
  };
}

function gossipOf({ gossip }: Timing) {
  return {
    probe_interval: `${gossip.probeIntervalMs}ms`,
    probe_timeout: `${gossip.probeTimeoutMs}ms`,
    suspicion_mult: gossip.suspicionMult,
  };
}

function call(socketPath: string, method: string, path: string, body: string | undefined): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(apiMsMax);
    const sent = request({ socketPath, method, path, signal, agent: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      answer.on('error', reject);
      answer.on('end', () => {
        const status = answer.statusCode ?? 0;
        if (status < 200 || status > 299) reject(new Error(`${method} ${path}: status ${status}: ${text.trim()}`));
        else resolve(decode(text));
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

function decode(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

type AutopilotHealth = {
  readonly Healthy: boolean;
  readonly Servers: readonly { readonly Healthy: boolean; readonly Voter: boolean }[];
};

/** The address of the server that most of them, and it itself, take for their leader, or null: for a while they go on naming a dead one. */
export async function leaderAddress(servers: readonly ConsulServer[]): Promise<string | null> {
  const answers = await Promise.all(servers.map((server) => server.api('GET', '/v1/status/leader').catch(() => '')));
  const votes = new Map<string, number>();
  for (const answer of answers)
    if (typeof answer === 'string' && answer !== '') votes.set(answer, (votes.get(answer) ?? 0) + 1);
  const [leader, count = 0] = [...votes].sort(([, a], [, b]) => b - a)[0] ?? [];
  if (leader === undefined || count * 2 <= servers.length) return null;
  const address = leader.replace(/:\d+$/, '');
  const own = servers.findIndex((server) => server.address === address);
  return answers[own] === leader ? address : null;
}

/** Of `/v1/agent/self`; all texts. */
type RaftStats = {
  readonly state: string;
  /** "0" on the leader, "never", or a duration. */
  readonly last_contact: string;
  readonly applied_index: string;
  readonly commit_index: string;
};

/** So many entries may be on their way to a server that keeps up. */
const lagMax = 64;

/** Whether all servers have a vote and are well, so that the next fault meets a whole cluster. */
export async function allHealthy(servers: readonly ConsulServer[]): Promise<boolean> {
  const ask = (path: string) => Promise.all(servers.map((server) => server.api('GET', path).catch(() => null)));
  // Each must have a leader itself before it answers. The answer is some seconds old, so it does not show a quick restart.
  const verdicts = (await ask('/v1/operator/autopilot/health')).map((answer) => answer as AutopilotHealth | null);
  if (!verdicts.every((health) => health?.Healthy === true && votersOf(health) === servers.length)) return false;
  const stats = (await ask('/v1/agent/self')).map(
    (answer) => (answer as { readonly Stats: { readonly raft: RaftStats } } | null)?.Stats.raft,
  );
  const committed = Number(stats.find((each) => each?.state === 'Leader')?.commit_index);
  return stats.every((each) => {
    // Without a leader `committed` is no number, and nothing compares with that.
    if (each === undefined || !(committed - Number(each.applied_index) <= lagMax)) return false;
    return each.state === 'Leader' || (each.state === 'Follower' && each.last_contact !== 'never');
  });
}

function votersOf({ Servers }: AutopilotHealth): number {
  return Servers.filter(({ Healthy, Voter }) => Healthy && Voter).length;
}
