import { mkdir } from 'node:fs/promises';
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { createCommands } from '../plugin/exec.ts';
import { createGate } from '../proxy/gate/gate.ts';
import { parseServiceName } from '../proxy/model/names.ts';
import { buildTable } from '../proxy/model/table.ts';
import { servingTimes } from '../proxy/serving.ts';
import { createKernelLayer } from '../proxy/stack/kernel/kernel.ts';
import type { LocalPlace } from '../proxy/stack/kernel/links.ts';
import type { Layer } from '../proxy/stack/layer.ts';
import { createStack } from '../proxy/stack/stack.ts';
import { startHaproxy } from '../test/contract/proxy-haproxy-support.ts';
import { node, type Records, recordsOf } from './proxy-records.ts';

/** Flock's proxy without its store: `proxy-stack-part.ts FOLDER [kernel] [haproxy]`. Says "ready" and answers over the IPC channel. */
export type Question =
  | { readonly apply: Records }
  | { readonly containers: Readonly<Record<string, LocalPlace>> }
  | { readonly held: string }
  | { readonly change: Changes };

/** Of a service `web` on the port, which runs at the addresses in turn; `seconds` long. */
export type Changes = {
  readonly base: Readonly<Record<string, string>>;
  readonly addresses: readonly [string, string];
  readonly port: number;
  readonly perSecond: number;
  readonly seconds: number;
};
export type Changed = {
  /** Of each change, from when it was there to when a request to its new route was answered. */
  readonly tookMs: readonly number[];
  /** Why new routes were not served. */
  readonly failures: readonly string[];
  readonly tables: number;
  /** Of applications that had to be tried again, and those that were slow. */
  readonly problems: readonly string[];
};
/** `startedAtMs`: of the clock on the wall, which clients have, too. */
export type Applied = {
  readonly startedAtMs: number;
  readonly tookMs: number;
  /** Of attempts before the one that succeeded. */
  readonly problems: readonly string[];
};

const [folder = '', ...names] = process.argv.slice(2);
const commands = createCommands();
const startMsMax = 20_000;
const retryMs = 20;
let containers: ReadonlyMap<string, LocalPlace> = new Map();
let generation = 0;

await mkdir(folder, { recursive: true });
const haproxy = names.includes('haproxy') ? await startHaproxy({ later: () => {} }) : null;
const layers: Layer[] = [];
if (names.includes('kernel'))
  layers.push(createKernelLayer({ commands, folder, hostRoot: '', containers: () => containers }));
if (haproxy !== null) layers.push(haproxy.layer);
const gate = createGate(haproxy === null ? {} : { behind: haproxy.gateFolder });
const stack = createStack({ gate, layers });

// HAProxy is of the same group, and does not end by itself.
process.on('disconnect', () => process.kill(0, 'SIGKILL'));

async function apply(records: Records): Promise<Applied> {
  generation += 1;
  const table = buildTable({ ...records, generation }, node);
  const [startedAtMs, startMs] = [Date.now(), performance.now()];
  const failed: string[] = [];
  for (;;) {
    await stack.apply(table);
    const problems = [...stack.problems()].map(([key, text]) => `${key}: ${text}`);
    if (problems.length === 0) break;
    failed.push(`${(performance.now() - startMs).toFixed(0)} ms: ${problems.join('; ')}`);
    if (performance.now() - startMs > startMsMax)
      throw new Error(`the table is not served: ${problems.join('; ')}\n${haproxy?.output() ?? ''}`);
    await sleep(retryMs);
  }
  return { startedAtMs, tookMs: performance.now() - startMs, problems: failed };
}

/** As the proxy's own loop does: whatever has come meanwhile is in the next table, after a pause as long as the last one took. */
async function change({ base, addresses, port, perSecond, seconds }: Changes): Promise<Changed> {
  const tookMs: number[] = [];
  const failures: string[] = [];
  const problems: string[] = [];
  const startMs = performance.now();
  let [done, tables] = [0, 0];
  const count = perSecond * seconds;
  const hostOf = (index: number) => `c${index}.example.com`;
  while (done < count) {
    const passMs = performance.now();
    const there = Math.min(count, Math.floor(((passMs - startMs) / 1000) * perSecond));
    if (there > done) {
      const recent = Array.from({ length: routesMax }, (_, index) => there - 1 - index).filter((index) => index >= 0);
      const routes = { ...base, ...Object.fromEntries(recent.map((index) => [routeText(hostOf(index), port), 'web'])) };
      const places = [[addresses[0]], [addresses[1]], addresses][there % 3] ?? addresses;
      const applied = await apply(recordsOf(routes, { web: places }));
      problems.push(...applied.problems);
      if (applied.tookMs > slowMs) problems.push(`table ${tables} was applied in ${applied.tookMs.toFixed(0)} ms`);
      const status = await statusOf(port, hostOf(there - 1));
      if (status !== '200') failures.push(`${hostOf(there - 1)}: ${status}`);
      const nowMs = performance.now();
      for (let index = done; index < there; index += 1) tookMs.push(nowMs - startMs - ((index + 1) / perSecond) * 1000);
      [done, tables] = [there, tables + 1];
    }
    const { gapMsMin, gapMsMax } = servingTimes;
    await sleep(Math.min(Math.max(performance.now() - passMs, gapMsMin), gapMsMax));
  }
  return { tookMs, failures, tables, problems };
}

/** So many of the newest routes are there at a time; the older ones are removed. */
const routesMax = 50;
const slowMs = 1_000;
const answerMsMax = 5_000;

function routeText(host: string, port: number): string {
  return `http://${host}:${port} -> 80`;
}

function statusOf(port: number, host: string): Promise<string> {
  return new Promise((resolve) => {
    const asked = request({ host: '127.0.0.1', port, agent: false, headers: { host }, timeout: answerMsMax });
    asked.on('timeout', () => asked.destroy(new Error(`no answer within ${answerMsMax} ms`)));
    asked.on('error', (error) => resolve(error.message));
    asked.on('response', (response) => {
      response.resume();
      resolve(String(response.statusCode));
    });
    asked.end();
  });
}

async function answer(question: Question): Promise<unknown> {
  if ('apply' in question) return apply(question.apply);
  if ('held' in question) return (await stack.inFlight(parseServiceName(question.held))).held;
  if ('change' in question) return change(question.change);
  containers = new Map(Object.entries(question.containers));
  return null;
}

// Sent where nothing else can be: the message has to be an object or a text.
process.on('message', (question: Question) => {
  // What can't be measured ends the process, and with it the question.
  void answer(question).then((value) => process.send?.({ value }));
});
process.send?.('ready');
