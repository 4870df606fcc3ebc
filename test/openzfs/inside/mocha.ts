/**
 * Runs one file of tests and writes what becomes of each: `node mocha.ts FILE RESULTS [--list]`. The results are lines of JSON, each
 * written as soon as it is known, so that a guest that has to be killed still tells how far it came. With --list nothing runs.
 */
import { appendFileSync } from 'node:fs';
import { resolve } from 'node:path';
import Mocha from 'mocha';

export type TestResult = {
  /** Of the suites around it, from the outermost, then its own. */
  readonly titles: readonly string[];
  readonly state: 'passed' | 'failed' | 'skipped';
  /** Of a hook: its failure is the answer for all the tests that could not run because of it. */
  readonly isHook: boolean;
  readonly error: string | null;
};

const [file = '', results = '', mode] = process.argv.slice(2);

class ResultLines extends Mocha.reporters.Base {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const write = (test: Mocha.Runnable, state: TestResult['state'], error: string | null = null) => {
      const line: TestResult = { titles: test.titlePath(), state, isHook: test instanceof Mocha.Hook, error };
      appendFileSync(results, `${JSON.stringify(line)}\n`);
      if (mode !== '--list') console.log(`${state} ${test.fullTitle()} (${test.duration ?? 0} ms)`);
    };
    runner.on('pass', (test) => write(test, 'passed'));
    runner.on('pending', (test) => write(test, 'skipped'));
    runner.on('fail', (test, error: unknown) => {
      const text = error instanceof Error ? describeError(error) : String(error);
      write(test, 'failed', text);
      console.log(text);
    });
  }
}

/** The stack begins with the message, unless the message was changed afterwards, as mocha does for a hook. */
function describeError({ message, stack = '' }: Error): string {
  return stack.includes(message) ? stack : `${message}\n${stack}`;
}

const mocha = new Mocha({ reporter: ResultLines, timeout: 300_000, forbidOnly: true, dryRun: mode === '--list' });
const grep = process.env['GREP'];
if (grep !== undefined && mode !== '--list') mocha.grep(grep);
mocha.addFile(resolve(file));
await mocha.loadFilesAsync();
// Not the number of failures: a run that came to its end is a success, and the results say the rest.
mocha.run(() => process.exit(0));
