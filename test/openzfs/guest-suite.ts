/** Tests that run in a guest, each of them shown and counted here as a test of its own. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeBinary, repository } from '../../packaging/paths.ts';
import { createCommands } from '../../plugin/exec.ts';
import { runGuest } from './guest.ts';
import type { TestResult } from './inside/mocha.ts';
import { copyProject } from './project.ts';

export type GuestSuiteOptions = {
  /** In the folder `inside`. */
  readonly file: string;
  readonly docker: boolean;
  readonly processors: number;
  readonly timeoutMs: number;
  /** Files and folders of the repository, beside the sources, that the tests need. */
  readonly files: readonly string[];
};

type Outcome = { readonly results: readonly TestResult[]; readonly exitCode: number | null };

const runner = 'test/openzfs/inside/mocha.ts';
const { run } = createCommands();
const keyOf = (titles: readonly string[]) => JSON.stringify(titles);

/** To be awaited while mocha loads the file that calls it. The guest runs when the first of its tests is due. */
export async function guestSuite(options: GuestSuiteOptions): Promise<void> {
  const tests = (await listTests(options.file)).map(({ titles }) => titles);
  if (new Set(tests.map(keyOf)).size !== tests.length) throw new Error(`two tests of ${options.file} have one title`);
  let outcome: Promise<Outcome> | null = null;
  const start = () => {
    outcome ??= runTests(options);
    return outcome;
  };
  declare(tests, 0, start);
}

function declare(tests: readonly (readonly string[])[], depth: number, start: () => Promise<Outcome>): void {
  for (const [title, group] of Map.groupBy(tests, (titles) => titles[depth] ?? '')) {
    const inner = group.filter((titles) => titles.length > depth + 1);
    for (const titles of group.filter((candidate) => candidate.length === depth + 1)) {
      it(title, async function () {
        const { results, exitCode } = await start();
        const result = results.find((candidate) => keyOf(candidate.titles) === keyOf(titles));
        if (result?.state === 'skipped') this.skip();
        else if (result?.error != null) throw asError(result.error);
        else if (result === undefined) throw whyNotRun(results, exitCode);
      });
    }
    if (inner.length === 0) continue;
    describe(title, () => {
      if (depth === 0) before('run the guest', async () => void (await start()));
      declare(inner, depth + 1, start);
    });
  }
}

/** A test without a result: a hook has failed, or the guest has ended before it came to it. */
function whyNotRun(results: readonly TestResult[], exitCode: number | null): Error {
  const hooks = results.filter(({ isHook, state }) => isHook && state === 'failed');
  if (hooks.length > 0) return asError(hooks.map(({ titles, error }) => `${titles.at(-1)}: ${error}`).join('\n'));
  const end = exitCode === null ? 'has not come to its end' : `ended with status ${exitCode}`;
  return new Error(`the test did not run: the guest ${end}; its console is above`);
}

/** With the stack from inside, as if it had happened here. */
function asError(text: string): Error {
  const shown = text.replaceAll('file:///project/', `file://${repository}/`);
  const error = new Error(shown.split('\n    at ', 1)[0]);
  error.stack = shown;
  return error;
}

/** What the file declares, without running any of it. */
async function listTests(file: string): Promise<readonly TestResult[]> {
  return await withFolder(async (folder) => {
    const list = join(folder, 'list');
    await run(nodeBinary, [join(repository, runner), join(repository, 'test/openzfs/inside', file), list, '--list']);
    return parseResults(await readFile(list, 'utf8'));
  });
}

async function runTests({ file, docker, processors, timeoutMs, files }: GuestSuiteOptions): Promise<Outcome> {
  return await withFolder(async (project) => {
    await copyProject(project, files);
    const grep = process.env['GREP'];
    const script = [
      'modprobe zfs || exit 9',
      // /tmp is memory.
      'mkdir -p /var/tmp && export TMPDIR=/var/tmp NO_COLOR=1',
      'test ! -e grep || export GREP="$(cat grep)"',
      `node ${runner} test/openzfs/inside/${file} /out/results`,
      '',
    ];
    if (grep !== undefined) await writeFile(join(project, 'grep'), grep);
    await writeFile(join(project, 'run.sh'), script.join('\n'));
    const { exitCode, console: output, outDir } = await runGuest({ project, docker, processors, timeoutMs });
    try {
      const text = await readFile(join(outDir, 'results'), 'utf8').catch(() => '');
      const dockerLog = await readFile(join(outDir, 'dockerd.log'), 'utf8').catch(() => '');
      const results = parseResults(text);
      // Shown once; each failed test has its own message.
      if (exitCode !== 0 || results.some(({ state }) => state === 'failed')) {
        console.log(`${output}\n${dockerLog.slice(-20_000)}`);
      }
      return { results, exitCode };
    } finally {
      await rm(outDir, { recursive: true });
    }
  });
}

/** The last line may be half written. */
function parseResults(text: string): readonly TestResult[] {
  const lines = text.split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as TestResult);
}

async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'flock-openzfs-'));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}
