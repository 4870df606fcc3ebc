import { readdir, readFile } from 'node:fs/promises';

/** The kernel's letter for what a process does: T is stopped, Z has ended but is not reaped. Throws if there is no such process. */
export async function processState(pid: number): Promise<string> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  // "PID (NAME) STATE ...", and the name may have spaces and brackets.
  return text.slice(text.lastIndexOf(')') + 2).charAt(0);
}

/** Whether it is gone, or only waits to be reaped: with its last thread it has let go of files and locks, not with its first. */
export async function hasEnded(pid: number): Promise<boolean> {
  try {
    const [state, threads] = await Promise.all([processState(pid), readdir(`/proc/${pid}/task`)]);
    return state === 'Z' && threads.length <= 1;
  } catch {
    return true;
  }
}
