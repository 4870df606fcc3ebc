import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { breaks, mutations } from './mutations.ts';
import type { WorkerLine } from './worker.ts';

export type Summary = {
  readonly seeds: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly records: number;
  readonly failures: readonly { readonly seed: number; readonly failure: string }[];
};

/** `plugins`: of volumes, with plugins that are real; `controllers`: of containers, with controllers that are real. */
export type Simulation = 'plugins' | 'controllers';

export type SeedsRequest = {
  readonly of: Simulation;
  readonly from: number;
  readonly count: number;
  readonly mutation?: string;
  readonly processes?: number;
  /** Told at once. */
  readonly onFailure?: (failure: Summary['failures'][number]) => void;
};

/** Runs seeds on all processors; with a mutation only until it is found. Rejects when a process ends without having said that it is done. */
export async function runSeeds({ of, from, count, mutation, processes, onFailure }: SeedsRequest): Promise<Summary> {
  const found = new AbortController();
  const workers = Math.max(1, Math.min(count, processes ?? availableParallelism()));
  const parts = await Promise.all(
    Array.from({ length: workers }, (_, index) =>
      work(of, [from + index, workers, count - index], mutation, onFailure, found),
    ),
  );
  const sum = (of: (part: Summary) => number) => parts.reduce((total, part) => total + of(part), 0);
  return {
    seeds: sum(({ seeds }) => seeds),
    events: sum(({ events }) => events),
    virtualMs: sum(({ virtualMs }) => virtualMs),
    records: sum(({ records }) => records),
    failures: parts.flatMap(({ failures }) => failures).sort((one, other) => one.seed - other.seed),
  };
}

async function work(
  of: Simulation,
  numbers: readonly number[],
  mutation: string | undefined,
  onFailure: SeedsRequest['onFailure'],
  found: AbortController,
): Promise<Summary> {
  const folder = import.meta.dirname;
  const hook = mutation === undefined ? [] : ['--import', join(folder, 'mutate.ts')];
  const child = spawn(
    process.execPath,
    ['--max-semi-space-size=32', ...hook, join(folder, 'worker.ts'), ...numbers.map(String)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, OF: of, ...(mutation === undefined ? {} : { MUTATION: mutation }) },
    },
  );
  const exited = once(child, 'exit');
  const end = () => void child.kill('SIGKILL');
  process.once('exit', end);
  found.signal.addEventListener('abort', end);
  const failures: { seed: number; failure: string }[] = [];
  let done: Summary | null = null;
  for await (const text of createInterface({ input: child.stdout })) {
    if (!text.startsWith('{"kind":')) {
      console.log(text);
      continue;
    }
    const line: WorkerLine = JSON.parse(text);
    if (line.kind === 'failed') {
      failures.push(line);
      onFailure?.(line);
    } else done = { ...line, failures };
    if (line.kind === 'failed' && isMutationFound(mutation, line.failure)) found.abort();
  }
  process.off('exit', end);
  if (done === null && found.signal.aborted) return { seeds: 0, events: 0, virtualMs: 0, records: 0, failures };
  if (done === null)
    throw new Error(`a process with the seeds ${numbers.join(' ')} has died: ${(await exited).filter(Boolean).join()}`);
  return done;
}

function isMutationFound(name: string | undefined, failure: string): boolean {
  const mutation = mutations.find((one) => one.name === name);
  return mutation !== undefined && breaks(failure, mutation.rules);
}
