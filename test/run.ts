import { spawn } from 'node:child_process';
import { globSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import Mocha from 'mocha';
import { ensureInstalled } from '../packaging/debian.ts';
import { buildProxyRootfs, buildRootfs } from '../packaging/rootfs.ts';
import { guestPackages } from './openzfs/prepare.ts';
import { clusterPackages, contractPackages, dockerPackages } from './support/packages.ts';

/**
 * Runs the project's tests, installing what they need first: `run.ts [SUITE...]`, all suites by default. The last line is
 * `N passed, N failed, N skipped`; the exit status is 1 on a failure, and with SKIPS=refuse on a skip too. Each suite runs in a
 * process and mount namespace of its own, so that nothing it mounts can stay behind.
 *
 * Hundreds of tests wait for real daemons on a machine that others use, too. So a few that fail are run once more, alone: those that
 * pass then are named as unsteady at the end, to be mended; a fault of flock's fails twice.
 *
 * The simulation only computes: it runs beside the others with what they leave of the processors, and its output comes last.
 */

type Suite = {
  readonly name: string;
  readonly packages: readonly string[];
  /** Needs root, mounts and Docker's programs; null: runs anywhere. */
  readonly needs: 'root' | null;
  readonly needsPlugin: boolean;
  readonly testTimeoutMs: number;
  readonly suiteTimeoutMs: number;
  /** Beside the others, on processors that are idle. */
  readonly isBeside?: true;
};

type Result = {
  /** Full titles. */
  readonly passed: readonly string[];
  readonly failed: readonly Failure[];
  readonly skipped: number;
  /** Failed at first, passed alone. */
  readonly unsteady: readonly Failure[];
};

/**
 * `pattern`: of the titles that are to be run again; empty: none can be. A hook that failed has kept the rest of its
 * block from running.
 */
type Failure = { readonly title: string; readonly pattern: string; readonly message: string };

const minuteMs = 60_000;
/** For random faults, by people. */
const askedMinutes = Number(process.env['FLOCK_SOAK_MINUTES'] || 0) + Number(process.env['FLOCK_CHAOS_MINUTES'] || 0);

const suites: readonly Suite[] = [
  { name: 'unit', packages: [], needs: null, needsPlugin: false, testTimeoutMs: 30_000, suiteTimeoutMs: 15 * minuteMs },
  {
    name: 'simulation',
    packages: [],
    needs: null,
    needsPlugin: false,
    testTimeoutMs: 60 * minuteMs,
    suiteTimeoutMs: 85 * minuteMs,
    isBeside: true,
  },
  {
    name: 'contract',
    packages: contractPackages,
    needs: 'root',
    needsPlugin: false,
    testTimeoutMs: minuteMs,
    suiteTimeoutMs: 25 * minuteMs,
  },
  {
    name: 'integration',
    packages: dockerPackages,
    needs: 'root',
    needsPlugin: true,
    testTimeoutMs: 4 * minuteMs,
    suiteTimeoutMs: 30 * minuteMs,
  },
  {
    name: 'cluster',
    packages: clusterPackages,
    needs: 'root',
    needsPlugin: true,
    testTimeoutMs: 4 * minuteMs,
    suiteTimeoutMs: (60 + 2 * askedMinutes) * minuteMs,
  },
  {
    name: 'openzfs',
    packages: [...dockerPackages, ...guestPackages],
    needs: 'root',
    needsPlugin: true,
    testTimeoutMs: 55 * minuteMs,
    suiteTimeoutMs: 75 * minuteMs,
  },
];

const here = import.meta.dirname;

async function main(args: readonly string[]): Promise<number> {
  const [mode, name, resultFile] = args;
  if (mode === '--in-process' && name !== undefined && resultFile !== undefined) {
    await writeFile(resultFile, JSON.stringify(await runMocha(find(name), false)));
    return 0;
  }
  const chosen = args.length === 0 ? suites : args.map(find);
  for (const suite of chosen) if (!isRefused(suite)) await prepare(suite);
  const folder = await mkdtemp(join(tmpdir(), 'flock-test-'));
  const results: Result[] = [];
  try {
    const beside = chosen.length < 2 ? [] : chosen.filter(({ isBeside }) => isBeside === true);
    const running = beside.map((suite) => ({
      suite,
      result: run(suite, folder, openSync(join(folder, suite.name), 'w')),
    }));
    for (const suite of chosen.filter((one) => !beside.includes(one))) {
      console.log(`\n== ${suite.name} ==`);
      results.push(await (isRefused(suite) ? refuse(suite) : run(suite, folder)));
    }
    for (const { suite, result } of running) {
      results.push(await result);
      console.log(`\n== ${suite.name} ==\n${await readFile(join(folder, suite.name), 'utf8')}`);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
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

function find(name: string): Suite {
  const suite = suites.find((candidate) => candidate.name === name);
  if (suite !== undefined) return suite;
  throw new Error(`there is no test suite "${name}": ${suites.map((candidate) => candidate.name).join(', ')}`);
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
const secondAttemptsMax = 5;

/** `output`: a file's descriptor, for one that runs beside others. */
async function run(suite: Suite, folder: string, output: number | 'inherit' = 'inherit'): Promise<Result> {
  const first = await attempt(suite, folder, process.env['GREP'], output);
  const isWorthwhile = first.failed.every(({ pattern }) => pattern !== '');
  if (first.failed.length === 0 || first.failed.length > secondAttemptsMax || !isWorthwhile) return first;
  console.log(`\n== ${suite.name}, what failed, once more ==`);
  const second = await attempt(suite, folder, first.failed.map(({ pattern }) => pattern).join('|'), output);
  if (second.failed.length > 0 || second.passed.length === 0) return first;
  return {
    passed: [...new Set([...first.passed, ...second.passed])],
    failed: [],
    skipped: first.skipped,
    unsteady: first.failed,
  };
}

async function attempt(
  suite: Suite,
  folder: string,
  grep: string | undefined,
  output: number | 'inherit',
): Promise<Result> {
  const resultFile = join(folder, `${suite.name}.json`);
  await rm(resultFile, { force: true });
  const status = await runInNamespace(suite, resultFile, grep, output);
  const text = await readFile(resultFile, 'utf8').catch(() => null);
  if (text !== null) return JSON.parse(text);
  const message = `the tests ended without a result (${status})`;
  return { passed: [], failed: [{ title: suite.name, pattern: '', message }], skipped: 0, unsteady: [] };
}

/** Answers how the process ended. Whatever it started dies with its process namespace. */
function runInNamespace(
  suite: Suite,
  resultFile: string,
  grep: string | undefined,
  output: number | 'inherit',
): Promise<string> {
  const self = [process.execPath, join(here, 'run.ts'), '--in-process', suite.name, resultFile];
  // It dies with this process, too.
  const command = ['setpriv', '--pdeathsig', 'KILL'];
  if (output !== 'inherit') command.push('chrt', '--idle', '0');
  if (suite.needs === 'root')
    command.push('unshare', '--mount', '--propagation', 'private', '--pid', '--mount-proc', '--fork', '--kill-child');
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
          : `killed by ${signal} after at most ${suite.suiteTimeoutMs / minuteMs} minutes`,
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
  for (const file of globSync(join(here, suite.name, '**/*.test.ts')).sort()) mocha.addFile(resolve(file));
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
      if (one.state !== 'passed' || one === test.ctx?.currentTest) again.push(one.fullTitle());
    });
  else again.push(title);
  const wanted = again.map((one) => RegExp.escape(one)).join('|');
  const message = String(error.message).replaceAll('\n', ' ').slice(0, messageCharactersMax);
  return { title, pattern: wanted === '' ? '' : `^(${wanted})$`, message };
}

const messageCharactersMax = 300;

process.exit(await main(process.argv.slice(2)));
