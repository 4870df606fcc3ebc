import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { openEmbeddedStore } from '../../controller/store/embedded.ts';
import type { Store } from '../../controller/store/store.ts';
import { until } from '../support/until.ts';
import { conflicts, done, entryOf, lock, set, valuesOf } from './store/context.ts';

type Program = { readonly lines: string[]; kill(): Promise<void> };

describe('embedded store: several processes', function () {
  this.timeout(60_000);
  let folder = '';
  let store: Store;
  let programs: Program[] = [];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flock-store-'));
    store = await openEmbeddedStore(join(folder, 'store.db'));
  });
  afterEach(async () => {
    for (const program of programs) await program.kill();
    programs = [];
  });
  after(async () => {
    await store?.close();
    await rm(folder, { recursive: true });
  });

  /** In a process namespace of its own where we may, as plugin and controller are: nobody can go by process ids. */
  function start(...args: readonly string[]): Program {
    const self = [process.execPath, join(import.meta.dirname, '../support/store-process.ts'), join(folder, 'store.db')];
    const isolation = process.getuid?.() === 0 ? ['unshare', '--pid', '--fork', '--kill-child'] : [];
    const [file = '', ...rest] = [...isolation, ...self, ...args];
    const child = spawn(file, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
    const program = { lines: linesOf(child), kill: () => kill(child) };
    programs.push(program);
    return program;
  }

  it('loses nothing that was acknowledged when a writer is killed, and shows no half of a transaction', async () => {
    for (let round = 0; round < 6; round += 1) {
      const at = `round-${round}/`;
      const writers = [start('write', at), start('write', `other-${round}/`)];
      await until('both write', 10_000, () => (writers.every(({ lines }) => lines.length > 5) ? true : undefined));
      await sleep(17 * round);
      for (const writer of writers) await writer.kill();
      const values = valuesOf(await store.list(at, { fresh: true }));
      const acknowledged = Number(writers[0]?.lines.at(-1));
      const found = Number(values[`${at}a`]);
      assert.equal(values[`${at}b`], values[`${at}a`]);
      assert.ok(found === acknowledged || found === acknowledged + 1, `${acknowledged} acknowledged, ${found} found`);
      for (let number = 1; number <= found; number += 1) assert.equal(values[`${at}log/${number}`], String(number));
      await done(store.transact([set(`${at}after`, '')]));
    }
  });

  it('takes the lock of a process that was killed when its time is over, not before', async () => {
    const holder = start('lock', 'held');
    await until('it has the lock', 10_000, () => holder.lines[0]);
    await holder.kill();
    const session = await store.createSession({ name: 'a test', ttlMs: 60_000, lockDelayMs: 0 });
    assert.equal((await entryOf(store, 'held')).session, holder.lines[0]);
    await conflicts(store.transact([lock('held', session)]));
    await until('the lock is free', 10_000, async () =>
      (await store.transact([lock('held', session)])).kind === 'done' ? true : undefined,
    );
  });

  it('tells watches of other processes soon', async () => {
    const watcher = start('watch', 'watched/');
    await until('it watches', 10_000, () => watcher.lines[0]);
    const delaysMs: number[] = [];
    for (let round = 1; round <= 40; round += 1) {
      const startMs = performance.now();
      await done(store.transact([set('watched/a', String(round))]));
      while (watcher.lines.at(-1) !== String(round)) {
        assert.ok(performance.now() - startMs < 5_000, `no word of change ${round}`);
        await sleep(1);
      }
      delaysMs.push(performance.now() - startMs);
      await sleep(7);
    }
    delaysMs.sort((one, other) => one - other);
    const [median = 0, worst = 0] = [delaysMs[20], delaysMs.at(-1)];
    console.log(
      `      from a write's start to another process's watch: ${median.toFixed(0)} ms, at most ${worst.toFixed(0)} ms`,
    );
  });
});

function linesOf(child: ChildProcess): string[] {
  const lines: string[] = [];
  if (child.stdout !== null) createInterface(child.stdout).on('line', (line) => lines.push(line));
  return lines;
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'close');
  child.kill('SIGKILL');
  await ended;
}
