import { open, readdir, readFile } from 'node:fs/promises';

/** What the kernel tells of processes, and signals to them. Of one that has ended meanwhile everything is empty. */
export type Processes = {
  all(): Promise<readonly number[]>;
  /** Its mount table (proc(5), mountinfo), or what comes before the end of the first part that is enough. Parts are whole lines. */
  mountInfo(process: ProcessName, isEnough: (part: string) => boolean): Promise<string>;
  cgroup(process: ProcessName): Promise<string>;
  /** One letter, proc_pid_stat(5). */
  state(pid: number): Promise<string>;
  send(pid: number, signal: NodeJS.Signals): void;
};

export type ProcessName = number | 'self';

/** The kernel gives no more of it at once. */
const partBytes = 4096;

export const hostProcesses: Processes = {
  all: async () => (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number),
  mountInfo: (process, isEnough) => readParts(`/proc/${process}/mountinfo`, isEnough).catch(() => ''),
  cgroup: (process) => readFile(`/proc/${process}/cgroup`, 'utf8').catch(() => ''),
  async state(pid) {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    return /\) (\S)/.exec(text)?.[1] ?? '';
  },
  send(pid, signal) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      // It has just ended.
      if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
    }
  },
};

async function readParts(path: string, isEnough: (part: string) => boolean): Promise<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(partBytes);
  const file = await open(path);
  try {
    let text = '';
    for (let told = 0; ; ) {
      const { bytesRead } = await file.read(buffer);
      if (bytesRead === 0) return text;
      text += decoder.decode(buffer.subarray(0, bytesRead), { stream: true });
      const end = text.lastIndexOf('\n') + 1;
      if (isEnough(text.slice(told, end))) return text.slice(0, end);
      told = end;
    }
  } finally {
    await file.close();
  }
}
