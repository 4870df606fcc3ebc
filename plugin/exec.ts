import { spawn } from 'node:child_process';
import { ExecaError, execa } from 'execa';

/** A command that could not be run, ended with a failure, was killed, or took too long. `stderr` is what it said, at most 64 KiB. */
export class CommandError extends Error {
  readonly file: string;
  readonly args: readonly string[];
  readonly exitCode: number | null;
  readonly stderr: string;
  readonly timedOut: boolean;

  constructor(facts: {
    readonly file: string;
    readonly args: readonly string[];
    readonly exitCode: number | null;
    readonly stderr: string;
    readonly timedOut: boolean;
    readonly reason: string;
  }) {
    super(
      `${facts.file} ${facts.args.join(' ')}: ${facts.reason}${facts.stderr === '' ? '' : `: ${facts.stderr.trim()}`}`,
    );
    this.name = 'CommandError';
    this.file = facts.file;
    this.args = facts.args;
    this.exitCode = facts.exitCode;
    this.stderr = facts.stderr;
    this.timedOut = facts.timedOut;
  }
}

export type RunOptions = {
  /** Default 30 s. */
  readonly timeoutMs?: number;
  readonly stdoutBytesMax?: number;
  readonly signal?: AbortSignal;
};

const commandTimeoutMs = 30_000;
const stdoutBytesMax = 32 * 1024 * 1024;
const stderrBytesMax = 64 * 1024;
/** More parallel storage commands only wait for each other in the kernel. */
const commandsMax = 8;
const killMs = 2_000;
/** What was killed and has not ended by then waits in the kernel for a disk that does not answer, and may do so for ever. */
const stuckMs = 3_000;

export type Commands = {
  /** Runs a short command without a shell and answers its stdout. Throws CommandError. */
  run(file: string, args: readonly string[], options?: RunOptions): Promise<string>;
  /** Runs a command whose stdin or stdout is an open file descriptor, so that its bytes never pass through this process. */
  stream(
    file: string,
    args: readonly string[],
    stdio: { readonly stdin?: number; readonly stdout?: number },
    signal: AbortSignal,
  ): Promise<void>;
};

/** `env` is added to the process's own; `LC_ALL=C` always is, because error texts are parsed. */
export function createCommands(env: Readonly<Record<string, string>> = {}): Commands {
  const slots = createPatientSlots(commandsMax);
  const environment = { ...env, LC_ALL: 'C' };
  return {
    run: (file, args, options = {}) => {
      const timeoutMs = options.timeoutMs ?? commandTimeoutMs;
      const fail = (reason: string) =>
        new CommandError({ file, args, exitCode: null, stderr: '', timedOut: true, reason });
      return slots(() => runOnce(file, args, { ...options, timeoutMs }, environment), {
        limitMs: timeoutMs + killMs + stuckMs,
        late: () => fail(`no answer within ${timeoutMs} ms, and it can't be ended: does the disk answer?`),
        full: () => fail(`${commandsMax} commands before it can't be ended: does the disk answer?`),
      });
    },
    stream: (file, args, stdio, signal) => streamOnce(file, args, stdio, signal, { ...process.env, ...environment }),
  };
}

async function runOnce(
  file: string,
  args: readonly string[],
  options: RunOptions & { readonly timeoutMs: number },
  env: Readonly<Record<string, string>>,
): Promise<string> {
  const { timeoutMs } = options;
  try {
    const result = await execa(file, args, {
      env,
      stdin: 'ignore',
      timeout: timeoutMs,
      forceKillAfterDelay: killMs,
      // execa builds its error text from everything it has buffered, so both streams are bounded.
      maxBuffer: { stdout: options.stdoutBytesMax ?? stdoutBytesMax, stderr: stderrBytesMax },
      stripFinalNewline: true,
      ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    });
    return result.stdout;
  } catch (error) {
    if (!(error instanceof ExecaError)) throw error;
    const reason = error.timedOut
      ? `no answer within ${timeoutMs} ms`
      : error.isCanceled
        ? 'cancelled'
        : error.exitCode === undefined
          ? (error.originalMessage ?? `ended by ${error.signal ?? 'an unknown cause'}`)
          : `exit status ${error.exitCode}`;
    throw new CommandError({
      file,
      args,
      exitCode: error.exitCode ?? null,
      stderr: String(error.stderr ?? ''),
      timedOut: error.timedOut,
      reason,
    });
  }
}

function streamOnce(
  file: string,
  args: readonly string[],
  stdio: { readonly stdin?: number; readonly stdout?: number },
  signal: AbortSignal,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: [stdio.stdin ?? 'ignore', stdio.stdout ?? 'ignore', 'pipe'],
      env,
      signal,
      killSignal: 'SIGKILL',
    });
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < stderrBytesMax) stderr += text;
    });
    const fail = (reason: string, exitCode: number | null) =>
      reject(new CommandError({ file, args, exitCode, stderr, timedOut: false, reason }));
    let failure: string | null = null;
    child.on('error', (error) => {
      failure = error.message;
      // An aborted child still runs until it is killed: only its end (close) says that nobody writes any more.
      if (child.pid === undefined) fail(error.message, null);
    });
    child.on('close', (code, killedBy) => {
      if (code === 0 && failure === null) resolve();
      else
        fail(failure ?? (code === null ? `ended by ${killedBy ?? 'an unknown cause'}` : `exit status ${code}`), code);
    });
  });
}

/** At most `max` at a time; the others wait in order. */
export function createSlots(max: number): <T>(work: () => Promise<T>) => Promise<T> {
  let free = max;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    }
  };
}

type Patience = { readonly limitMs: number; readonly late: () => Error; readonly full: () => Error };

/**
 * Slots for work that may never end, whatever is done about it. What is not over within its limit (ms) fails with `late`, but keeps its
 * slot until it is; when such has all the slots, who waits or comes fails with `full`.
 */
export function createPatientSlots(max: number): <T>(work: () => Promise<T>, patience: Patience) => Promise<T> {
  const slots = createSlots(max);
  const waiting = new Set<() => void>();
  let stuck = 0;

  function noteStuck(): void {
    stuck += 1;
    if (stuck < max) return;
    for (const refuse of waiting) refuse();
    waiting.clear();
  }

  return (work, { limitMs, late, full }) =>
    new Promise((resolve, reject) => {
      if (stuck >= max) return reject(full());
      let isRefused = false;
      const refuse = () => {
        isRefused = true;
        reject(full());
      };
      waiting.add(refuse);
      void slots(async () => {
        waiting.delete(refuse);
        if (isRefused) return;
        let isLate = false;
        const timer = setTimeout(() => {
          isLate = true;
          reject(late());
          noteStuck();
        }, limitMs);
        await work().then(resolve, reject);
        clearTimeout(timer);
        if (isLate) stuck -= 1;
      });
    });
}
