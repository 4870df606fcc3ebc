import type { MoveDoc } from '../controller/model/move.ts';
import type { ClusterHost } from '../test/support/cluster/cluster-host.ts';
import { type Counter, counterOf, whereIs } from '../test/support/cluster/counting.ts';
import { fill, type Members } from '../test/support/cluster/members.ts';
import { move } from '../test/support/cluster/moving.ts';
import { until } from '../test/support/until.ts';
import { median, timed } from './measure.ts';
import { seconds, start } from './moves-common.ts';
import { extraRow, type Row, ratioRow } from './report.ts';

const many = 10;
const manyMebibytes = 20;

/** Moves that are asked for at once, until the last one is done; beside one of them alone. */
export async function ten(members: Members): Promise<readonly Row[]> {
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
