import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MoveDoc } from '../controller/model/move.ts';
import { type Cluster, startCluster } from '../test/support/cluster/cluster.ts';
import type { ClusterHost } from '../test/support/cluster/cluster-host.ts';
import { answersFrom, type Counter, counterOf, startCounter, whereIs } from '../test/support/cluster/counting.ts';
import { copiesOf, fill, type Members, volumeOf } from '../test/support/cluster/members.ts';
import { known, move, workloadsOf } from '../test/support/cluster/moving.ts';
import { entriesBelow } from '../test/support/cluster/store-entries.ts';
import { until } from '../test/support/until.ts';
import { interleave, median, percentile, timed } from './measure.ts';
import { extraRow, figureRow, type Row, ratioRow, table } from './report.ts';

/**
 * Measures moves and failovers on a cluster of three test hosts (btrfs): `moves.ts [NAME...]` with names pause, precopy, ten, failover,
 * fast. Run it as `make bench-moves`; it wants mount and process namespaces of its own.
 */
const measures: Readonly<Record<string, { readonly profile: 'fast' | 'default'; run: Measure }>> = {
  pause: { profile: 'default', run: pause },
  precopy: { profile: 'default', run: precopy },
  ten: { profile: 'default', run: ten },
  failover: { profile: 'default', run: (members) => failover(members, 17) },
  fast: { profile: 'fast', run: (members) => failover(members, 10) },
};
type Measure = (members: Members) => Promise<readonly Row[]>;

const seconds = (value: number) => `${value.toFixed(1)} s`;
const copies = ['replicas=2', 'failover=auto'];

async function start(
  members: Members,
  counter: Counter,
  at: ClusterHost,
  options: readonly string[],
  run: readonly string[] = [],
) {
  await startCounter(at, counter, { volume: options, run });
  await known(members, at, counter.name);
  await answersFrom(members.cluster.hosts, counter, at.name);
}

async function inSync(members: Members, { volume }: Counter, count: number): Promise<void> {
  await until(`${volume} has ${count} copies`, 120_000, async () => {
    const found = (await copiesOf(members.n(1))).filter((copy) => copy.volume === volume && copy.snapshot !== null);
    return found.length === count && found.every(({ state }) => state === 'in-sync') ? true : undefined;
  });
}

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

const precopyMebibytes = 1_000;
const precopyRounds = 3;

/** The copying step of a volume that the target knows nothing of; beside one program's output in the other's input. */
async function precopy(members: Members): Promise<readonly Row[]> {
  const flock: number[] = [];
  const raw: number[] = [];
  for (let round = 1; round <= precopyRounds; round += 1) {
    const counter = counterOf(`big${round}`);
    const [first, second, third] = [members.n(1), members.n(2), members.n(3)];
    await start(members, counter, first, []);
    await fill(first, counter.volume, precopyMebibytes);
    raw.push(await rawCopy(members, first, third, counter));
    const { history } = await move(members, third, counter.name, second);
    flock.push(history.find(({ step }) => step === 'copying')?.ms ?? Number.NaN);
    await second.docker('rm', '-f', counter.name);
    await until('the volume can go', 60_000, () =>
      second.flockctl('volume', 'rm', counter.volume).catch(() => undefined),
    );
    for (const host of members.cluster.hosts) {
      const trash = (await host.json('trash', 'ls')) as readonly { readonly id: string }[];
      for (const { id } of trash) await host.flockctl('trash', 'purge', id).catch(() => '');
    }
  }
  const rate = (ms: readonly number[]) => precopyMebibytes / 1024 / (median(ms) / 1000);
  const gibibytes = (value: number) => `${value.toFixed(2)} GiB/s`;
  return [
    ratioRow(
      'pre-copy of 1 GB',
      gibibytes(rate(flock)),
      `raw send|receive ${gibibytes(rate(raw))}`,
      rate(flock) / rate(raw),
      {
        min: 0.8,
      },
    ),
  ];
}

