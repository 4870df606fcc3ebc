/**
 * Another program that uses an embedded store, for tests: `store-process.ts PATH write` writes pairs of keys in one transaction each
 * and prints the number of each that was acknowledged; `store-process.ts PATH lock KEY` takes a lock, prints its session, and waits;
 * `store-process.ts PATH watch PREFIX` prints the values it sees.
 */
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openEmbeddedStore } from '../../controller/store/embedded.ts';

const [path = '', mode, name = ''] = process.argv.slice(2);
const store = await openEmbeddedStore(path);
// Not through a stream, which would keep lines of a process that is killed.
const print = (text: string) => writeSync(1, `${text}\n`);

if (mode === 'write') await writeForEver();
else if (mode === 'lock') await holdLock();
else await tellChanges();

async function writeForEver(): Promise<void> {
  for (let round = 1; ; round += 1) {
    const value = String(round);
    const outcome = await store.transact([
      { kind: 'set', key: `${name}a`, value },
      { kind: 'set', key: `${name}b`, value },
      { kind: 'set', key: `${name}log/${value}`, value },
    ]);
    if (outcome.kind === 'done') print(value);
  }
}

async function holdLock(): Promise<void> {
  const session = await store.createSession({ name: 'another process', ttlMs: 500, lockDelayMs: 0 });
  const { kind } = await store.transact([{ kind: 'lock', key: name, value: 'locked', session }]);
  print(kind === 'done' ? session : kind);
  await sleep(60_000);
}

async function tellChanges(): Promise<void> {
  for await (const [entry] of store.watch(name, AbortSignal.timeout(60_000))) print(entry?.value ?? '');
}
