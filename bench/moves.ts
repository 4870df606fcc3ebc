import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Cluster, startCluster } from '../test/support/cluster/cluster.ts';
import type { ConsulSpeed } from '../test/support/cluster/consul-server.ts';
import { counterOf, whereIs } from '../test/support/cluster/counting.ts';
import type { Members } from '../test/support/cluster/members.ts';
import { move } from '../test/support/cluster/moving.ts';
import { until } from '../test/support/until.ts';
import { interleave, median, percentile } from './measure.ts';
import { copies, inSync, start } from './moves-common.ts';
import { precopy } from './moves-copy.ts';
import { failover } from './moves-failover.ts';
import { ten } from './moves-many.ts';
import { extraRow, type Row, table } from './report.ts';

/**
 * Measures moves and failovers on a cluster of three test hosts (btrfs): `moves.ts [NAME...]` with names pause, precopy, ten, failover,
 * fast. Run it as `make bench-moves`; it wants mount and process namespaces of its own.
 */
const measures: Readonly<
  Record<string, { readonly profile: 'fast' | 'default'; readonly consul?: ConsulSpeed; run: Measure }>
> = {
  pause: { profile: 'default', run: pause },
  precopy: { profile: 'default', run: precopy },
  ten: { profile: 'default', run: ten },
  failover: { profile: 'default', run: (members) => failover(members, 17) },
  fast: { profile: 'fast', consul: 'fast-gossip', run: (members) => failover(members, 10) },
};
type Measure = (members: Members) => Promise<readonly Row[]>;

/** A client that asks without a break; `longest` answers its longest wait since the last time. */
function startGaps(from: { readonly pid: number }, url: string, host: string) {
  const program = join(import.meta.dirname, 'gap-process.ts');
  const child = spawn('nsenter', ['-t', String(from.pid), '-n', '--', process.execPath, program, url, host], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout });
  return {
    async longest(): Promise<number> {
      const answer = once(lines, 'line');
      child.stdin.write('\n');
      return Number((await answer)[0]);
    },
    stop: () => child.kill('SIGKILL'),
  };
}

const pauseRounds = { warm: 2, counted: 30, maxMs: 400_000 };

/** The longest wait of a client during a move, with at most 1 MB unsent; beside that of one that asks the container itself at a stop and start. */
async function pause(members: Members): Promise<readonly Row[]> {
  const counter = counterOf('web');
  const [first, second, third] = [members.n(1), members.n(2), members.n(3)];
  await start(members, counter, first, copies, ['-p', '8099:8080']);
  await inSync(members, counter, 2);
  const through = startGaps(third.host, `http://${third.address}/`, counter.host);
  let at = first;
  const write = () =>
    at.docker(
      'exec',
      'web',
      '/usr/bin/node',
      '-e',
      "require('node:fs').writeFileSync('/data/small', Buffer.alloc(900000, Math.random()))",
    );
  try {
    const [moved = [], restarted = []] = await interleave(pauseRounds, [
      async () => {
        await write();
        await through.longest();
        const to = at === first ? second : first;
        await move(members, third, 'web', to);
        at = to;
        return await through.longest();
      },
      async () => {
        const direct = startGaps(at.host, 'http://127.0.0.1:8099/', counter.host);
        try {
          await until('it is asked', 10_000, async () => ((await direct.longest()) > 0 ? true : undefined));
          await at.docker('stop', 'web');
          await at.docker('start', 'web');
          await until('it answers', 30_000, async () => (await whereIs(third, counter)) ?? undefined);
          return await direct.longest();
        } finally {
          direct.stop();
        }
      },
    ]);
    const what = `pause of a move, 1 MB unsent (${moved.length} moves)`;
    const beside = 'docker stop + start';
    return [
      extraRow(`${what}, median`, median(moved), beside, median(restarted), { max: 400 }),
      extraRow(`${what}, p99`, percentile(moved, 0.99), beside, percentile(restarted, 0.99), { max: 1_000 }),
    ];
  } finally {
    through.stop();
  }
}

async function main(words: readonly string[]): Promise<void> {
  const chosen = Object.entries(measures).filter(([name]) => words.length === 0 || words.includes(name));
  for (const [name, { profile, consul = profile, run }] of chosen) {
    const labels = [1, 2, 3].map(() => ({ dc: 'one' }));
    const cluster: Cluster = await startCluster({
      backend: 'btrfs',
      ...{ profile, consul },
      labels,
      proxy: true,
      settings: 'pool-size=4G',
    });
    try {
      const rows = await run({ backend: 'btrfs', cluster, n: cluster.host });
      console.log(`\n## ${name}\n\n${table(rows)}`);
    } finally {
      await cluster.dispose();
    }
  }
}

await main(process.argv.slice(2));
process.exit();