/** `btrfs send` of a snapshot on one host into `btrfs receive` on another one, where the plugins have their pools. Answers ms. */
async function rawCopy(members: Members, from: ClusterHost, to: ClusterHost, { volume }: Counter): Promise<number> {
  const pool = '/run/flock/pool';
  const { id } = (await volumeOf(members, volume)).doc;
  const inside = async (host: ClusterHost, ...words: readonly string[]) => [
    '-t',
    String(await host.pluginPid()),
    '-m',
    // Or /proc shows other processes than it is one of, and receive finds no mount points.
    '-p',
    '--',
    '/usr/bin/btrfs',
    ...words,
  ];
  const run = async (host: ClusterHost, ...words: readonly string[]) => {
    const child = spawn('nsenter', await inside(host, ...words), { stdio: ['ignore', 'ignore', 'inherit'] });
    const [code] = await once(child, 'exit');
    if (code !== 0) throw new Error(`btrfs ${words.join(' ')} ended with status ${code}`);
  };
  const snapshot = `${pool}/meta/bench-raw`;
  await run(from, 'subvolume', 'snapshot', '-r', `${pool}/volumes/${id}`, snapshot);
  try {
    return await timed(async () => {
      const send = spawn('nsenter', await inside(from, 'send', '-q', snapshot), {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const receive = spawn('nsenter', await inside(to, 'receive', '-q', `${pool}/meta`), {
        stdio: ['pipe', 'ignore', 'inherit'],
      });
      const ends = [once(send, 'exit'), once(receive, 'exit')];
      await pipeline(send.stdout, receive.stdin);
      for (const [code] of await Promise.all(ends)) if (code !== 0) throw new Error(`the raw copy failed: ${code}`);
    });
  } finally {
    await run(from, 'subvolume', 'delete', snapshot);
    await run(to, 'subvolume', 'delete', snapshot);
  }
}

const many = 10;
const manyMebibytes = 20;

/** Moves that are asked for at once, until the last one is done; beside one of them alone. */
async function ten(members: Members): Promise<readonly Row[]> {
  const [first, second] = [members.n(1), members.n(2)];
  const counters = Array.from({ length: many }, (_, index) => counterOf(`one${index}`));
  for (const counter of counters) {
    await start(members, counter, first, []);
    await fill(first, counter.volume, manyMebibytes);
  }
  const rounds: Readonly<Record<'one' | 'all' | 'bareOne' | 'bareAll', number>>[] = [];
  const done: { readonly alone: MoveDoc[]; readonly together: MoveDoc[] } = { alone: [], together: [] };
  const moved = (names: readonly string[], into: MoveDoc[]) =>
    timed(
      async () => void into.push(...(await Promise.all(names.map((name) => move(members, members.n(3), name, to))))),
    );
  let [at, to] = [first, second];
  for (let round = 0; round < 3; round += 1) {
    const all = await moved(
      counters.map(({ name }) => name),
      done.together,
    );
    [at, to] = [to, at];
    const one = await moved([counters[0]?.name ?? ''], done.alone);
    await move(members, members.n(3), counters[0]?.name ?? '', at);
    rounds.push({
      one,
      all,
      bareOne: await restarted(at, counters.slice(0, 1)),
      bareAll: await restarted(at, counters),
    });
  }
  const of = (name: keyof (typeof rounds)[number]) => median(rounds.map((round) => round[name]));
  const [one, all, bareOne, bareAll] = [of('one'), of('all'), of('bareOne'), of('bareAll')];
  const what = `${many} moves of ${manyMebibytes} MB at once`;
  const stepMs = (moves: readonly MoveDoc[], step: string) =>
    median(
      moves.map(({ history }) => history.filter((past) => past.step === step).reduce((sum, { ms }) => sum + ms, 0)),
    );
  const steps = [...new Set(done.together.flatMap(({ history }) => history.map(({ step }) => step)))];
  return [
    ratioRow(what, seconds(all / 1000), `one of them alone ${seconds(one / 1000)}`, all / one, { max: 3 }),
    ratioRow(
      `docker stop + start of ${many} at once`,
      '',
      `${seconds(bareAll / 1000)}, of one alone ${seconds(bareOne / 1000)}`,
      bareAll / bareOne,
      null,
    ),
    ...steps.map((step) =>
      extraRow(`of which ${step}, median`, stepMs(done.together, step), 'alone', stepMs(done.alone, step), null),
    ),
  ];
}

/** What this machine's processors allow: the same containers stopped and started where they are. */
async function restarted(host: ClusterHost, counters: readonly Counter[]): Promise<number> {
  return await timed(async () => {
    await Promise.all(
      counters.map(async ({ name }) => {
        await host.docker('stop', name);
        await host.docker('start', name);
      }),
    );
    for (const counter of counters)
      await until('it answers', 60_000, async () => (await whereIs(host, counter)) ?? undefined);
  });
}

const failoverRounds = 8;
/** So long a volume is not taken by itself again (docs/design.md, failover). */
const calmMs = 61_000;

/** From a host's death to the service's next answer, and what of it took how long. */
async function failover(members: Members, secondsMax: number): Promise<readonly Row[]> {
  const counter = counterOf('web');
  await start(members, counter, members.n(1), copies);
  const rounds: Readonly<Record<'detect' | 'takeover' | 'start' | 'total', number>>[] = [];
  for (let round = 0; round < failoverRounds; round += 1) {
    await inSync(members, counter, 2);
    if (round > 0) await sleep(calmMs);
    rounds.push(await failoverOnce(members, counter));
  }
  const column = (name: 'detect' | 'takeover' | 'start' | 'total') => rounds.map((round) => round[name] / 1000);
  const row = (what: string, name: 'detect' | 'takeover' | 'start') =>
    figureRow(`${what}, median`, median(column(name)), seconds, null);
  return [
    row('until the session is over', 'detect'),
    row('from then until the volume has another owner (guard and transaction)', 'takeover'),
    row('from then until the first answer (mount, container, routes)', 'start'),
    figureRow(`failover in all, median of ${rounds.length}`, median(column('total')), seconds, null),
    figureRow('failover in all, longest', Math.max(...column('total')), seconds, { max: secondsMax }),
  ];
}

async function failoverOnce(members: Members, counter: Counter) {
  const { cluster } = members;
  const placed = (await workloadsOf(members)).find(({ name }) => name === counter.name)?.node;
  const victim = cluster.hosts.find(({ name }) => name === placed) ?? members.n(1);
  const rest = cluster.hosts.filter((host) => host !== victim);
  const asker = rest[0] ?? members.n(2);
  const startMs = performance.now();
  const since = () => performance.now() - startMs;
  await victim.kill();
  const detect = await until('its session is over', 60_000, async () => {
    const alive = await entriesBelow({ hosts: rest }, `alive/${victim.name}`).catch(() => null);
    return alive?.every(({ session }) => session === null) ? since() : undefined;
  });
  const takeover = await until('another one owns the volume', 60_000, async () => {
    const found = await volumeOf({ ...members, cluster: { ...cluster, hosts: rest } }, counter.volume).catch(
      () => null,
    );
    return found !== null && found.doc.owner !== victim.name ? since() : undefined;
  });
  const total = await until('it answers', 60_000, async () =>
    (await whereIs(asker, counter)) === null ? undefined : since(),
  );
  await victim.boot();
  await cluster.waitForConsul();
  return { detect, takeover: takeover - detect, start: total - takeover, total };
}

async function main(words: readonly string[]): Promise<void> {
  const chosen = Object.entries(measures).filter(([name]) => words.length === 0 || words.includes(name));
  for (const [name, { profile, run }] of chosen) {
    const labels = [1, 2, 3].map(() => ({ dc: 'one' }));
    const cluster: Cluster = await startCluster({
      backend: 'btrfs',
      profile,
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
