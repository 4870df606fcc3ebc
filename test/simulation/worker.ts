import './abort.ts';
import { runControllers } from './controllers/run.ts';
import { breaks, mutations } from './mutations.ts';
import { runSeed } from './run.ts';

/**
 * Runs seeds `FROM STEP COUNT` in a process of its own and writes a line of JSON for each that failed, and one for all at the end:
 * `worker.ts FROM STEP COUNT`. With MUTATION it ends at the first that failed by one of its rules. OF says of which simulation.
 */
export type WorkerLine =
  | { readonly kind: 'failed'; readonly seed: number; readonly failure: string }
  | {
      readonly kind: 'done';
      readonly seeds: number;
      readonly events: number;
      readonly virtualMs: number;
      readonly records: number;
    };

const [from = 1, step = 1, count = 1] = process.argv.slice(2).map(Number);
const mutation = mutations.find(({ name }) => name === process.env['MUTATION']);
const isTracing = process.env['TRACE'] === '1';
// Errors are thrown by the thousand, and their stacks cost more than all the rest.
if (!isTracing) Error.stackTraceLimit = 0;
const say = (line: WorkerLine, onWritten?: () => void) => process.stdout.write(`${JSON.stringify(line)}\n`, onWritten);

const total = { seeds: 0, events: 0, virtualMs: 0, records: 0 };
for (let seed = from; seed < from + count; seed += step) {
  // Whoever started this has gone.
  if (process.ppid === 1) process.exit(1);
  const trace = isTracing ? (line: string) => process.stdout.write(`${line}\n`) : null;
  const { failure, events, virtualMs, records } = await (process.env['OF'] === 'controllers'
    ? runControllers({ seed, trace })
    : runSeed({ seed, trace, withoutWatchdog: mutation?.withoutWatchdog ?? false }));
  total.seeds += 1;
  total.events += events;
  total.virtualMs += virtualMs;
  total.records += records;
  if (failure !== null) say({ kind: 'failed', seed, failure });
  if (mutation !== undefined && failure !== null && breaks(failure, mutation.rules)) break;
}
// Thousands of failures may still wait for the pipe.
say({ kind: 'done', ...total }, () => process.exit(0));
