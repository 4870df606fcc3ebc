import { spawn } from 'node:child_process';
import { globSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import Mocha from 'mocha';
import { ensureInstalled } from '../packaging/debian.ts';
import { buildProxyRootfs, buildRootfs } from '../packaging/rootfs.ts';
import { lanes, last, type Suite, type SuiteName, suites } from './suites.ts';

/**
 * Runs the project's tests, installing what they need first: `run.ts [SUITE...]`, all suites by default, then only a sample of the longest
 * tests unless WHOLE is set (see support/short.ts). The last line is
 * `N passed, N failed, N skipped`; the exit status is 1 on a failure, and with SKIPS=refuse on a skip too. Each suite runs in a
 * process and mount namespace of its own, so that nothing it mounts can stay behind.
 *
 * Hundreds of tests wait for real daemons on a machine that others use, too, and suites run at the same time (see suites.ts). So a few
 * that fail are run once more when all others are through, alone: those that pass then are named as unsteady at the end, to be mended; a
 * fault of flock's fails twice.
 */

type Result = {
  /** Full titles. */
  readonly passed: readonly string[];
  readonly failed: readonly Failure[];
  readonly skipped: number;
  /** Failed at first, passed alone. */
  readonly unsteady: readonly Failure[];
};

/**
 * `again`: the titles that are to be run again; empty: none can be. A hook that failed has kept the rest of its
 * block from running, which may build on what came before.
 */
type Failure = { readonly title: string; readonly again: readonly string[]; readonly message: string };

const here = import.meta.dirname;

async function main(args: readonly string[]): Promise<number> {
  const [mode, name, resultFile] = args;
  if (mode === '--in-process' && name !== undefined && resultFile !== undefined) {
    await writeFile(resultFile, JSON.stringify(await runMocha(find(name), false)));
    return 0;
  }
  const all = [...lanes.flat(), last];
  const chosen = args.length === 0 ? all : args.map((one) => find(one).name);
  const isShort = [args.length > 0, process.env['WHOLE'], process.env['GREP']].every((one) => !one);
  if (isShort) process.env['FLOCK_TEST'] = 'short';
  const forgotten = Object.keys(suites).filter((one) => !all.some((known) => known === one));
  if (forgotten.length > 0) throw new Error(`no lane has the suites ${forgotten.join(', ')}`);
  for (const suite of chosen.map(find)) if (!isRefused(suite)) await prepare(suite);
  const folder = await mkdtemp(join(tmpdir(), 'flock-test-'));
  try {
    return report(
      await runAll(
        all.filter((one) => chosen.includes(one)),
        folder,
        isShort,
      ),
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

type Attempted = { readonly suite: Suite; readonly result: Result };

async function runAll(chosen: readonly SuiteName[], folder: string, isShort: boolean): Promise<readonly Result[]> {
  const isAlone = chosen.length === 1;
  const attempted: Attempted[] = [];
  // One after the other, as they are counted in this process.
  for (const suite of chosen.map(find).filter(isRefused)) attempted.push({ suite, result: await refuse(suite) });
  /** Shows nothing in the middle of what is shown as it comes. */
  const later: string[] = [];
  const runLane = async (names: readonly SuiteName[], isShown: boolean) => {
    for (const suite of names.map(find).filter((one) => !isRefused(one))) {
      const file = join(folder, `${suite.name}.txt`);
      if (isShown) console.log(`\n== ${suite.name} ==`);
      const manner: Manner = { output: isShown ? 'inherit' : openSync(file, 'w'), before: isAlone ? [] : suite.beside };
      const startedMs = performance.now();
      const result = await attempt(suite, folder, process.env['GREP'] ?? (isShort ? suite.sample : undefined), manner);
      attempted.push({ suite, result: isShort ? withSomething(suite, result) : result });
      console.log(`${suite.name} took ${Math.round((performance.now() - startedMs) / 1000)} s`);
      if (!isShown) later.push(`\n== ${suite.name} ==\n${await readFile(file, 'utf8')}`);
    }
  };
  const running = lanes
    .map((lane) => lane.filter((one) => chosen.includes(one)))
    .filter((lane) => lane.length > 0)
    .map((lane, index) => ({ lane, done: runLane(lane, index === 0) }));
  const isTimed = (lane: readonly SuiteName[]) => lane.some((one) => find(one).beside === undefined);
  await Promise.all(running.filter(({ lane }) => isTimed(lane)).map(({ done }) => done));
  for (const text of later.splice(0)) console.log(text);
  if (chosen.includes(last)) await runLane([last], true);
  await Promise.all(running.map(({ done }) => done));
  for (const text of later) console.log(text);
  const results: Result[] = [];
  for (const { suite, result } of attempted) results.push(await onceMore(suite, result, folder));
  return results;
}

/** A sample that matches nothing would pass for ever. */
function withSomething({ name }: Suite, result: Result): Result {
  if (result.passed.length + result.failed.length + result.skipped > 0) return result;
  return {
    ...result,
    failed: [{ title: name, again: [], message: 'no test was chosen: see its sample in suites.ts' }],
  };
}

function report(results: readonly Result[]): number {
  // Once more, as a log's end is what is kept of it.
  const lines = (word: string, failures: readonly Failure[]) =>
    failures.forEach(({ title, message }) => void console.log(`${word}: ${title}: ${message}`));
  lines(
    'unsteady',
    results.flatMap(({ unsteady }) => unsteady),
  );
  const failed = results.flatMap((result) => result.failed);
  lines('failed', failed);
  const count = (of: (result: Result) => number) => results.reduce((sum, result) => sum + of(result), 0);
  const [passed, skipped] = [count((result) => result.passed.length), count((result) => result.skipped)];
  console.log(`\n${passed} passed, ${failed.length} failed, ${skipped} skipped`);
  if (failed.length > 0 || passed === 0) return 1;
  return skipped > 0 && process.env['SKIPS'] === 'refuse' ? 1 : 0;
}

function find(name: string): Suite & { readonly name: SuiteName } {
  const suite = Object.values(suites).find((candidate) => candidate.name === name);
  if (suite !== undefined) return suite;
  throw new Error(`there is no test suite "${name}": ${Object.keys(suites).join(', ')}`);
}

function isRefused({ needs }: Suite): boolean {
  return needs === 'root' && process.getuid?.() !== 0;
}

async function refuse(suite: Suite): Promise<Result> {
  const { passed } = await runMocha(suite, true);
  console.log(`skipped: the ${suite.name} tests mount file systems and start daemons, which needs root`);
  return { passed: [], failed: [], skipped: passed.length, unsteady: [] };
}

/** All that changes the machine or the build, before any test runs. */
async function prepare(suite: Suite): Promise<void> {
  const installed = await ensureInstalled(suite.packages);
  if (installed.length > 0) console.log(`installed ${installed.join(', ')}`);
  if (suite.needsPlugin) {
    await buildRootfs();
    await buildProxyRootfs();
  }
}

/** More failures than that are no accident. */
const secondAttemptsMax = 8;

/** Runs what has failed again, where that can tell something. */
async function onceMore(suite: Suite, first: Result, folder: string): Promise<Result> {
  const isWorthwhile = first.failed.every(({ again }) => again.length > 0);
  if (first.failed.length === 0 || first.failed.length > secondAttemptsMax || !isWorthwhile) return first;
  console.log(`\n== ${suite.name}, what failed, once more ==`);
  const titles = first.failed.flatMap(({ again }) => again.map((title) => RegExp.escape(title)));
  const grep = `^(${titles.join('|')})$`;
  const second = await attempt(suite, folder, grep, { output: 'inherit', before: [] });
  const twice = new Set(second.failed.map(({ title }) => title));
  const passed = new Set([...first.passed, ...second.passed]);
  const isMended = ({ title, again }: Failure) =>
    !twice.has(title) && again.every((one) => second.passed.includes(one) && !twice.has(one));
  return {
    passed: [...passed].filter((title) => !twice.has(title)),
    // What did not run again has failed, too.
    failed: [...second.failed, ...first.failed.filter((one) => !twice.has(one.title) && !isMended(one))],
    skipped: first.skipped,
    unsteady: first.failed.filter(isMended),
  };
}

/** `output`: may be a file's descriptor. `before`: in front of the command. */
type Manner = { readonly output: number | 'inherit'; readonly before: readonly string[] | undefined };

async function attempt(suite: Suite, folder: string, grep: string | undefined, manner: Manner): Promise<Result> {
  const resultFile = join(folder, `${suite.name}.json`);
  await rm(resultFile, { force: true });
  const status = await runInNamespace(suite, resultFile, grep, manner);
  const text = await readFile(resultFile, 'utf8').catch(() => null);
  if (text !== null) return JSON.parse(text);
  const message = `the tests ended without a result (${status})`;
  return { passed: [], failed: [{ title: suite.name, again: [], message }], skipped: 0, unsteady: [] };
}

/** Answers how the process ended. Whatever it started dies with its process namespace. */
function runInNamespace(
  suite: Suite,
  resultFile: string,
  grep: string | undefined,
  { output, before = [] }: Manner,
): Promise<string> {
  const self = [process.execPath, join(here, 'run.ts'), '--in-process', suite.name, resultFile];
  // It dies with this process, too.
  const command = ['setpriv', '--pdeathsig', 'KILL', ...before];
  if (suite.needs === 'root')
    command.push(
      ...['unshare', '--mount', '--propagation', 'private', '--pid', '--mount-proc', '--fork', '--kill-child'],
      // The first process gets what others leave behind, and Node waits for its own children only: what a killed host had entered
      // stayed a zombie then, and the host's end waited for it for ever. A shell waits for all.
      ...['bash', '-c', '"$@"; exit $?', 'bash'],
    );
  const [file = '', ...args] = [...command, ...self];
  return new Promise((done) => {
    const env = grep === undefined ? process.env : { ...process.env, GREP: grep };
    const child = spawn(file, args, {
      stdio: ['inherit', output, output],
      env,
      timeout: suite.suiteTimeoutMs,
      killSignal: 'SIGKILL',
    });
    child.on('error', (error) => done(error.message));
    child.on('exit', (code, signal) =>
      done(
        signal === null
          ? `exit status ${code}`
          : `killed by ${signal} after at most ${suite.suiteTimeoutMs / 60_000} minutes`,
      ),
    );
  });
}

/** `dryRun`: only counts the tests. */
async function runMocha(suite: Suite, dryRun: boolean): Promise<Result> {
  const mocha = new Mocha({
    reporter: dryRun ? 'min' : 'spec',
    timeout: suite.testTimeoutMs,
    slow: 5_000,
    forbidOnly: true,
    dryRun,
  });
  const grep = process.env['GREP'];
  if (grep !== undefined) mocha.grep(grep);
  for (const file of globSync(join(here, suite.files)).sort()) mocha.addFile(resolve(file));
  await mocha.loadFilesAsync();
  const passed: string[] = [];
  const failed: Failure[] = [];
  let skipped = 0;
  await new Promise<void>((done) => {
    const runner = mocha.run(() => done());
    runner.on('pass', (test) => void passed.push(test.fullTitle()));
    runner.on('pending', () => {
      skipped += 1;
    });
    runner.on('fail', (test, error) => void failed.push(failureOf(test, error)));
  });
  return { passed, failed, skipped, unsteady: [] };
}

function failureOf(test: Mocha.Runnable, error: Error): Failure {
  const title = test.fullTitle();
  const again: string[] = [];
  if (test instanceof Mocha.Hook)
    test.parent?.eachTest((one) => {
      again.push(one.fullTitle());
    });
  else again.push(title);
  const message = String(error.message).replaceAll('\n', ' ').slice(0, messageCharactersMax);
  return { title, again, message };
}

const messageCharactersMax = 300;

process.exit(await main(process.argv.slice(2)));
