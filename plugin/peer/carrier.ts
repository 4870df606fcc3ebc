import { type ChildProcess, spawn } from 'node:child_process';
import { FlockError, messageOf } from '../../controller/model/errors.ts';
import type { Order, Passed } from './carrier-process.ts';

/** Processes that carry large streams between nodes, encrypted: see carrier-process.ts. */
export type Carriers = {
  /** A stream of at least so many bytes is worth a process. */
  readonly bytesMin: number;
  /** Null: as many as there may be are at work. */
  claim(): Carrier | null;
};

export type Carrier = {
  /**
   * Resolves when the other side has ended, which it also does when it is cut off: a receiver asks the sender whether it was all. The descriptors are the command's pipe, the connection and the spool; all stay open here.
   * `onProgress`: bytes so far, four times a second. Throws `node-unreachable` when it fails, and the signal's reason.
   */
  carry(load: Load, onProgress: (bytes: number) => void, signal: AbortSignal): Promise<void>;
  /** May be called repeatedly. */
  release(): void;
};

export type Load = {
  readonly role: Order['role'];
  readonly key: string;
  readonly command: number;
  readonly connection: number;
  readonly spool: { readonly file: number; readonly folder: string; readonly streamBytes: number | null } | null;
};

export type CarriersOptions = {
  /** The program: carrier-process.ts, or what was made of it. */
  readonly script: string;
  readonly max?: number;
  readonly bytesMin?: number;
};

/** Of 45 MiB each, and two of them take all that a small host's processors give. */
const carriersMax = 4;
/** Below, starting it takes longer than what it saves. */
const bytesMinDefault = 32 * 1024 * 1024;
const stderrMax = 4096;

export function createCarriers({ script, max = carriersMax, bytesMin = bytesMinDefault }: CarriersOptions): Carriers {
  let free = max;

  return {
    bytesMin,
    claim() {
      if (free === 0) return null;
      free -= 1;
      let uses = 1;
      const leave = () => {
        uses -= 1;
        if (uses === 0) free += 1;
      };
      let isClaimed = true;
      return {
        carry(load, onProgress, signal) {
          uses += 1;
          // A process that can't be ended still counts.
          return carry(script, load, onProgress, signal).finally(leave);
        },
        release() {
          if (isClaimed) leave();
          isClaimed = false;
        },
      };
    },
  };
}

function carry(script: string, load: Load, onProgress: (bytes: number) => void, signal: AbortSignal): Promise<void> {
  const { role, key, command, connection, spool } = load;
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const failed = (reason: string, cause?: unknown) =>
      reject(
        signal.aborted
          ? signal.reason
          : new FlockError('node-unreachable', `carrying the stream failed: ${reason}`, {}, { cause }),
      );
    const [stdin, stdout] = role === 'send' ? [command, 'ignore' as const] : ['ignore' as const, command];
    let child: ChildProcess;
    try {
      child = spawn(process.execPath, [script], {
        stdio: [stdin, stdout, 'pipe', connection, spool?.file ?? 'ignore', 'ipc'],
        signal,
        killSignal: 'SIGKILL',
      });
    } catch (error) {
      return failed(messageOf(error), error);
    }
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-stderrMax);
    });
    let failure: string | null = null;
    child.on('error', (error) => {
      failure = error.message;
      if (child.pid === undefined) failed(error.message, error);
    });
    child.on('message', (passed: Passed) => onProgress(passed.bytes));
    child.on('close', (code, by) =>
      code === 0 ? resolve() : failed(said(stderr) ?? failure ?? by ?? `status ${code}`),
    );
    const order: Order = { role, key, spool: spool && { folder: spool.folder, streamBytes: spool.streamBytes } };
    // One that has ended already says so itself, and one that was never started has no channel.
    if (child.pid !== undefined) child.send(order, () => undefined);
  });
}

/** What a carrier says of itself is its last line; what Node says of one that has crashed is among others. */
function said(stderr: string): string | null {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('Node.js v'));
  return lines.findLast((line) => line.includes('Error')) ?? lines.at(-1) ?? null;
}
