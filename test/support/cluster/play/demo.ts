/**
 * `make demo`: three hosts on this machine, a web page that counts, clients at all hosts, and a move every few seconds; then the host that
 * the page is on dies. A line for each second; ends by itself after about a minute and a half.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { pauseMsOf } from '../../../../controller/model/move-summary.ts';
import { ensureInstalled } from '../../../../packaging/debian.ts';
import { buildProxyRootfs, buildRootfs } from '../../../../packaging/rootfs.ts';
import { requireRoot, runProgram } from '../../../../packaging/steps.ts';
import { clusterPackages } from '../../packages.ts';
import { until } from '../../until.ts';
import { type Cluster, startCluster } from '../cluster.ts';
import { answersFrom, checkNoted, counterOf, notedBy, ownerOf, startCounter } from '../counting.ts';
import { copiesOf, type Members } from '../members.ts';
import { known, move } from '../moving.ts';
import { type LoadTick, type RequestLoad, startRequestLoad } from '../request-load.ts';

const movesMs = 45_000;
const betweenMovesMs = 4_000;
const backMsMax = 60_000;
const afterwardsMs = 6_000;
const pagePort = 8_080;
const counter = counterOf('counter');

const isTerminal = process.stdout.isTTY === true;
const colored = (color: number, text: string) => (isTerminal ? `\u001b[${color}m${text}\u001b[0m` : text);
const say = (text: string) => console.log(text);

/** What the clients of all hosts have seen. */
type Sum = Pick<LoadTick, 'done' | 'failed' | 'waitedMs'>;

function sumOf(loads: readonly RequestLoad[]): Sum {
  const ticks = loads.map((load) => load.seen());
  return {
    done: ticks.reduce((sum, { done }) => sum + done, 0),
    failed: ticks.reduce((sum, { failed }) => sum + failed, 0),
    waitedMs: Math.max(...ticks.map(({ waitedMs }) => waitedMs)),
  };
}

/** A line each second, with what happened in it. */
function startLines(loads: readonly RequestLoad[]): { note(text: string): void; stop(): void } {
  const startMs = performance.now();
  let before = sumOf(loads);
  let doneBefore = new Map<RequestLoad, number>();
  let notes: string[] = [];
  let place = '-';
  const timer = setInterval(() => {
    const now = sumOf(loads);
    const [done, failed] = [now.done - before.done, now.failed - before.failed];
    // Where most was answered: who waits or only fails has old news.
    const newsOf = (load: RequestLoad) => load.seen().done - (doneBefore.get(load) ?? 0);
    const [most] = loads.toSorted((a, b) => newsOf(b) - newsOf(a));
    if (most !== undefined && newsOf(most) > 0) place = most.seen().node ?? place;
    doneBefore = new Map(loads.map((load) => [load, load.seen().done]));
    const seconds = String(Math.round((performance.now() - startMs) / 1000)).padStart(3);
    const cells = [
      `${seconds} s`,
      `${String(done).padStart(4)} requests/s`,
      colored(failed === 0 ? 32 : 31, `${String(failed).padStart(3)} failed`),
      `on ${colored(36, place)}`,
      notes.join('; '),
    ];
    say(cells.join('   ').trimEnd());
    [before, notes] = [now, []];
  }, 1_000);
  return {
    note: (text) => void notes.push(text),
    stop: () => clearInterval(timer),
  };
}

async function play(cluster: Cluster): Promise<void> {
  const members: Members = { backend: cluster.backend, cluster, n: cluster.host };
  await cluster.network.openLeg();
  const route = ['--label', `flock.route.page=http://:${pagePort} -> 8080`];
  const volume = ['replicas=1', 'remote-replicas=2', 'failover=auto'];
  await startCounter(cluster.host(1), counter, { volume, run: route });
  await known(members, cluster.host(1), counter.name);
  await answersFrom(cluster.hosts, counter, 'n1');
  await until('the volume has copies', backMsMax, async () =>
    (await copiesOf(cluster.host(1))).filter(({ snapshot }) => snapshot !== null).length === 2 ? true : undefined,
  );
  say(`the page: http://${cluster.host(1).address}:${pagePort}/ (or at any other host)\n`);

  const loads = cluster.hosts.map(({ name, address }) =>
    startRequestLoad(
      // From this machine, so that no client dies with a host.
      { host: { pid: process.pid } },
      { name, url: `http://${address}/`, host: counter.host, timeoutMs: 8_000, tickMs: 200 },
    ),
  );
  const lines = startLines(loads);
  const pauses: number[] = [];
  let at = cluster.host(1);
  for (const endMs = performance.now() + movesMs; performance.now() < endMs; ) {
    await sleep(betweenMovesMs);
    const to = cluster.host((at.number % cluster.hosts.length) + 1);
    const done = await move(members, at, counter.name, to);
    const waitedMs = pauseMsOf(done) ?? 0;
    pauses.push(waitedMs);
    lines.note(`moved ${at.name} -> ${to.name}, new requests waited ${waitedMs} ms`);
    at = to;
  }
  await sleep(1_000);
  const moved = sumOf(loads);
  const longest = Math.max(...loads.map((load) => load.seen().longestMs));

  lines.note(colored(31, `${at.name} is killed`));
  const killedMs = performance.now();
  await at.kill();
  const rest = cluster.hosts.filter((host) => host !== at);
  const next = await until('the page is served again', backMsMax, async () => {
    const owner = await ownerOf(members, counter.volume).catch(() => at);
    if (owner === at) return undefined;
    return await answersFrom(rest, counter, owner.name, 0).then(
      () => owner,
      () => undefined,
    );
  });
  const backSeconds = ((performance.now() - killedMs) / 1000).toFixed(1);
  lines.note(colored(32, `served again, from ${next.name}, ${backSeconds} s after the kill`));
  await sleep(afterwardsMs / 2);
  await at.boot();
  lines.note(`${at.name} is up again`);
  await sleep(afterwardsMs);
  lines.stop();

  const results = await Promise.all(loads.map((load) => load.stop()));
  const all = sumOf(loads);
  const { faults } = checkNoted(await notedBy(await ownerOf(members, counter.volume), counter), results);
  const twice = faults.filter((fault) => fault.includes(' times')).length;
  const sorted = pauses.toSorted((a, b) => a - b);
  say(`
${pauses.length} moves: ${moved.done} requests, ${colored(moved.failed === 0 ? 32 : 31, `${moved.failed} failed`)}; the longest took ${longest} ms
new requests waited ${sorted[Math.floor(sorted.length / 2)]} ms in the middle of all moves, ${sorted.at(-1)} ms at most
a host killed: served again after ${backSeconds} s; ${all.failed - moved.failed} requests failed until then
${twice} requests were done twice; ${faults.length - twice} of the last ones before the kill had not been copied yet: they are on its disk, and in a stash when it is back`);
}

await runProgram(async () => {
  requireRoot();
  await ensureInstalled(clusterPackages);
  await buildRootfs();
  await buildProxyRootfs();
  say('starting three hosts with Docker, Consul and flock; that takes about half a minute ...');
  const cluster = await startCluster({ backend: 'btrfs', profile: 'default', proxy: true });
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void cluster.dispose().finally(() => process.exit(1)));
  try {
    await play(cluster);
  } finally {
    await cluster.dispose();
  }
});
process.exit();
