import { execFile } from 'node:child_process';
import { type FileHandle, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { DatasetId, SnapshotName } from '../../../controller/model/names.ts';
import type { ReplicaOptions, ResumedSend, SendRequest, Snapshot } from '../../../plugin/storage/storage.ts';
import { type Bench, created, never, newId, snap } from './context.ts';

let lastFile = 0;

function newPath(bench: Bench, label: string): string {
  lastFile += 1;
  return join(bench.directory, `${label}-${lastFile}`);
}

/** The stream of a snapshot as bytes. */
export function sent(bench: Bench, id: DatasetId, to: SnapshotName, from: SnapshotName | null = null): Promise<Buffer> {
  return bytesOf(bench, { id, to, from });
}

/** What is left of a stream according to a token. */
export function sentRest(bench: Bench, id: DatasetId, token: string): Promise<Buffer> {
  return bytesOf(bench, { id, token });
}

async function bytesOf(bench: Bench, request: SendRequest | ResumedSend): Promise<Buffer> {
  const path = newPath(bench, 'stream');
  const file = await open(path, 'w');
  try {
    await bench.storage.send(request, file.fd, never());
    // Fails if send has closed the descriptor.
    await file.stat();
  } finally {
    await file.close();
  }
  return readFile(path);
}

export type Wanted = {
  readonly id: DatasetId;
  readonly to: SnapshotName;
  readonly from?: SnapshotName | null;
  readonly stamp?: string;
  readonly options?: ReplicaOptions;
  readonly resumable?: boolean;
};

/** Receives bytes that `sent` gave, perhaps damaged by the test. */
export async function received(bench: Bench, stream: Buffer, wanted: Wanted): Promise<Snapshot> {
  const path = newPath(bench, 'stream');
  await writeFile(path, stream);
  const file = await open(path, 'r');
  try {
    const snapshot = await bench.storage.receive({ from: null, stamp: 'replica', ...wanted }, file.fd, never());
    await file.stat();
    return snapshot;
  } finally {
    await file.close();
  }
}

/** Two ends of a real pipe. */
export async function openPipe(bench: Bench): Promise<{ readonly reader: FileHandle; readonly writer: FileHandle }> {
  const path = newPath(bench, 'pipe');
  await promisify(execFile)('mkfifo', [path]);
  const [reader, writer] = await Promise.all([open(path, 'r'), open(path, 'w')]);
  return { reader, writer };
}

export type Pair = { readonly source: DatasetId; readonly replica: DatasetId };

/** A source with the file `file` = `one` in the snapshot s1, and a replica of that on the other host. */
export async function replicated(here: Bench, there: Bench): Promise<Pair> {
  const source = await created(here);
  await here.content.write(source, 'file', 'one');
  await here.storage.snapshot(source, snap('s1'));
  const replica = newId('replica');
  await received(there, await sent(here, source, snap('s1')), { id: replica, to: snap('s1') });
  return { source, replica };
}
