import { loadavg } from 'node:os';
import { ensureInstalled } from '../packaging/debian.ts';
import { requireRoot, runProgram } from '../packaging/steps.ts';
import { benchChanges } from './proxy-changes.ts';
import { type Ground, makeGround } from './proxy-ground.ts';
import { benchHold } from './proxy-hold.ts';
import { benchHttp } from './proxy-http.ts';
import { benchTcp } from './proxy-tcp.ts';
import { type Row, table } from './report.ts';

/**
 * The proxy beside HAProxy, nginx, http-proxy and node-tcp-proxy: `proxy.ts [NAME...] [seconds=2] [rounds=3]` with names of benchmarks, all by
 * default. Run it as `make bench-proxy`; it wants process and mount namespaces of its own. Only ratios of one run mean anything; on a busy machine the
 * processor time per request says more than the requests per second. A target that is missed is printed and fails nothing.
 */
export type Effort = {
  /** Of each side in each round. */
  readonly seconds: number;
  /** That count; one more comes before them. */
  readonly rounds: number;
  readonly pings: number;
};

const benches = {
  tcp: benchTcp,
  http: benchHttp,
  hold: benchHold,
  changes: benchChanges,
} as const satisfies Readonly<Record<string, (ground: Ground, effort: Effort) => Promise<readonly Row[]>>>;
type Name = keyof typeof benches;
const names = Object.keys(benches) as readonly Name[];

const packages = ['wrk', 'iperf3', 'nginx-light', 'haproxy', 'nftables', 'conntrack', 'iptables', 'iproute2'];
const pings = 5_000;
const bounds = { seconds: 10, rounds: 20 } as const;

async function main(args: readonly string[]): Promise<void> {
  requireRoot();
  const { wanted, effort } = parse(args);
  const installed = await ensureInstalled(packages);
  if (installed.length > 0) console.log(`installed ${installed.join(', ')}`);
  for (const name of wanted) {
    const [before, startMs] = [loadavg()[0] ?? 0, performance.now()];
    console.log(`\n## ${name}\n`);
    try {
      console.log(table(await measured(name, effort)));
    } catch (error) {
      console.log(`${name} could not be measured: ${error instanceof Error ? error.message : String(error)}`);
      process.exitCode = 1;
    }
    const took = Math.round((performance.now() - startMs) / 1000);
    console.log(
      `\n${took} s; load of the machine ${before.toFixed(1)} before, ${(loadavg()[0] ?? 0).toFixed(1)} after`,
    );
  }
}

/** Each has hosts of its own: none finds what another one has left. */
async function measured(name: Name, effort: Effort): Promise<readonly Row[]> {
  const ground = await makeGround();
  try {
    return await benches[name](ground, effort);
  } finally {
    await ground.dispose();
  }
}

function parse(args: readonly string[]): { readonly wanted: readonly Name[]; readonly effort: Effort } {
  const effort = { seconds: 2, rounds: 3, pings };
  const wanted: Name[] = [];
  for (const arg of args) {
    const [, option, text] = /^(seconds|rounds)=(\d+)$/.exec(arg) ?? [];
    const name = names.find((one) => one === arg);
    if (name !== undefined) wanted.push(name);
    else if (option === 'seconds' || option === 'rounds') {
      const value = Number(text);
      if (value < 1 || value > bounds[option]) throw new Error(`${arg}: from 1 to ${bounds[option]}`);
      effort[option] = value;
    } else throw new Error(`there is no benchmark or option "${arg}": ${names.join(', ')}, seconds=N, rounds=N`);
  }
  return { wanted: wanted.length === 0 ? names : wanted, effort };
}

await runProgram(() => main(process.argv.slice(2)));
