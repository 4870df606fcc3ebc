import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError, type Commands } from '../../../plugin/exec.ts';
import { hostTable, layoutChain } from './layout.ts';
import { readState } from './read-state.ts';
import { type HostState, noState } from './wanted.ts';

/** nft, in the host's network or in that of a process. Every call ends within `nftMsMax`. */
export type Nft = {
  /** What our table of the host holds. Null: there is no nft on this host. */
  read(): Promise<HostState | null>;
  /** Whether our table of the host is still there. */
  isThere(): Promise<boolean>;
  /** One transaction: all of it, or nothing. Throws CommandError. `pid`: in this process's network. */
  run(text: string, pid?: number): Promise<void>;
};

const nftMsMax = 10_000;

/** `folder`: for the texts of transactions, which can be too long for an argument. */
export function createNft(commands: Commands, folder: string): Nft {
  const busy = new Set<number>();
  return {
    async read() {
      try {
        return readState(await commands.run('nft', ['-j', 'list', 'table', 'ip', hostTable], { timeoutMs: nftMsMax }));
      } catch (error) {
        if (isMissing(error)) return null;
        if (isAbsent(error)) return noState;
        throw error;
      }
    },
    async isThere() {
      try {
        await commands.run('nft', ['list', 'chain', 'ip', hostTable, layoutChain], { timeoutMs: nftMsMax });
        return true;
      } catch (error) {
        if (isAbsent(error)) return false;
        throw error;
      }
    },
    async run(text, pid) {
      // Names that do not grow: they are in the texts of errors, which must not differ each time.
      let slot = 1;
      while (busy.has(slot)) slot += 1;
      busy.add(slot);
      const file = join(folder, `transaction-${slot}.nft`);
      await mkdir(folder, { recursive: true, mode: 0o700 });
      try {
        await writeFile(file, `${text}\n`, { mode: 0o600 });
        const [program, ...args] = inNetwork(pid, ['nft', '-f', file]);
        await commands.run(program, args, { timeoutMs: nftMsMax });
      } finally {
        await rm(file, { force: true });
        busy.delete(slot);
      }
    },
  };
}

/** The command, in the network of a process. */
export function inNetwork(pid: number | undefined, command: readonly [string, ...string[]]): [string, ...string[]] {
  return pid === undefined ? [...command] : ['nsenter', '--target', String(pid), '--net', '--', ...command];
}

/** The program itself is not there. */
export function isMissing(error: unknown): boolean {
  return error instanceof CommandError && error.exitCode === null && error.message.includes('ENOENT');
}

/** What it was asked for is not there. */
function isAbsent(error: unknown): boolean {
  return error instanceof CommandError && error.stderr.includes('No such file or directory');
}
