import type { PluginHost } from '../test/support/plugin-host.ts';
import { percentile, timed } from './measure.ts';
import { type Call, connect, ensureVolumes, type PluginClient } from './plugin-client.ts';
import { figureRow, ms, type Row } from './report.ts';

export const volumesMax = 1000;
const callsOfEach = 600;
const phaseMsMax = 25_000;
const workers = 3;
const targetMs = 10;

/** What Docker asks all the time, with many volumes: on a node with nothing to do, and while volumes are made and mounted. */
export async function benchAnswers(flock: PluginHost): Promise<readonly Row[]> {
  await flock.flockctl('settings', 'set', 'trash=0');
  const client = await connect(flock);
  await ensureVolumes(client, volumesMax);
  await askAll(client, 50);
  const idle = rowsOf('idle', await askAll(client, callsOfEach), { max: targetMs });
  const mounting = await askDuring(client, 1, (index, signal) => mountAgain(client, index, signal));
  const changing = await askDuring(client, workers, (index, signal) => live(client, index, signal));
  return [
    ...idle,
    ...rowsOf(`during ${mounting.count} x mount, unmount`, mounting.answers, { max: targetMs }),
    ...rowsOf(`during ${changing.count} x create, mount, unmount, remove (3 at a time)`, changing.answers, null),
  ];
}

/** The answers while `count` workers repeat some work, and how often they did it. */
async function askDuring(
  client: PluginClient,
  count: number,
  work: (index: number, signal: AbortSignal) => Promise<number>,
): Promise<{ readonly answers: Answers; readonly count: number }> {
  const stop = new AbortController();
  const working = Promise.all(Array.from({ length: count }, (_, index) => work(index, stop.signal)));
  try {
    const answers = await askAll(client, callsOfEach);
    stop.abort();
    return { answers, count: (await working).reduce((sum, done) => sum + done, 0) };
  } finally {
    stop.abort();
    await working.catch(() => undefined);
  }
}

/** One volume after the other is mounted and unmounted until the signal fires; answers how many. */
async function mountAgain(client: PluginClient, index: number, signal: AbortSignal): Promise<number> {
  let count = 0;
  for (; !signal.aborted; count += 1) {
    const Name = `many${count % volumesMax}`;
    const ID = `mounting-${index}`;
    await client.call('Mount', { Name, ID });
    await client.call('Unmount', { Name, ID });
  }
  return count;
}

type Answers = Readonly<Record<'Get' | 'List' | 'Capabilities', readonly number[]>>;

async function askAll(client: PluginClient, count: number): Promise<Answers> {
  const answers: Record<keyof Answers, number[]> = { Get: [], List: [], Capabilities: [] };
  const ask = async (call: Call & keyof Answers, body?: Readonly<Record<string, unknown>>) =>
    void answers[call].push(await timed(() => client.call(call, body)));
  const startMs = performance.now();
  for (let round = 0; round < count && performance.now() - startMs < phaseMsMax; round += 1) {
    await ask('Get', { Name: `many${(round * 7) % volumesMax}` });
    await ask('List');
    await ask('Capabilities');
  }
  return answers;
}

function rowsOf(when: string, answers: Answers, target: { readonly max: number } | null): readonly Row[] {
  return Object.entries(answers).flatMap(([call, times]) => [
    figureRow(`${call} p99, ${when}`, percentile(times, 0.99), ms, target),
    figureRow(`${call} p50`, percentile(times, 0.5), ms, null),
  ]);
}

/** Volumes come and go without a pause until the signal fires; answers how many. */
async function live(client: PluginClient, index: number, signal: AbortSignal): Promise<number> {
  let count = 0;
  while (!signal.aborted) {
    const Name = `live${index}-${count}`;
    const ID = `mount-of-${Name}`;
    await client.call('Create', { Name, Opts: null });
    await client.call('Mount', { Name, ID });
    await client.call('Unmount', { Name, ID });
    await client.call('Remove', { Name });
    count += 1;
  }
  return count;
}
