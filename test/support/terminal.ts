import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { until } from './until.ts';

/** A command in a terminal of its own, as a person sees it and types into it. */
export type Terminal = {
  /** Everything it has shown so far, without what moves the cursor. */
  shown(): string;
  /** Resolves when the screen has shown it. */
  sees(text: RegExp): Promise<void>;
  /** `\x03` is Ctrl-C, `\x04` Ctrl-D. */
  type(text: string): void;
  /** Its exit status. */
  ended(): Promise<number | null>;
};

const waitMs = 20_000;
const escapes = new RegExp(`${String.fromCharCode(27)}\\[[0-9;?]*[A-Za-z]`, 'g');

/** `script` (util-linux) makes the terminal. No argument may have a quote. */
export function inTerminal(command: readonly string[], env: Readonly<Record<string, string>>): Terminal {
  // Without exec, dash stays between, and ends at Ctrl-C itself.
  const line = `exec ${command.map((word) => `'${word}'`).join(' ')}`;
  const child = spawn('script', ['--quiet', '--flush', '--return', '--command', line, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  const end = once(child, 'exit');
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const shown = () => text.replaceAll(escapes, '').replaceAll('\r\n', '\n');
  return {
    shown,
    sees: async (wanted) => {
      await until(`${wanted} on the screen`, waitMs, () => (wanted.test(shown()) ? true : undefined)).catch((error) => {
        throw new Error(`${error}: ${JSON.stringify(shown())}`);
      });
    },
    type: (typed) => void child.stdin.write(typed),
    ended: async () => {
      const timer = setTimeout(() => child.kill('SIGKILL'), waitMs);
      const [status] = await end;
      clearTimeout(timer);
      return status;
    },
  };
}
