import { readFileSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DatasetId } from '../controller/model/names.ts';
import { bootMs } from './boot-clock.ts';
import { type Deadlines, readDeadlines } from './deadlines.ts';
import { createCommands } from './exec.ts';
import { parseMountInfo } from './mount-table.ts';
import { createUsers } from './users.ts';

/**
 * A process of its own that stops the users of volumes whose deadline has passed, should the plugin be stopped, stuck or dead. It knows
 * nothing but the deadlines that the plugin has published last, asks nobody, and never lets anything go on: that is the plugin's part,
 * when it can prove again that the volumes are its own.
 *
 *     watchdog.js DEADLINES_FILE OWN_FOLDER...
 */
async function main(path: string, ownFolders: readonly string[]): Promise<void> {
  const pidFile = `${path}.pid`;
  writeFileSync(pidFile, String(process.pid));
  await giveUpMounts(path);
  const users = createUsers(ownFolders);
  let frozenAtMs = Number.NEGATIVE_INFINITY;
  let neededAtMs = bootMs();
  while (readFileSync(pidFile, 'utf8') === String(process.pid)) {
    const nowMs = bootMs();
    const deadlines = readDeadlines(path);
    const overdue = overdueOf(deadlines, nowMs);
    if (overdue.length < deadlines.size) neededAtMs = nowMs;
    // While it lasts, processes that appear later are stopped, too.
    if (overdue.length > 0 && nowMs - frozenAtMs > againMs) {
      frozenAtMs = nowMs;
      // There is nobody to tell; the next round tries again.
      await users.freeze(overdue).catch(() => undefined);
      // Without a plugin and without users there is nothing to watch.
      if (nowMs - neededAtMs > idleMsMax && (await users.using(overdue)).size === 0) return;
    }
    await sleep(tickMs);
  }
}

const tickMs = 100;
const againMs = 500;
const idleMsMax = 600_000;
/** The plugin's own fence acts at the deadline; this one shortly after, within the time that fencing may take. */
const marginMs = 200;

/** Volumes without any proof were never mounted here, or are fenced by the plugin already. */
function overdueOf(deadlines: Deadlines, nowMs: number): readonly DatasetId[] {
  return [...deadlines].flatMap(([id, deadlineMs]) =>
    Number.isFinite(deadlineMs) && deadlineMs + marginMs < nowMs ? [id] : [],
  );
}

/** This process has mount namespaces of its own; what stays mounted there stays busy on the host. Kept: /, /proc and the file's. */
async function giveUpMounts(path: string): Promise<void> {
  const commands = createCommands();
  const table = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  const kept = (point: string) => point === '/' || point === '/proc' || path.startsWith(`${point}/`);
  const tops = table.map(({ mountPoint }) => mountPoint).filter((point) => !kept(point) && !point.startsWith('/proc/'));
  // The last one is on top. One that is gone with its parent is no loss.
  for (const point of tops.toReversed()) await commands.run('umount', ['--lazy', point]).catch(() => '');
}

const [path, ...ownFolders] = process.argv.slice(2);
if (path === undefined) throw new Error('usage: watchdog DEADLINES_FILE OWN_FOLDER...');
await main(path, ownFolders);
