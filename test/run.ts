import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
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
 */

type Suite = {
  readonly name: string;
  readonly packages: readonly string[];
  /** Needs root, mounts and Docker's programs; null: runs anywhere. */
  readonly needs: 'root' | null;
  readonly needsPlugin: boolean;
  readonly testTimeoutMs: number;
  readonly suiteTimeoutMs: number;
};

type Result = {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** A line for each failure. */
  readonly failures: readonly string[];
};

const minuteMs = 60_000;

const suites: readonly Suite[] = [
  { name: 'unit', packages: [], needs: null, needsPlugin: false, testTimeoutMs: 10_000, suiteTimeoutMs: 6 * minuteMs },
  {
    name: 'simulation',
    packages: [],
    needs: null,
    needsPlugin: false,
    testTimeoutMs: 8 * minuteMs,
    suiteTimeoutMs: 20 * minuteMs,
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
    suiteTimeoutMs: 40 * minuteMs,
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
    for (const suite of chosen) {
      console.log(`\n== ${suite.name} ==`);
      results.push(await (isRefused(suite) ? refuse(suite) : run(suite, folder)));
    }
  } finally {
    await rm(folder, { recursive: true });
  }
  const total = results.reduce((sum, result) => ({
    passed: sum.passed + result.passed,
    failed: sum.failed + result.failed,
    skipped: sum.skipped + result.skipped,
    failures: [...sum.failures, ...result.failures],
  }));
  // Once more, as a log's end is what is kept of it.
  for (const failure of total.failures) console.log(`failed: ${failure}`);
  console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  if (total.failed > 0 || total.passed === 0) return 1;
  return total.skipped > 0 && process.env['SKIPS'] === 'refuse' ? 1 : 0;
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
  return { passed: 0, failed: 0, skipped: passed, failures: [] };
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

async function run(suite: Suite, folder: string): Promise<Result> {
  const resultFile = join(folder, `${suite.name}.json`);
  const status = await runInNamespace(suite, resultFile);
  const text = await readFile(resultFile, 'utf8').catch(() => null);
  if (text !== null) return JSON.parse(text);
  const failure = `the ${suite.name} tests ended without a result (${status})`;
  return { passed: 0, failed: 1, skipped: 0, failures: [failure] };
}

/** Answers how the process ended. Whatever it started dies with its process namespace. */
function runInNamespace(suite: Suite, resultFile: string): Promise<string> {
  const self = [process.execPath, join(here, 'run.ts'), '--in-process', suite.name, resultFile];
  const isolation = [
    'unshare',
    '--mount',
    '--propagation',
    'private',
    '--pid',
    '--mount-proc',
    '--fork',
    '--kill-child',
  ];
  const [file = '', ...args] = suite.needs === 'root' ? [...isolation, ...self] : self;
  return new Promise((done) => {
    const child = spawn(file, args, { stdio: 'inherit', timeout: suite.suiteTimeoutMs, killSignal: 'SIGKILL' });
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
  const failures: string[] = [];
  const runner = await new Promise<Mocha.Runner>((done) => {
    const started = mocha.run(() => done(started));
    started.on('fail', (test, error) => {
      failures.push(`${suite.name}: ${test.fullTitle()}: ${String(error.message).slice(0, 300).replaceAll('\n', ' ')}`);
    });
  });
  const { passes = 0, failures: failed = 0, pending = 0 } = runner.stats ?? {};
  return { passed: passes, failed, skipped: pending, failures };
}

process.exit(await main(process.argv.slice(2)));
