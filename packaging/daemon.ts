import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open, readFile, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { createCommands } from '../plugin/exec.ts';

const commands = createCommands();

export function hasSystemd(): boolean {
  return existsSync('/run/systemd/system');
}

/** Enables a unit for every boot and starts it now. */
export async function startUnit(unit: string): Promise<void> {
  try {
    await commands.run('systemctl', ['enable', '--now', unit], { timeoutMs: 120_000 });
  } catch (cause) {
    throw new Error(`systemd did not start ${unit}: see journalctl -u ${unit}`, { cause });
  }
}

export type Daemon = {
  readonly file: string;
  readonly args: readonly string[];
  /** Output is appended here. */
  readonly logFile: string;
  /** Where its process id is written, for daemons that do not do it themselves. */
  readonly pidFile?: string;
  /** Answers true as soon as the daemon does its work. */
  readonly isReady: () => Promise<boolean>;
  readonly readyMsMax: number;
};

/** Starts a daemon in a session of its own, so that it outlives us and our terminal, and waits until it is ready. */
export async function startDetached(daemon: Daemon): Promise<void> {
  const log = await open(daemon.logFile, 'a');
  const child = spawn(daemon.file, daemon.args, { detached: true, stdio: ['ignore', log.fd, log.fd] });
  let ended: string | null = null;
  child.on('error', (error) => {
    ended = error.message;
  });
  child.on('exit', (code, signal) => {
    ended = `ended with ${code ?? signal}`;
  });
  child.unref();
  if (daemon.pidFile !== undefined && child.pid !== undefined) await writeFile(daemon.pidFile, `${child.pid}\n`);
  await log.close();
  if (await waitUntil(async () => ended !== null || (await daemon.isReady()), daemon.readyMsMax)) {
    if (ended === null) return;
  }
  const lastLines = (await readFile(daemon.logFile, 'utf8')).trimEnd().split('\n').slice(-8).join('\n');
  throw new Error(
    `${daemon.file} ${ended ?? `was not ready within ${daemon.readyMsMax / 1000} s`}. ${daemon.logFile} ends with:\n${lastLines}`,
  );
}

/** Polls until the condition holds (true) or the time is over (false). */
export async function waitUntil(condition: () => Promise<boolean>, msMax: number): Promise<boolean> {
  const end = performance.now() + msMax;
  for (;;) {
    if (await condition()) return true;
    if (performance.now() > end) return false;
    await sleep(100);
  }
}
